"""Covariance of weights among the draws of chains: of a block such as one attention head, and between two blocks.

Every chain's draws are taken about that chain's own mean, so that chains that sit apart do not count as spread. Two ways to the
same numbers: `Running` holds the matrix itself and no draw, for blocks of some hundred weights; `Factor` holds the draws and
never forms the matrix, for blocks of many more weights than draws, such as a head's 3072.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Size, Tensor

PARTS = ("query", "key", "value", "output")
"""What an attention head has, in the order of the packed matrix; then its columns of the output matrix."""


def tensor_weights(shapes: dict[str, Size], name: str) -> Tensor:
    """Places (n,) of a named tensor's weights in a flat row (P,) that has all tensors one after another, as `Replicas` has."""
    names = list(shapes)
    before = sum(shapes[n].numel() for n in names[: names.index(name)])
    return torch.arange(before, before + shapes[name].numel())


def head_weights(
    shapes: dict[str, Size], heads: int, layer: int, head: int, parts: Sequence[str] = PARTS[:3]
) -> dict[str, Tensor]:
    """Part -> places (d/H d,) of a head's weights in a flat row: rows of the packed matrix, columns of the output matrix.

    Packed rows are [head 0: q, k, v | head 1: q, k, v | ...], as `Attention.parts` reads them. Each part's order is that of
    its matrix's slice. Raises ValueError for a head or a part that the model has not.
    """
    if not 0 <= head < heads:
        raise ValueError(f"found head {head}, expected one of 0 to {heads - 1}")
    if missing := set(parts) - set(PARTS):
        raise ValueError(f"found the part {min(missing)}, expected one of {', '.join(PARTS)}")
    return {part: _part(shapes, heads, f"blocks.{layer}.attention", head, part) for part in parts}


def _part(shapes: dict[str, Size], heads: int, attention: str, head: int, part: str) -> Tensor:
    name = f"{attention}.{'output' if part == 'output' else 'qkv'}.weight"
    if name not in shapes:
        raise ValueError(f"found no {name}, expected it for the part {part}")
    places = tensor_weights(shapes, name).view(shapes[name])
    if part == "output":
        return places.unflatten(1, (heads, -1))[:, head].flatten()
    return places.unflatten(0, (heads, 3, -1))[head, PARTS.index(part)].flatten()


class Running:
    """Mean and covariance of weights, or their cross-covariance with others, from one draw of all chains at a time.

    Welford's update (Technometrics 4, 1962), chain by chain, on the draws' device and in double (single on mps, which has no
    double): the sums are of deviations from the mean so far, so nothing cancels however far from 0 the weights are.
    """

    def __init__(self, flat: Tensor, rows: Tensor, columns: Tensor | None = None):
        """flat: (C, P), for its device and number of chains. rows (A,), columns (B,): places in it; rows serve as columns if
        none are given."""
        self.rows = rows.to(flat.device)
        self.columns = self.rows if columns is None else columns.to(flat.device)
        exact = torch.float32 if flat.device.type == "mps" else torch.float64
        self.count = 0
        self.mean = flat.new_zeros(len(flat), len(self.rows), dtype=exact)
        self.other = flat.new_zeros(len(flat), len(self.columns), dtype=exact)
        self.sums = flat.new_zeros(len(flat), len(self.rows), len(self.columns), dtype=exact)

    def update(self, flat: Tensor) -> None:
        """One more draw (C, P) of every chain."""
        self.count += 1
        x, y = (flat[:, places].to(self.mean.dtype) for places in (self.rows, self.columns))
        before = x - self.mean
        self.mean += before / self.count
        self.other += (y - self.other) / self.count
        # One deviation from the mean before this draw, one from that after it: the sum of products is then exact.
        self.sums += before[:, :, None] * (y - self.other)[:, None]

    def covariance(self, chains: Tensor | None = None) -> Tensor:
        """(A, B), the mean of the unbiased covariances within chains. chains: (C,), True for those that count; None: all."""
        sums = self.sums if chains is None else self.sums[chains]
        return sums.mean(0) / (self.count - 1)


class Pairs(NamedTuple):
    """Largest eigenvalues, or singular values, first."""

    values: Tensor
    """(top,), in squared units of the weights."""
    left: Tensor
    """(A, top), unit columns; the eigenvectors of a block."""
    right: Tensor
    """(B, top); `left` again for a block."""


def eigenpairs(covariance: Tensor, top: int) -> Pairs:
    """Of a block's covariance (A, A)."""
    values, vectors = torch.linalg.eigh(covariance)
    vectors = vectors.flip(1)[:, :top]
    return Pairs(values.flip(0)[:top], vectors, vectors)


def singular_pairs(covariance: Tensor, top: int) -> Pairs:
    """Of a cross-covariance (A, B), which is neither square nor symmetric: no eigenvalues."""
    left, values, right = torch.linalg.svd(covariance, full_matrices=False)
    return Pairs(values[:top], left[:, :top], right.mT[:, :top])


class Factor(NamedTuple):
    """Centred draws of a block as X^T = Q R, so that its covariance is Q R R^T Q^T, and that with another Q R R'^T Q'^T.

    Both are small matrices between orthonormal columns: N draws give N x N in place of A x A, and exactly the same spectrum
    but for zeros.
    """

    basis: Tensor
    """Q (A, r), orthonormal columns, r = min(A, C N)."""
    draws: Tensor
    """R (r, C N), divided by the root of the degrees of freedom."""

    @classmethod
    def of(cls, draws: Tensor) -> "Factor":
        """From draws (N, C, A), N of each of C chains."""
        centred = draws.double() - draws.double().mean(0)
        freedom = draws.shape[1] * (len(draws) - 1)
        return cls(*torch.linalg.qr(centred.flatten(0, 1).mT / freedom**0.5))

    @property
    def trace(self) -> Tensor:
        """Sum of the variances of all weights ()."""
        return self.draws.square().sum()

    def eigenpairs(self, top: int) -> Pairs:
        """Of the covariance (A, A)."""
        vectors, roots, _ = torch.linalg.svd(self.draws, full_matrices=False)
        vectors = self.basis @ vectors[:, :top]
        return Pairs(roots[:top].square(), vectors, vectors)

    def singular_pairs(self, other: "Factor", top: int) -> Pairs:
        """Of the cross-covariance (A, B) with another block's weights at the same draws."""
        values, left, right = singular_pairs(self.draws @ other.draws.mT, top)
        return Pairs(values, self.basis @ left, other.basis @ right)

    def norm(self, other: "Factor") -> Tensor:
        """Largest singular value of the cross-covariance with another block (); with itself, the largest eigenvalue."""
        return torch.linalg.matrix_norm(self.draws @ other.draws.mT, 2)
