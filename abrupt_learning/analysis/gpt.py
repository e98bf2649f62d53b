"""A decoder drops when it learns to copy (paper Fig 11): loss between two entropy levels, greedy accuracy."""

import common.process  # noqa: F401

from dataclasses import dataclass

from abrupt_learning.analysis._judging import ALL, over
from abrupt_learning.estimators.drop import kept_from, share_near
from abrupt_learning.estimators.marginal import entropy_levels, entry_shares
from abrupt_learning.evaluate import Analysis, Trained, TrainedGpt
from common import experiment, plotting
from common.claims import Claim
from common.experiment import over_seeds
from common.limits import Place
from common.plain import steps

KINDS = {"accuracy_all": "all cells", "accuracy_observed": "observed cells", "accuracy_masked": "hidden cells"}


@dataclass
class Settings(Analysis):
    READS = TrainedGpt

    run: Place = "runs/abrupt_learning/quick/gpt"
    """Run folder to analyse."""


def copy_step(trained: Trained, seed: int) -> int | None:
    """The step from which the loss stays below the middle of the two entropy levels; None if it does not."""
    rows = trained.curve(seed)
    return kept_from(rows["step"].to_numpy(), rows["loss"].to_numpy(), sum(entropy_levels(trained.data)) / 2)


def on_plateau(trained: Trained, seed: int) -> float:
    """Share of the steps to `copy_step` (of all, without one) with the loss within 3% of the first level."""
    rows = trained.curve(seed)
    before = rows["step"] <= (copy_step(trained, seed) or rows["step"].iloc[-1])
    return share_near(rows["loss"][before].to_numpy(), entropy_levels(trained.data)[0], 0.03)


def at_end(test, curve) -> dict[str, float]:
    """The last test of a seed, and its loss over the last three rows."""
    scores = {key: float(test[key].iloc[-1]) for key in (*KINDS, "mse_observed", "mse_masked")}
    return scores | {"loss": float(curve["loss"].tail(3).mean())}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: levels (nats, before and after observed cells are copied); chance, frequent (accuracy of a random and of the most
    frequent value); half (copy_step), plateau (on_plateau), end -> accuracy and MSE by kind of cell, and loss: {values, mean,
    error} over seeds; steps and loss, test_steps and accuracy -> kind of cell: curves by seed.
    """
    rows, seeds = trained.metrics.dropna(subset=["accuracy_all"]), trained.seeds
    tests, curves = [rows[rows["seed"] == seed] for seed in seeds], [trained.curve(seed) for seed in seeds]
    return {
        "levels": entropy_levels(trained.data),
        "chance": 1 / trained.data.vocabulary,
        "frequent": float(entry_shares(trained.data).max()),
        "half": over_seeds([copy_step(trained, seed) for seed in seeds]),
        "plateau": over_seeds([on_plateau(trained, seed) for seed in seeds]),
        "steps": curves[0]["step"].tolist(),
        "loss": [curve["loss"].round(5).tolist() for curve in curves],
        "test_steps": tests[0]["step"].tolist(),
        "accuracy": {kind: [test[kind].round(5).tolist() for test in tests] for kind in KINDS},
        "end": over_seeds([at_end(*pair) for pair in zip(tests, curves, strict=True)]),
    }


def draw(result: dict):
    """The loss between its levels, and the accuracy by kind of cell."""
    fig, (left, right) = plotting.axes(ncols=2, height=2.7)
    plotting.seed_lines(left, result["steps"], result["loss"], label="loss", color=plotting.BLUE)
    for level, name in zip(result["levels"], ("marginal entropy", "observed cells copied"), strict=True):
        left.axhline(level, color=plotting.GREY, ls="--", lw=0.8)
        left.text(0.99, 1.004 * level, name, transform=left.get_yaxis_transform(), ha="right", va="bottom")
    left.set(xlabel="step", ylabel="cross-entropy (nats)", ylim=(0.8 * result["levels"][1], 1.2 * result["levels"][0]))
    for color, (kind, label) in zip(plotting.COLORS, KINDS.items(), strict=False):
        plotting.seed_lines(right, result["test_steps"], result["accuracy"][kind], label=label, color=color)
    right.set(xlabel="step", ylabel="greedy token accuracy", ylim=(0, 1.02))
    right.legend()
    return fig


def finding(result: dict) -> str:
    end, (before, after) = result["end"], result["levels"]
    return (
        f"loss {end['loss']['mean']:.2f} nats at the end (levels {before:.2f} and {after:.2f}); greedy accuracy "
        f"{end['accuracy_observed']['mean']:.2f} on observed cells, {end['accuracy_masked']['mean']:.2f} on hidden ones"
    )


STOOD, SHOWN, HIDDEN, LEVEL = ("share of the steps to the drop within 3% of the first level", "accuracy at observed cells",
                               "accuracy at hidden cells beyond the most frequent value's", "loss / second level")  # fmt: skip


def copies(result: dict) -> dict[str, list]:
    """Before its drop GPT knows an entry's distribution alone, after it the observed cells, and of hidden ones little more."""
    end, frequent = result["end"], result["frequent"]
    return {
        SHOWN: end["accuracy_observed"]["values"],
        STOOD: result["plateau"]["values"],
        HIDDEN: [(value - frequent) / (1 - frequent) for value in end["accuracy_masked"]["values"]],
        LEVEL: over(end["loss"], result["levels"][1]),
    }


CLAIMS = [
    Claim("C28", "GPT stands at the entropy of an entry, then drops when it learns to copy observed entries; hidden ones "
          "stay unsolved.", source="Fig 11", presets=ALL, needs=("gpt/gpt",), number=copies, above={SHOWN: 0.95, STOOD: 0.25},
          below={HIDDEN: 0.25, LEVEL: 1.1},
          note=lambda result: f"drop at {steps(result['half']['values'])}; {finding(result)}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
