"""Drift of the tangent kernel along training: shared by ntk, the readout sweeps and the lazy limit (paper section 4.1)."""

import torch

from common.config import UserError
from layernorm_grok.analysis._lives import along
from layernorm_grok.estimators import ntk
from layernorm_grok.evaluate import Probe, Trained
from layernorm_grok.grid import is_norm

KINDS = ("projected", "sum")


class Drift:
    """||K_t - K_0|| / ||K_0|| over a fixed subset of `pairs` train pairs of a seed, ||K_0||, and the cosine of K_t and K_0.

    Raises UserError for fewer than two pairs.
    """

    def __init__(self, trained: Trained, pairs: int, kinds=KINDS, probes: int = 8):
        if pairs < 2:
            raise UserError(f"found {pairs} pairs, expected 2 or more: --pairs 256")
        self.trained, self.pairs, self.start = trained, pairs, {}
        classes = trained.config.data.P + 1
        self.vectors = {kind: ntk.vectors(kind, classes, min(probes, classes - 1)) for kind in kinds}

    @torch.enable_grad()
    def __call__(self, model, name: str, seed: int) -> dict:
        alpha, rows = self.trained.cell(name).alpha, self.trained.pairs(seed)[0][: self.pairs]
        names = {n for n, _ in model.named_parameters() if not (self.trained.config.model.frozen_norms and is_norm(n))}
        numbers = {}
        for kind, vectors in self.vectors.items():
            kernel = ntk.gram(model.requires_grad_(True), rows, vectors, alpha, names)
            start = self.start.setdefault((name, seed, kind), kernel)
            numbers |= {kind: ntk.drift(kernel, start), f"{kind}_norm": float(start.norm())}
            numbers[f"{kind}_cosine"] = float((kernel * start).sum() / (kernel.norm() * start.norm()))
        return numbers


def with_drift(trained: Trained, settings: Probe, pairs: int, **options) -> dict:
    """Curves of the drift per cell and seed (see `_lives.along`), from step 0, T_train among the steps; options: of `Drift`.

    Keys of a curve beside steps: each kind of kernel (the drift), <kind>_norm, <kind>_cosine.
    """

    def fitted(name: str, seed: int) -> int | None:
        return trained.times(name)["t_train"][trained.seeds.index(seed)]

    return along(trained, settings, Drift(trained, pairs, **options), "the drift of the kernel", fitted)
