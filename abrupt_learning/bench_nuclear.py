"""Nuclear-norm completion beside cvxpy, in matrices per second: one thread each, the same matrices, every gap certified.

cvxpy is given Clarabel, the faster of its two solvers here, at its own settings.
"""

import numpy as np
import torch

from abrupt_learning.data import Data, sample
from abrupt_learning.nuclear_norm import complete
from common import bench

TOLERANCE = 1e-5


def rows(matrices: int = 512, one_by_one: int = 16, rounds: int = 7) -> list[dict]:
    """Rows of bench.json: against one parametrised cvxpy problem solved again and again, and one built anew per matrix.

    matrices: ours per timed call; one_by_one: cvxpy's (7x7, rank 2, p = 0.3). RuntimeError if a gap exceeds 1e-5.
    """
    batch = sample(Data(), matrices, torch.Generator().manual_seed(0))
    A, mask = batch.target.double().view(-1, 7, 7), batch.observed.view(-1, 7, 7)
    few = A[:one_by_one], mask[:one_by_one]
    arrays = [t.numpy() for t in few]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        gap = complete(A, mask, TOLERANCE).gap.max().item()
        if gap > TOLERANCE:
            raise RuntimeError(f"a gap is {gap:.1e}; expected every one below {TOLERANCE:g}, or the times mean nothing")
        ours = lambda: complete(A, mask, TOLERANCE)  # noqa: E731
        parametrised = bench.interleaved(ours, lambda: complete(*few, solver="cvxpy"), rounds)
        rebuilt = bench.interleaved(ours, lambda: literal_loop(*arrays), rounds)
    finally:
        torch.set_num_threads(threads)
    return [
        bench.row(f"nuclear norm, 7x7, beside {name}", matrices / seconds, one_by_one / other, "matrices/s", target)
        for name, (seconds, other), target in (
            ("one parametrised cvxpy problem", parametrised, 10.0),
            ("a cvxpy problem per matrix", rebuilt, 20.0),
        )
    ]


def literal_loop(A: np.ndarray, mask: np.ndarray) -> None:
    """The loop as usually written: a cvxpy problem built, compiled and solved per matrix of (B, m, n)."""
    import cvxpy

    for one, seen in zip(A, mask.astype(float), strict=True):
        X = cvxpy.Variable(one.shape)
        problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.normNuc(X)), [cvxpy.multiply(seen, X) == seen * one])
        problem.solve(solver="CLARABEL")
