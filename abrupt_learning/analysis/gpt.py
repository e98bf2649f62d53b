"""A decoder drops when it learns to copy (paper Fig 11, sheet C28): loss between two entropy levels, greedy accuracy."""

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import entropy_levels
from abrupt_learning.evaluate import Trained
from common import plotting

KINDS = {"accuracy_all": "all cells", "accuracy_observed": "observed cells", "accuracy_masked": "hidden cells"}


def copy_step(run: Trained, seed: int) -> int | None:
    """First step whose loss is below the middle of the two entropy levels; None if it never is."""
    rows = run.metrics(seed)
    below = rows["step"][rows["loss"] < sum(entropy_levels(run.data)) / 2]
    return int(below.iloc[0]) if len(below) else None


def analyse(trained: Trained, settings: Analysis) -> dict:
    rows = trained.run.metrics()
    tests = [rows[(rows["seed"] == s) & rows["accuracy_all"].notna()] for s in trained.seeds]
    losses = [trained.metrics(seed) for seed in trained.seeds]
    return {
        "levels": entropy_levels(trained.data),
        "chance": 1 / trained.data.vocabulary,
        "half": over_seeds([copy_step(trained, seed) for seed in trained.seeds]),
        "steps": losses[0]["step"].tolist(),
        "loss": [m["loss"].round(5).tolist() for m in losses],
        "test_steps": tests[0]["step"].astype(int).tolist(),
        "accuracy": {kind: [t[kind].round(5).tolist() for t in tests] for kind in KINDS},
        "end": over_seeds([{k: float(t[k].iloc[-1]) for k in (*KINDS, "mse_observed", "mse_masked")} for t in tests])
        | {"loss": over_seeds([float(m["loss"].tail(3).mean()) for m in losses])},
    }


def draw(result: dict):
    fig, (left, right) = plotting.axes(ncols=2, width=6.5, height=2.7)
    plotting.seed_lines(left, result["steps"], result["loss"], label="loss", color=plotting.COLORS[0])
    for level, name in zip(result["levels"], ("marginal entropy", "observed cells copied"), strict=True):
        left.axhline(level, color="0.5", ls="--", lw=0.8)
        left.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points", ha="right"
        )
    left.set(xlabel="step", ylabel="cross-entropy (nats)", ylim=(0.9 * result["levels"][1], 1.2 * result["levels"][0]))
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


if __name__ == "__main__":
    perform("gpt", Analysis, analyse, draw, finding)
