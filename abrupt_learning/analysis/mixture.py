"""A mixture of sizes is learned size by size (paper Fig 16)."""

import math
from dataclasses import asdict, replace
from itertools import pairwise

from abrupt_learning.analysis._judging import LONG
from abrupt_learning.data import plateau_levels
from abrupt_learning.estimators.drop import find_drop
from abrupt_learning.evaluate import Analysis, Trained
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.config import UserError
from common.experiment import over_seeds
from common.plain import steps

Settings = Analysis
SMOOTHING = 5
"""Tests in a moving average."""


def of_size(trained: Trained, size: list[int]) -> dict:
    """The test loss of one size over p Var, as `analyse` has it."""
    name = "loss_{}x{}".format(*size)
    if name not in trained.metrics:
        raise UserError(
            f"found no {name} in {trained.run.path}, expected a mixture's tests; train with --train.evaluate_every 100"
        )
    rows = trained.metrics.dropna(subset=[name])
    rows = rows.assign(loss_masked=rows[name] / plateau_levels(replace(trained.data, sizes=[size]))[0])
    tests = [rows[rows["seed"] == seed].reset_index(drop=True) for seed in trained.seeds]
    smooth = [test["loss_masked"].rolling(SMOOTHING, min_periods=1).mean() for test in tests]
    # A test has no losses of its own at hidden and at observed cells: the drop is that of the loss over all.
    drops = [asdict(find_drop(test, 1.0, SMOOTHING * int(test["step"][0]))) for test in tests]
    return {
        "steps": tests[0]["step"].astype(int).tolist(),
        "curves": [values.round(5).tolist() for values in smooth],
        "half": over_seeds([drop["half"] for drop in drops]),
        "width": over_seeds([drop["width"] for drop in drops]),
        "final": over_seeds([float(values.iloc[-1]) for values in smooth]),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: sizes -> "5x5" -> steps (of the tests), curves (seed -> test loss / (p Var)), and of the drop of that: half,
    width; final: {values, mean, error} over seeds.
    """
    return {"sizes": {f"{m}x{n}": of_size(trained, [m, n]) for m, n in trained.data.sizes}}


def draw(result: dict):
    """Test loss over p Var by size."""
    fig, ax = plotting.axes(width=4.5, height=2.8)
    for color, (name, size) in zip(plotting.COLORS, result["sizes"].items(), strict=False):
        plotting.seed_lines(ax, size["steps"], size["curves"], label=name, color=color)
    ax.axhline(1, color=plotting.GREY, ls="--", lw=0.8)
    ax.set(xlabel="step", ylabel="test loss / (p Var)", ylim=(0, 1.5))
    ax.legend(title="size")
    return fig


def finding(result: dict) -> str:
    halves = [f"{name} at {steps(size['half']['values'])}" for name, size in result["sizes"].items()]
    return f"below half of the plateau: {', '.join(halves)}"


def separation(result: dict) -> dict[str, list]:
    """Per seed the latest drop of a size, and how far apart the drops of two sizes are at the least."""
    sizes = result["sizes"].values()
    halves, widths = (by_seed(*(size[key]["values"] for size in sizes)) for key in ("half", "width"))
    end = next(iter(sizes))["steps"][-1]
    return {
        "latest t_drop / steps trained": [math.inf if None in half else max(half) / end for half in halves],
        "least gap of two drops / width of the earlier": [gap(*seed) for seed in zip(halves, widths, strict=True)],
    }


def gap(halves: tuple, widths: tuple) -> float | None:
    """The least distance of one drop to the next over the width of the earlier; None without all drops, and their widths."""
    if None in (*halves, *widths):
        return None
    drops = sorted(zip(halves, widths, strict=True))
    return min((later - earlier) / max(width, 1) for (earlier, width), (later, _) in pairwise(drops))


CLAIMS = [
    Claim("C24", "A mixture of sizes is learned size by size: every size drops, and the next only after the one before.",
          source="Fig 16", presets=LONG, needs=("mixture/mixture",), number=separation,
          below={"latest t_drop / steps trained": 1}, above={"least gap of two drops / width of the earlier": 1},
          note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
