"""Nuclear-norm problems by cvxpy and Clarabel, one matrix at a time: the oracle of `nuclear_norm`, for cross-checks."""

import functools

import torch
from torch import Tensor


def solve(A: Tensor, mask: Tensor, c: Tensor, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """X, Y (B, m, n) and the iterations (B,) of Clarabel at its own tolerance of 1e-8, whatever tol is.

    Raises RuntimeError if Clarabel's status is anything but optimal.
    """
    answers = [_solve_one(*one) for one in zip(A.cpu().numpy(), mask.cpu().numpy(), c.tolist(), strict=True)]
    X, Y, iterations = zip(*answers, strict=True)
    X, Y = (torch.stack([torch.from_numpy(M) for M in Ms]).to(A) for Ms in (X, Y))
    return X, Y, torch.tensor(iterations, device=A.device)


@functools.cache
def problem(m: int, n: int, constrained: bool):
    """The problem of one shape, its variable X and its parameters M, B: solved again and again, compiled once (DPP).

    constrained: min ||X||_* with M X = B; else min ||X||_* + ||M X - B||_F^2. M X is elementwise.
    """
    import cvxpy

    X, M, B = cvxpy.Variable((m, n)), cvxpy.Parameter((m, n)), cvxpy.Parameter((m, n))
    misfit = cvxpy.multiply(M, X) - B
    if constrained:
        return cvxpy.Problem(cvxpy.Minimize(cvxpy.normNuc(X)), [misfit == 0]), X, M, B
    return cvxpy.Problem(cvxpy.Minimize(cvxpy.normNuc(X) + cvxpy.sum_squares(misfit))), X, M, B


def _solve_one(A, mask, c: float):
    programme, X, M, B = problem(*A.shape, c == 0)
    M.value = mask * (1.0 if c == 0 else (2 * c) ** -0.5)
    B.value = M.value * A
    programme.solve(solver="CLARABEL")
    # cvxpy returns an inaccurate answer with no more than a warning.
    if programme.status != "optimal":
        raise RuntimeError(f"Clarabel ended with status {programme.status!r}, expected 'optimal'")
    Y = mask * -programme.constraints[0].dual_value if c == 0 else mask * (A - X.value) / c
    return X.value, Y, programme.solver_stats.num_iters
