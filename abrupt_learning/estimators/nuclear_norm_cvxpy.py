"""Nuclear-norm problems by cvxpy and Clarabel, one matrix at a time: the oracle of `nuclear_norm`, for cross-checks."""

import functools

import torch
from torch import Tensor


@functools.cache
def problem(m: int, n: int, constrained: bool):
    """The problem of one shape, its variable X and its parameters M, B: solved again and again, compiled once (DPP).

    constrained: min ||X||_* with M X = B; else min ||X||_* + ||M X - B||_F^2. M X is elementwise.
    """
    import cvxpy

    X, M, B = cvxpy.Variable((m, n)), cvxpy.Parameter((m, n)), cvxpy.Parameter((m, n))
    misfit, norm = cvxpy.multiply(M, X) - B, cvxpy.normNuc(X)
    if constrained:
        return cvxpy.Problem(cvxpy.Minimize(norm), [misfit == 0]), X, M, B
    return cvxpy.Problem(cvxpy.Minimize(norm + cvxpy.sum_squares(misfit))), X, M, B


def solve(A: Tensor, mask: Tensor, c: Tensor, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """X, Y (B, m, n) and the iterations (B,) of Clarabel at its own tolerance of 1e-8, whatever tol is.

    Raises RuntimeError if Clarabel's status is anything but optimal.
    """
    Xs, Ys, iterations = [], [], []
    for one, seen, weight in zip(A.cpu().numpy(), mask.cpu().numpy(), c.tolist(), strict=True):
        programme, X, M, B = problem(*one.shape, weight == 0)
        M.value = seen * (1.0 if weight == 0 else (2 * weight) ** -0.5)
        B.value = M.value * one
        programme.solve(solver="CLARABEL")
        # cvxpy returns an inaccurate answer with no more than a warning.
        if programme.status != "optimal":
            raise RuntimeError(f"Clarabel ended with status {programme.status!r}, expected 'optimal'")
        Xs.append(torch.from_numpy(X.value))
        Y = -programme.constraints[0].dual_value if weight == 0 else (one - X.value) / weight
        Ys.append(torch.from_numpy(seen * Y))
        iterations.append(programme.solver_stats.num_iters)
    return torch.stack(Xs).to(A), torch.stack(Ys).to(A), torch.tensor(iterations, device=A.device)
