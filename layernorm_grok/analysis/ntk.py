"""Is there a lazy phase? Drift of the empirical NTK from its start (paper section 4.1, authors' notebooks).

The readout sweeps and the lazy limit look at the same drift.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Literal

import torch

from common import experiment, plotting
from common.claims import Claim, by_seed
from common.config import UserError
from common.experiment import over_seeds
from common.limits import Count
from layernorm_grok.analysis._compare import ALL
from layernorm_grok.analysis._lives import along, by_cell, digits, draw_lives, from_on
from layernorm_grok.estimators import ntk
from layernorm_grok.evaluate import Probe, Trained
from layernorm_grok.grid import is_norm


@dataclass
class Settings(Probe):
    pairs: Count = 512
    """Train pairs in the kernel, the same at every checkpoint."""
    kinds: list[Literal["projected", "sum", "full"]] = field(default_factory=lambda: ["projected", "sum"])
    """Output directions: probes orthogonal to all-ones, all-ones (the authors' default), full (all, slow)."""
    probes: Count = 8
    """Probes of `projected`."""

    def __post_init__(self):
        if "projected" not in self.kinds:
            raise ValueError(f"kinds is {self.kinds}; expected projected among them")


def with_drift(
    trained: Trained, settings: Probe, pairs: int, kinds: tuple[str, ...] = ("projected", "sum"), probes: int = 8
) -> dict:
    """Curves per cell and seed (see `_lives.along`), from step 0, T_train among the steps, of the kernel over a fixed subset of
    `pairs` train pairs.

    Keys of a curve beside steps: each of `kinds` (||K_t - K_0|| / ||K_0||), <kind>_norm (||K_0||), <kind>_cosine (of K_t and
    K_0). probes: of kind projected. Raises UserError for fewer than two pairs.
    """
    if pairs < 2:
        raise UserError(f"found {pairs} pairs, expected 2 or more: --pairs 256")
    classes, starts = trained.config.data.P + 1, {}
    vectors = {kind: ntk.vectors(kind, classes, min(probes, classes - 1)) for kind in kinds}

    @torch.enable_grad()
    def measure(trained: Trained, model, name: str, seed: int) -> dict:
        alpha, rows = trained.cell(name).alpha, trained.pairs[seed][0][:pairs]
        names = {n for n, _ in model.named_parameters() if not (trained.config.model.frozen_norms and is_norm(n))}
        numbers = {}
        for kind in kinds:
            kernel = ntk.gram(model.requires_grad_(True), rows, vectors[kind], alpha, names)
            start = starts.setdefault((name, seed, kind), kernel)
            numbers |= {kind: ntk.drift(kernel, start), f"{kind}_norm": float(start.norm())}
            numbers[f"{kind}_cosine"] = float((kernel * start).sum() / (kernel.norm() * start.norm()))
        return numbers

    def fitted(name: str, seed: int) -> int | None:
        return trained.times(name)["t_train"][trained.seeds.index(seed)]

    return along(trained, settings, measure, "the drift of the kernel", fitted)


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `with_drift`; at_fit: the drift at the first checkpoint from T_train on)."""
    cells = with_drift(trained, settings, settings.pairs, kinds=settings.kinds, probes=settings.probes)
    for cell in cells.values():
        cell["at_fit"] = over_seeds(at_fit(cell, "projected"))
    return {"cells": cells}


def at_fit(cell: dict, key: str) -> list[float | None]:
    """Per seed a curve's value at the first checkpoint from T_train on; None where T_train never came."""
    return [from_on(curve, key, t) for curve, t in by_seed(cell["seeds"], cell["times"]["t_train"])]


def draw(result: dict):
    """Drift in the directions cross-entropy sees, and of the sum of logits, to which it is blind."""
    titles = {
        "projected": "orthogonal to the sum of logits",
        "sum": "of the sum of logits (as in the code)",
        "full": "of all logits",
    }
    kinds = [kind for kind in titles if kind in result["settings"]["kinds"]]
    fig, axes = plotting.axes(len(kinds), height=2.6, squeeze=False)
    look = {"ylabel": "||K_t - K_0|| / ||K_0||", "xscale": "symlog", "yscale": "symlog"}
    for ax, kind in zip(axes.flat, kinds, strict=True):
        draw_lives(ax, result["cells"], kind, title=titles[kind], **look)
    axes.flat[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    drifts = by_cell(result["cells"], lambda cell: cell["at_fit"]["values"], ".1f")
    return f"drift at the first checkpoint after the train loss came to 0.01: {drifts}"


def changed(result: dict) -> dict[str, list]:
    """C21, No LN, at the first checkpoint from T_train on: the drift, the cosine of the kernel and its start (a kernel that
    only grows drifts too, and keeps a cosine of 1), and that checkpoint over T_train."""
    cell = result["cells"]["off"]
    looked_at = by_seed(at_fit(cell, "steps"), cell["times"]["t_train"])
    return {
        "drift at T_train": cell["at_fit"]["values"],
        "cosine with the start": at_fit(cell, "projected_cosine"),
        "checkpoint / T_train": [step and step / t for step, t in looked_at],
    }


def changed_note(result: dict) -> str:
    cells = result["cells"]
    others = by_cell(cells, lambda cell: cell["at_fit"]["values"], names=[name for name in cells if name != "off"])
    return f"sum kernel, as the paper's: {digits(at_fit(cells['off'], 'sum'))}; {others}"


CLAIMS = [
    Claim("C21", "Without LN, features have changed by the time train is fitted: there is no lazy phase.", source="section 4.1",
          presets=ALL, paper="notebook, sum kernel, step 200: 267", number=changed, above={"drift at T_train": 5},
          below={"cosine with the start": 0.9, "checkpoint / T_train": 1.5}, note=changed_note),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
