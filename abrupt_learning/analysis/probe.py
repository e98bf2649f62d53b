"""What a linear map can read from each layer's hidden states (paper Figs 6 and 21; sheet C12, C13).

One probe per layer l = 0 (the embeddings) .. L, target and checkpoint: least squares in float64 with an intercept.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.evaluate import Trained
from abrupt_learning.interventions import record
from abrupt_learning.linear_probe import LeastSquares, chance_cosine, scores, targets, zero_levels
from common import plotting

Target = Literal["element", "row", "column", "svd", "projector"]


@dataclass
class Probe(Analysis):
    targets: list[Target] = field(default_factory=lambda: list(Target.__args__))
    """Entry, shown row, shown column, u_1 with its largest component made positive, and u_1 u_1^T (which has no sign)."""
    milestones: list[str] = field(default_factory=lambda: ["early", "end"])
    """Checkpoints to probe; the paper has the end only."""
    train: int = 2048
    """Matrices the probes are fitted on."""
    test: int = 256
    """Matrices they are tested on."""
    chunk: int = 512
    """Matrices in memory at a time."""


def hidden_states(model, ids: Tensor) -> Tensor:
    """(L + 1, B, N, d): the embeddings and every layer's output."""
    seen = record(model, ids, "embedding", "hidden")
    return torch.cat([seen["embedding"], seen["hidden"]])


def fitted(model, train: list[tuple[Tensor, Tensor]]) -> list[LeastSquares]:
    """One fit per layer; train: chunks of ids (B, N) and targets (B, N, t)."""
    fits = [LeastSquares() for _ in range(len(model.encoder["layer"]) + 1)]
    for ids, Y in train:
        for fit, H in zip(fits, hidden_states(model, ids), strict=True):
            fit.add(H.to(Y).flatten(0, 1), Y.flatten(0, 1))
    return fits


class Probing:
    """Training and test matrices with their targets, the same for every model."""

    def __init__(self, trained: Trained, settings: Probe):
        # Least squares in float64, which MPS lacks
        where = "cpu" if trained.device.type == "mps" else trained.device
        size, self.names = trained.data.sizes[0], settings.targets
        self.test, train = (trained.matrices(getattr(settings, part), f"probe {part}") for part in ("test", "train"))
        self.observed, self.truth = self.test.observed.to(where), targets(self.test, size, where)
        self.widths = [self.truth[name].shape[-1] for name in self.names]
        Y = targets(train, size, where)
        Y = torch.cat([Y[name] for name in self.names], -1)
        self.mean = Y.mean((0, 1))
        self.train = list(zip(train.ids.split(settings.chunk), Y.split(settings.chunk), strict=True))

    def scores(self, prediction: Tensor) -> dict:
        """Scores of all targets from predictions (B, N, t) on the test matrices."""
        parts = zip(self.names, prediction.split(self.widths, -1), strict=True)
        return {name: scores(name, part, self.truth, self.observed) for name, part in parts}

    def layers(self, model) -> list[dict]:
        """Per layer and target the test scores, with the error on the training matrices as `train_mse`."""
        rows = []
        for fit, H in zip(fitted(model, self.train), hidden_states(model, self.test.ids), strict=True):
            W, train_error = fit.solve()
            row = self.scores(H.to(W) @ W[:-1] + W[-1])
            for name, error in zip(self.names, train_error.split(self.widths), strict=True):
                row[name]["train_mse"] = float(error.mean())
            rows.append(row)
        return rows


def analyse(trained: Trained, settings: Probe) -> dict:
    probing = Probing(trained, settings)
    names = settings.milestones
    rows = [{name: probing.layers(trained.model(seed, name)) for name in names} for seed in trained.seeds]
    m, n = trained.data.sizes[0]
    chance = {
        "row": chance_cosine(n),
        "column": chance_cosine(m),
        "svd": chance_cosine(m),
        "projector": chance_cosine(m),
    }
    return {
        "steps": over_seeds([{name: trained.milestone(seed, name) for name in names} for seed in trained.seeds]),
        "zero": {name: level for name, level in zero_levels(trained.data).items() if name in settings.targets},
        "constant": probing.scores(probing.mean.expand(*probing.observed.shape, -1)),
        "chance": {name: level for name, level in chance.items() if name in settings.targets},
        "layers": over_seeds(rows),
    }


TITLES = {
    "element": "masked entry",
    "row": "shown row",
    "column": "shown column",
    "svd": "$u_1$, sign fixed",
    "projector": "$u_1 u_1^T$",
}


def curve(rows: list[dict], name: str, metric: str) -> list[list[float]]:
    """(seeds, layers) of one metric."""
    return [list(values) for values in zip(*(row[name][metric]["values"] for row in rows), strict=True)]


def draw(result: dict):
    names = result["settings"]["targets"]
    fig, axs = plotting.axes(ncols=len(names), nrows=2, height=3.9, sharex=True, squeeze=False)
    colors = (plotting.PALETTE["before"], plotting.PALETTE["after"], *plotting.ordered(len(result["layers"])))
    for (upper, lower), name in zip(axs.T, names, strict=True):
        metrics = ("mse_masked", "mse_observed") if name == "element" else ("mse", "cosine")
        for (at, rows), color in zip(result["layers"].items(), colors, strict=False):
            for ax, metric in zip((upper, lower), metrics, strict=True):
                plotting.seed_lines(ax, range(len(rows)), curve(rows, name, metric), at, color)
        upper.axhline(result["zero"][name], color=plotting.GREY, ls="--", lw=0.8, label="predicting 0")
        upper.axhline(result["constant"][name][metrics[0]], color=plotting.GREY, ls=":", lw=1, label="the mean")
        upper.set(title=TITLES[name], ylim=(0, 1.15 * result["zero"][name]))
        if name == "element":
            lower.set(title="observed entry", yscale="log")
        else:
            lower.axhline(result["chance"][name], color=plotting.GREY, ls="-.", lw=0.8, label="random direction")
            lower.set(title="|cos|", ylim=(0, 1))
        lower.set(xlabel="layer", xticks=range(0, len(rows), math.ceil(len(rows) / 7)))
    axs[0, 0].set_ylabel("mean squared error")
    axs[1, 0].set_ylabel("mean squared error" if names[0] == "element" else "mean abs-cosine")
    handles = {label: line for ax in axs[:, -1] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    return fig


def finding(result: dict) -> str:
    """The best layer of each target at the last milestone."""
    at, rows = list(result["layers"].items())[-1]
    parts = []
    for name in result["settings"]["targets"]:
        metric = "mse_masked" if name == "element" else "mse"
        errors = [row[name][metric]["mean"] for row in rows]
        best = errors.index(min(errors))
        said = f"{name.replace('element', 'masked element')} best at layer {best} of {len(rows) - 1}: MSE {errors[best]:.3g}"
        said += f" (the mean {result['constant'][name][metric]:.3g}"
        if name == "element":
            parts.append(said + ")")
        else:
            cosine, chance = rows[best][name]["cosine"]["mean"], result["chance"][name]
            parts.append(said + f"), |cos| {cosine:.2f} (chance {chance:.2f})")
    return f"{at}: " + "; ".join(parts)


if __name__ == "__main__":
    perform("probe", Probe, analyse, draw, finding)
