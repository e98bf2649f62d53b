"""What a linear map can read from each layer's hidden states (paper Figs 6 and 21; sheet C12, C13).

At cell (i, j) of layer l = 0 (the embeddings) .. L, a probe predicts the entry x_ij, the shown part of its row (X o M)_i, the
leading left singular vector u_1 of X, and the sign-free u_1 u_1^T. Least squares in float64 with an intercept.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import Batch, Data
from abrupt_learning.evaluate import Trained
from common import plotting

Target = Literal["element", "row", "svd", "projector"]


@dataclass
class Probe(Analysis):
    targets: list[Target] = field(default_factory=lambda: list(Target.__args__))
    """Entry, shown row, u_1 with its largest component made positive, and u_1 u_1^T (which has no sign)."""
    milestones: list[str] = field(default_factory=lambda: ["early", "end"])
    """Checkpoints to probe; the paper has the end only."""
    train: int = 2048
    """Matrices the probes are fitted on."""
    test: int = 256
    """Matrices they are tested on."""
    chunk: int = 512
    """Matrices in memory at a time."""


def chance_cosine(dimension: int) -> float:
    """E|cos| between a fixed vector and a random direction of R^dimension: 0.3125 in R^7."""
    return math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi)


def leading_vectors(X: Tensor) -> Tensor:
    """u_1 (B, m) of matrices X (B, m, n), its largest component positive (a random sign would hide it from a linear probe)."""
    u = torch.linalg.svd(X, full_matrices=False).U[..., 0]
    return u * u.gather(-1, u.abs().argmax(-1, keepdim=True)).sign()


def targets(batch: Batch, size: list[int]) -> dict[str, Tensor]:
    """What to predict at every cell, float64: element (B, N, 1), row (B, N, n), svd (B, N, m), projector (B, N, m m)."""
    m, n = size
    X = batch.target.double().view(-1, m, n)
    shown = X * batch.observed.view(-1, m, n)
    u = leading_vectors(X)
    everywhere = {"svd": u, "projector": (u[:, :, None] * u[:, None, :]).flatten(1)}
    return {
        "element": X.flatten(1)[..., None],
        "row": shown.repeat_interleave(n, dim=1),
        **{name: value[:, None].expand(-1, m * n, -1) for name, value in everywhere.items()},
    }


def zero_levels(data: Data) -> dict[str, float]:
    """Error of predicting 0, mean over a target's components: Var, (1 - p) Var, 1/m and 1/m^2."""
    m = data.sizes[0][0]
    shown = (1 - data.p_mask) * data.variance
    return {"element": data.variance, "row": shown, "svd": 1 / m, "projector": 1 / m**2}


def hidden_states(model, ids: Tensor) -> Tensor:
    """(L + 1, B, N, d): the embeddings and every layer's output."""
    states = []

    def hook(site: str, layer: int, value: Tensor) -> Tensor:
        if site in ("embedding", "hidden"):
            states.append(value)
        return value

    with torch.no_grad():
        model(ids, hook)
    return torch.stack(states)


class LeastSquares:
    """min |[H 1] W - Y|_F over rows that arrive in chunks, from the R of a QR factorisation that is updated.

    Directions below 1e-6 of the largest singular value are left out: LayerNorm makes one exactly dependent, and what float32
    leaves there is rounding noise.
    """

    def __init__(self):
        self.R = None
        self.inputs = 0

    def add(self, H: Tensor, Y: Tensor) -> None:
        """Rows of inputs H (rows, d) and targets Y (rows, t), float64."""
        block = torch.cat([H, torch.ones_like(H[:, :1]), Y], 1)
        self.inputs = H.shape[1] + 1
        self.R = torch.linalg.qr(block if self.R is None else torch.cat([self.R, block]), mode="r").R

    def solve(self) -> Tensor:
        """W (d + 1, t), the intercept last."""
        k = self.inputs
        return torch.linalg.pinv(self.R[:k, :k], rtol=1e-6) @ self.R[:k, k:]


def abs_cosine(a: Tensor, b: Tensor) -> float:
    """Mean |cos| between rows of a and b (..., d), where neither is zero."""
    dot, lengths = (a * b).sum(-1).abs(), a.norm(dim=-1) * b.norm(dim=-1)
    return float((dot[lengths > 0] / lengths[lengths > 0]).mean())


def scores(name: str, prediction: Tensor, target: Tensor, observed: Tensor) -> dict[str, float]:
    """Test error (mean over components) and mean |cos|; the element's error also apart for observed and masked cells."""
    error = (prediction - target).square().mean(-1)
    result = {"mse": float(error.mean())}
    if name == "element":
        return result | {"mse_observed": float(error[observed].mean()), "mse_masked": float(error[~observed].mean())}
    if name == "projector":  # compare the leading eigenvector of what is predicted with u_1
        m = math.isqrt(target.shape[-1])
        prediction, target = (leading_eigenvectors(P.unflatten(-1, (m, m))) for P in (prediction, target))
    return result | {"cosine": abs_cosine(prediction, target)}


def leading_eigenvectors(P: Tensor) -> Tensor:
    """Eigenvector of the largest eigenvalue of the symmetric part of P (..., m, m)."""
    return torch.linalg.eigh((P + P.mT) / 2).eigenvectors[..., -1]


def affine(H: Tensor, W: Tensor) -> Tensor:
    """[H 1] W."""
    return H @ W[:-1] + W[-1]


def stacked(batch: Batch, trained: Trained, names: list[str]) -> Tensor:
    """The targets of a batch side by side, (B, N, t)."""
    every = targets(batch, trained.data.sizes[0])
    return torch.cat([every[name] for name in names], -1)


def probes(model, train: list[tuple[Tensor, Tensor]]) -> list[LeastSquares]:
    """One fitted probe per layer; train: chunks of (ids, targets)."""
    fits = [LeastSquares() for _ in range(len(model.encoder["layer"]) + 1)]
    for ids, Y in train:
        for fit, states in zip(fits, hidden_states(model, ids), strict=True):
            fit.add(states.to(Y).flatten(0, 1), Y.flatten(0, 1))
    return fits


def analyse(trained: Trained, settings: Probe) -> dict:
    names, where = settings.targets, "cpu" if trained.device.type == "mps" else trained.device  # MPS has no float64
    test = trained.matrices(settings.test, "probe test")
    truth = {name: value.to(where) for name, value in targets(test, trained.data.sizes[0]).items() if name in names}
    train = trained.matrices(settings.train, "probe train")
    chunks = [Batch(*parts) for parts in zip(*(part.split(settings.chunk) for part in train), strict=True)]
    pairs = [(chunk.ids, stacked(chunk, trained, names).to(where)) for chunk in chunks]
    widths = [truth[name].shape[-1] for name in names]

    def layer_scores(fit: LeastSquares, H: Tensor) -> dict:
        W = fit.solve()
        parts = affine(H.to(W), W).split(widths, dim=-1)
        return {n: scores(n, P, truth[n], test.observed.to(where)) for n, P in zip(names, parts, strict=True)}

    rows = []
    for seed in trained.seeds:
        models = {at: trained.model(seed, at) for at in settings.milestones}
        rows.append(
            {
                at: [layer_scores(*pair) for pair in zip(probes(model, pairs), hidden_states(model, test.ids), strict=True)]
                for at, model in models.items()
            }
        )
    m, n = trained.data.sizes[0]
    ...
