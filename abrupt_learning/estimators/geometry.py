"""Measures of point clouds: what the scatter pictures of embedding tables say, in numbers (paper Figs 7, 9, 10)."""

import torch
from torch import Tensor


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's r of two vectors; NaN where one is constant."""
    return float(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1])


def symmetry(token: Tensor, k: Tensor) -> float:
    """Pearson correlation of |e(v)| and |e(-v)| over the values v > 0 that stand in k (T,) with both signs; token: (T, d)."""
    norms = dict(zip(k.tolist(), token.norm(dim=1), strict=True))
    pairs = [torch.stack([norms[v], norms[-v]]) for v in norms if v > 0 and -v in norms]
    return correlation(*torch.stack(pairs, 1)) if len(pairs) > 2 else float("nan")


def sign_and_magnitude(scores: Tensor, k: Tensor) -> dict[str, float]:
    """abs(corr) of two components (T, 2) with the sign of v and with abs v; each gets one component, whichever way fits.

    A random direction scores about sqrt(2 / (pi T)).
    """
    sign, magnitude = ([abs(correlation(c, target)) for c in scores.unbind(1)] for target in (k.sign(), k.abs()))
    first = int(sign[0] + magnitude[1] < sign[1] + magnitude[0])
    return {"sign": sign[first], "magnitude": magnitude[1 - first]}


def purity(position: Tensor, columns: int) -> dict[str, float]:
    """Share of cells whose nearest neighbour among the position vectors (N, d) lies in the same column, in the same row."""
    cell = torch.arange(len(position))
    distances = torch.cdist(position, position, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.fill_diagonal_(float("inf")).argmin(1)
    lines = {"column": lambda cells: cells % columns, "row": lambda cells: cells // columns}
    return {name: float((line(nearest) == line(cell)).double().mean()) for name, line in lines.items()}


def chance_purity(rows: int, columns: int) -> dict[str, float]:
    """Purity where the nearest neighbour is any other cell with the same probability."""
    others = rows * columns - 1
    return {"column": (rows - 1) / others, "row": (columns - 1) / others}


def principal_axes(X: Tensor, components: int = 2) -> tuple[Tensor, Tensor]:
    """(mean (..., 1, d), axes (..., d, components)) of points X; on each axis the farthest point lies on the positive side."""
    mean = X.mean(-2, keepdim=True)
    axes = torch.linalg.svd(X - mean, full_matrices=False).Vh[..., :components, :].mT
    scores = (X - mean) @ axes
    farthest = scores.gather(-2, scores.abs().argmax(-2, keepdim=True))
    return mean, axes * torch.where(farthest < 0, -1.0, 1.0)


def turned_onto(picture: Tensor, reference: Tensor) -> Tensor:
    """A centred picture (N, 2) rotated or mirrored, not stretched, to lie closest to another (orthogonal Procrustes)."""
    U, _, Vh = torch.linalg.svd(picture.mT @ reference)
    return picture @ U @ Vh
