"""What a linear map can read from each layer's hidden states (paper Figs 6 and 21).

One probe per layer l = 0 (the embeddings) .. L, target and checkpoint: least squares in float64 with an intercept.
"""

import common.process  # noqa: F401

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from abrupt_learning.analysis._judging import ALL, COMPLETES, END, over
from abrupt_learning.estimators.interventions import record
from abrupt_learning.estimators.linear_probe import LeastSquares, chance_cosine, scores, targets, zero_levels
from abrupt_learning.evaluate import Analysis, Matrices, Trained, seed_losses
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.limits import Name
from common.plain import steps

TITLES = {
    "element": "masked entry", "row": "shown row", "column": "shown column", "svd": "$u_1$, sign fixed",
    "projector": "$u_1 u_1^T$",
}  # fmt: skip
"""Entry, shown row, shown column, u_1 with its largest component made positive, and u_1 u_1^T (which has no sign)."""


@dataclass
class Settings(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["early", "end"])
    """Checkpoints to probe; the paper has the end only."""
    probed: Name | None = None
    """Another run of the study, to be probed instead of `run`: such as the paper's model of 12 layers."""
    train: Matrices = 2048
    """Matrices the probes are fitted on."""
    test: Matrices = 256
    """Matrices they are tested on."""
    chunk: Matrices = 512
    """Matrices in memory at a time."""


def hidden_states(model, ids: Tensor) -> Tensor:
    """(L + 1, B, N, d): the embeddings and every layer's output."""
    seen = record(model, ids, "embedding", "hidden")
    return torch.cat([seen["embedding"], seen["hidden"]])


