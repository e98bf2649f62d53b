"""Matrix completion by nuclear norm: thousands of small problems at once, each with a proof of how good its answer is.

    complete     min ||X||_*                                          subject to X = A on the mask   (paper Fig. 3)
    regularised  min (1/|mask|) ||mask (X - A)||_F^2 + lam ||X||_*                                   (paper's lambda table)

With c = 0, or c = lam |mask| / 2 after dividing by lam, both are one problem, which has a dual:

    min_X  ||X||_* + ||mask (X - A)||_F^2 / 2c   =   max_Y  <A, Y> - c ||Y||_F^2 / 2,   Y = 0 off the mask, ||Y||_2 <= 1

Any such Y bounds the optimum from below; that is the certificate. `nuclear_norm_interior` solves batches, and
`nuclear_norm_cvxpy` is the oracle, one matrix at a time.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from abrupt_learning.estimators import nuclear_norm_cvxpy, nuclear_norm_interior

SOLVERS = {"interior_point": nuclear_norm_interior.solve, "cvxpy": nuclear_norm_cvxpy.solve}
# Doubles in the Newton matrices of one batch; on a CPU, of 50,000 to 600,000 the quickest (about what the caches hold).
WORKING_SET = {"cpu": 300_000, "cuda": 100_000_000}


class Solution(NamedTuple):
    """What a solver found for B problems, in float64."""

    X: Tensor
    """The completed matrices (B, m, n); `complete` gives exactly A on the mask."""
    gap: Tensor
    """Upper bound (B,) on objective minus optimum, in units of ||X||_* (`regularised`: of the objective over lam)."""
    iterations: Tensor
    """Steps taken (B,)."""
    Y: Tensor
    """The dual matrices (B, m, n) that prove the gap: zero off the mask, spectral norm at most 1."""


def complete(A: Tensor, mask: Tensor, tol: float = 1e-5, solver: str = "interior_point") -> Solution:
    """The matrix of least nuclear norm among those equal to A on the mask.

    A, mask: (B, m, n), mask true where A is observed; A is not read elsewhere. tol: the largest gap in ||X||_*, over the power
    of two just below the largest observed entry, so that scaled inputs give scaled answers; rounding allows about 1e-9. solver:
    interior_point, or cvxpy (which keeps to its own 1e-8).
    Raises ValueError on shapes that do not match, on observed values that are not finite, and on tol <= 0.
    """
    A, mask = _checked(A, mask, tol)
    return _solve(A, mask, A.new_zeros(len(A)), tol, solver)


def regularised(A: Tensor, mask: Tensor, lam: float, tol: float = 1e-5, solver: str = "interior_point") -> Solution:
    """The minimum of (1/|mask|) ||mask (X - A)||_F^2 + lam ||X||_*, lam > 0; `complete` is its limit as lam goes to 0.

    Arguments and errors as in `complete`; tol and the gap are those of the objective divided by lam.
    """
    A, mask = _checked(A, mask, tol)
    if not lam > 0:
        raise ValueError(f"lam is {lam}; expected a positive weight (complete() is the limit as it goes to 0)")
    return _solve(A, mask, lam / 2 * mask.sum((1, 2), dtype=A.dtype), tol, solver)


def certificate(A: Tensor, mask: Tensor, c: Tensor, X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Primal value at X minus dual value at Y (B,), and Y (B, m, n), which is made feasible first; c: (B,).

    Weak duality alone makes it a proof, wherever X and Y come from.
    """
    Y = torch.where(mask, Y, 0.0)
    Y = Y / torch.linalg.matrix_norm(Y, 2).clamp(min=1.0)[:, None, None]
    misfit = torch.where(mask, X - A, 0.0).square().sum((1, 2)) / (2 * c)
    primal = torch.linalg.matrix_norm(X, "nuc") + torch.where(c > 0, misfit, 0.0)
    dual = (A * Y).sum((1, 2)) - c / 2 * Y.square().sum((1, 2))
    return primal - dual, Y


def _checked(A: Tensor, mask: Tensor, tol: float) -> tuple[Tensor, Tensor]:
    """A in float64 with zeros off the mask, and a boolean mask."""
    if A.ndim != 3 or A.shape != mask.shape or not A.numel():
        raise ValueError(
            f"A is {tuple(A.shape)} and mask {tuple(mask.shape)}; expected one (B, m, n) for both, none of them 0"
        )
    if not tol > 0:
        raise ValueError(f"tol is {tol}; expected a positive gap, such as 1e-5")
    mask = mask.bool()
    A = torch.where(mask, A.double(), 0.0)
    if not A.isfinite().all():
        raise ValueError(
            "A holds NaN or infinite values on the mask; expected finite ones (off the mask anything goes)"
        )
    return A, mask


def _solve(A: Tensor, mask: Tensor, c: Tensor, tol: float, solver: str) -> Solution:
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}; expected {' or '.join(SOLVERS)}")
    rows = max(1, WORKING_SET.get(A.device.type, WORKING_SET["cpu"]) // A[0].numel() ** 2)
    # Dividing X, A and c by one number leaves the problem and Y as they are; by a power of two, without rounding.
    scale = torch.exp2(A.abs().amax((1, 2)).log2().floor()).clamp(min=torch.finfo(A.dtype).tiny)
    A, c = A / scale[:, None, None], c / scale
    parts = [SOLVERS[solver](*part, tol) for part in zip(A.split(rows), mask.split(rows), c.split(rows), strict=True)]
    X, Y, iterations = (torch.cat(field) for field in zip(*parts, strict=True))
    X = torch.where(mask, A - c[:, None, None] * Y, X)
    gap, Y = certificate(A, mask, c, X, Y)
    return Solution(X * scale[:, None, None], gap * scale, iterations, Y)
