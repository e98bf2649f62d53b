"""Linear probes: what they predict, how they are fitted, how they are scored (paper Figs 6, 21).

At every cell (i, j): the entry x_ij, the shown part of its row (X o M)_i and of its column, the leading left singular vector
u_1 of X, and the sign-free u_1 u_1^T. The paper has no column; but a square problem is its own mirror image, so that a model
may as well hold columns where the paper's holds rows. Everything is float64.
"""

import math

import torch
from torch import Tensor

from abrupt_learning.data import Batch, Data


def chance_cosine(dimension: int) -> float:
    """E|cos| between a fixed vector and a random direction of R^dimension: 0.3125 in R^7."""
    return math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi)


def leading_vectors(X: Tensor) -> Tensor:
    """u_1 (B, m) of matrices X (B, m, n), its largest component positive (a random sign would hide it from a linear probe)."""
    u = torch.linalg.svd(X, full_matrices=False).U[..., 0]
    return u * u.gather(-1, u.abs().argmax(-1, keepdim=True)).sign()


def targets(batch: Batch, size: list[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """What to predict at every cell, float64: element (B, N, 1), row (B, N, n), column and svd (B, N, m), projector (m m)."""
    m, n = size
    X = batch.target.to(device).double().view(-1, m, n)
    shown = X * batch.observed.to(device).view(-1, m, n)
    u = leading_vectors(X)
    everywhere = {"svd": u, "projector": (u[:, :, None] * u[:, None, :]).flatten(1)}
    return {
        "element": X.flatten(1)[..., None],
        "row": shown.repeat_interleave(n, dim=1),
        "column": shown.mT.repeat(1, m, 1),
        **{name: value[:, None].expand(-1, m * n, -1) for name, value in everywhere.items()},
    }


def zero_levels(data: Data) -> dict[str, float]:
    """Error of predicting 0, mean over a target's components: Var, (1 - p) Var twice, 1/m and 1/m^2."""
    m = data.sizes[0][0]
    shown = (1 - data.share) * data.variance
    return {"element": data.variance, "row": shown, "column": shown, "svd": 1 / m, "projector": 1 / m**2}


class LeastSquares:
    """min |[H 1] W - Y|_F over rows that arrive in chunks, from the R of a QR factorisation that is updated.

    Directions below 1e-6 of the largest singular value are left out: LayerNorm makes one exactly dependent, and what float32
    leaves there is rounding noise.
    """

    def __init__(self):
        self.R, self.inputs, self.rows = None, 0, 0

    def add(self, H: Tensor, Y: Tensor) -> None:
        """Rows of inputs H (rows, d) and targets Y (rows, t), float64."""
        block = torch.cat([H, torch.ones_like(H[:, :1]), Y], 1)
        self.R = torch.linalg.qr(block if self.R is None else torch.cat([self.R, block]), mode="r").R
        self.inputs, self.rows = H.shape[1] + 1, self.rows + len(H)

    def solve(self) -> tuple[Tensor, Tensor]:
        """W (d + 1, t) with the intercept last, and the mean squared error (t,) on the rows seen."""
        A, B = self.R[:, : self.inputs], self.R[:, self.inputs :]
        W = torch.linalg.pinv(A, rtol=1e-6) @ B
        return W, (A @ W - B).square().sum(0) / self.rows


def abs_cosine(a: Tensor, b: Tensor) -> float:
    """Mean |cos| between rows of a and b (..., d), where neither is zero."""
    dot, lengths = (a * b).sum(-1).abs(), a.norm(dim=-1) * b.norm(dim=-1)
    return float((dot[lengths > 0] / lengths[lengths > 0]).mean())


def leading_eigenvectors(P: Tensor) -> Tensor:
    """Eigenvector (..., m) of the largest eigenvalue of the symmetric part of P (..., m m)."""
    P = P.unflatten(-1, (math.isqrt(P.shape[-1]), -1))
    return torch.linalg.eigh((P + P.mT) / 2).eigenvectors[..., -1]


def scores(name: str, prediction: Tensor, truth: dict[str, Tensor], observed: Tensor) -> dict[str, float]:
    """Error (mean over components) and mean |cos|; for the entry the error at observed and at masked cells instead.

    The projector's |cos| is that of the leading eigenvector of the prediction with u_1.
    """
    error = (prediction - truth[name]).square().mean(-1)
    result = {"mse": float(error.mean())}
    if name == "element":
        return result | {"mse_observed": float(error[observed].mean()), "mse_masked": float(error[~observed].mean())}
    if name == "projector":
        return result | {"cosine": abs_cosine(leading_eigenvectors(prediction), truth["svd"])}
    return result | {"cosine": abs_cosine(prediction, truth[name])}