class Probing:
    """Training and test matrices with their targets, the same for every model."""

    def __init__(self, trained: Trained, settings: Settings):
        # Least squares in float64, which MPS lacks
        device = "cpu" if trained.device.type == "mps" else trained.device
        size = trained.data.sizes[0]
        self.test, train = (trained.matrices(getattr(settings, part), f"probe {part}") for part in ("test", "train"))
        self.observed, self.truth = self.test.observed.to(device), targets(self.test, size, device)
        self.widths = [truth.shape[-1] for truth in self.truth.values()]
        Y = torch.cat(list(targets(train, size, device).values()), -1)
        self.mean = Y.mean((0, 1))
        self.train = list(zip(train.ids.split(settings.chunk), Y.split(settings.chunk), strict=True))

    def scores(self, prediction: Tensor) -> dict:
        """Scores of all targets from predictions (B, N, t) on the test matrices."""
        parts = zip(self.truth, prediction.split(self.widths, -1), strict=True)
        return {name: scores(name, part, self.truth, self.observed) for name, part in parts}

    def layers(self, model) -> list[dict]:
        """Per layer and target the test scores, with the error on the training matrices as `train_mse`."""
        fits, rows = [LeastSquares() for _ in range(len(model.encoder["layer"]) + 1)], []
        for ids, Y in self.train:
            for fit, H in zip(fits, hidden_states(model, ids), strict=True):
                fit.add(H.to(Y).flatten(0, 1), Y.flatten(0, 1))
        for fit, H in zip(fits, hidden_states(model, self.test.ids), strict=True):
            W, train_error = fit.solve()
            row = self.scores(H.to(W) @ W[:-1] + W[-1])
            for name, error in zip(row, train_error.split(self.widths), strict=True):
                row[name]["train_mse"] = float(error.mean())
            rows.append(row)
        return rows


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: size (rows, columns), variance; steps -> milestone, end (L_mask of the run probed) and layers -> milestone ->
    layer -> target -> scores: {values, mean, error} over seeds; zero (of predicting 0) and chance (|cos| of a random
    direction) -> target; constant (of predicting the mean) -> target -> scores.
    """
    trained = trained.sibling(settings.probed) if settings.probed else trained
    probing, (m, n) = Probing(trained, settings), trained.data.sizes[0]
    rows = [{at: probing.layers(trained.model(seed, at)) for at in settings.milestones} for seed in trained.seeds]
    return {
        "size": [m, n],
        "variance": trained.data.variance,
        "end": seed_losses(trained.final, probing.test)["loss_masked"],
        "steps": trained.milestones(settings.milestones),
        "zero": zero_levels(trained.data),
        "constant": probing.scores(probing.mean.expand(*probing.observed.shape, -1)),
        "chance": {"row": chance_cosine(n)} | dict.fromkeys(("column", "svd", "projector"), chance_cosine(m)),
        "layers": experiment.over_seeds(rows),
    }


def curve(rows: list[dict], name: str, metric: str) -> list[tuple]:
    """(seeds, layers) of one metric."""
    return by_seed(*(row[name][metric]["values"] for row in rows))


def draw(result: dict):
    """Error and |cos| per layer, a column per target; for the entry its error at hidden and at observed cells."""
    fig, axs = plotting.axes(ncols=len(TITLES), nrows=2, height=3.9, sharex=True)
    colors = (plotting.PALETTE["before"], plotting.PALETTE["after"], *plotting.ordered(len(result["layers"])))
    for (upper, lower), (name, title) in zip(axs.T, TITLES.items(), strict=True):
        metrics = ("mse_masked", "mse_observed") if name == "element" else ("mse", "cosine")
        for (at, rows), color in zip(result["layers"].items(), colors, strict=False):
            for ax, metric in zip((upper, lower), metrics, strict=True):
                plotting.seed_lines(ax, range(len(rows)), curve(rows, name, metric), at, color)
        upper.axhline(result["zero"][name], color=plotting.GREY, ls="--", lw=0.8, label="predicting 0")
        upper.axhline(result["constant"][name][metrics[0]], color=plotting.GREY, ls=":", lw=1, label="the mean")
        upper.set(title=title, ylim=(0, 1.15 * result["zero"][name]))
        if name == "element":
            lower.set(title="observed entry", yscale="log", ylabel="mean squared error")
        else:
            lower.axhline(result["chance"][name], color=plotting.GREY, ls="-.", lw=0.8, label="random direction")
            lower.set(title="|cos|", ylim=(0, 1))
        lower.set(xlabel="layer", xticks=range(0, len(rows), math.ceil(len(rows) / 7)))
    axs[0, 0].set_ylabel("mean squared error")
    handles = {label: line for ax in axs[:, -1] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    return fig


def finding(result: dict) -> str:
    """The best layer of each target at the last milestone."""
    at, rows = list(result["layers"].items())[-1]
    parts = []
    for name in TITLES:
        metric = "mse_masked" if name == "element" else "mse"
        errors = [row[name][metric]["mean"] for row in rows]
        best, mean = errors.index(min(errors)), result["constant"][name][metric]
        part = f"{name} best at layer {best} of {len(rows) - 1}: MSE {errors[best]:.3g} (the mean {mean:.3g})"
        if name != "element":
            part += f", |cos| {rows[best][name]['cosine']['mean']:.2f} (chance {result['chance'][name]:.2f})"
        parts.append(part)
    return f"{at}: " + "; ".join(parts)


OWN_TOKEN, PLATEAU = "lowest MSE / what the own token gives", "lowest MSE / that on the plateau"
INNER = "layers from the lowest MSE to the nearer end"
CHANCE, GAIN = "|cos| with u_1 beyond chance", "|cos| with u_1 beyond that on the plateau"


def best_lines(result: dict, at: str) -> list[list[float]]:
    """Per seed the MSE per layer of the row, or of the column, over what a cell's own token gives away: one entry of it.

    A square problem is its own mirror image, so a seed may read columns where the paper's reads rows: the better counts.
    """
    rows = []
    for name, length in zip(("row", "column"), reversed(result["size"]), strict=True):
        level = result["zero"][name] * (length - 1) / length
        rows.append([[error / level for error in seed] for seed in curve(result["layers"][at], name, "mse")])
    return [min(pair, key=min) for pair in by_seed(*rows)]


def shown_line(result: dict) -> dict[str, list]:
    """Where the shown row or column is read best, and how well."""
    after, before = (best_lines(result, at) for at in ("end", "early"))
    return {
        OWN_TOKEN: [min(line) for line in after],
        INNER: [min(line.index(min(line)), line[::-1].index(min(line))) for line in after],
        PLATEAU: [min(line) / min(early) for line, early in by_seed(after, before)],
        END: over(result["end"], result["variance"]),  # of the run probed, which need not be main
    }


def best_layers(result: dict) -> str:
    best = [line.index(min(line)) for line in best_lines(result, "end")]
    return f"best at layers {steps(best)} of {len(result['layers']['end']) - 1}"


def top_singular_vector(result: dict) -> dict[str, list]:
    """The sign-free probe at its best layer."""
    seeds = (curve(result["layers"][at], "projector", "cosine") for at in ("end", "early"))
    best = [(max(after), max(before)) for after, before in by_seed(*seeds)]
    return {
        CHANCE: [after - result["chance"]["projector"] for after, _ in best],
        GAIN: [after - before for after, before in best],
        END: over(result["end"], result["variance"]),  # of the run probed, which need not be main
    }


CLAIMS = [
    Claim("C12", "After the drop hidden states encode the shown row (or column) better than the cell's own token and better "
          "than on the plateau, best at an inner layer.", source="Fig 6", presets=ALL, number=shown_line, above={INNER: 0},
          below={OWN_TOKEN: 1, PLATEAU: 1} | COMPLETES, paper="layers 3, 4 of 12", note=best_layers),
    Claim("C13", "After the drop the top singular vector can be read out linearly, better than on the plateau.",
          source="Fig 21", presets=ALL, number=top_singular_vector, above={CHANCE: 0.1, GAIN: 0}, below=COMPLETES),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
