"""A mixture of sizes is learned size by size (paper Fig 16)."""

import common.process  # noqa: F401

import math
from dataclasses import asdict, replace
from itertools import pairwise

from abrupt_learning.analysis import curves
from abrupt_learning.analysis._judging import LONG
from abrupt_learning.estimators.drop import find_drop
from abrupt_learning.evaluate import Analysis, Trained
from common import experiment
from common.claims import Claim, by_seed
from common.config import UserError

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
    data, rows = replace(trained.data, sizes=[size]), trained.metrics.dropna(subset=[name])
    rows = rows.assign(loss_masked=rows[name] / (data.share * data.variance))
    tests = [rows[rows["seed"] == seed].reset_index(drop=True) for seed in trained.seeds]
    # A test has no losses of its own at hidden and at observed cells: the drop is that of the loss over all.
    drops = [asdict(find_drop(test, 1.0, SMOOTHING * int(test["step"][0]))) for test in tests]
    smooth = [test["loss_masked"].rolling(SMOOTHING, min_periods=1).mean().round(5).tolist() for test in tests]
    return {"variance": 1.0, "steps": tests[0]["step"].tolist(), "curves": smooth, "drop": experiment.over_seeds(drops)}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> "5x5" -> variance (1), steps (of the tests), curves (seed -> test loss / (p Var)), and of the drop of
    that -> field of Drop: {values, mean, error} over seeds.
    """
    return {"runs": {f"{m}x{n}": of_size(trained, [m, n]) for m, n in trained.data.sizes}}


def draw(result: dict):
    return curves.draw(result, "test loss / (p Var)")


finding = curves.finding


LATEST, GAP = "latest t_drop / steps trained", "least gap of two drops / width of the earlier"


def separation(result: dict) -> dict[str, list]:
    """Per seed the latest drop of a size, and how far apart the drops of two sizes are at the least."""
    runs = list(result["runs"].values())
    halves, widths = (by_seed(*(run["drop"][key]["values"] for run in runs)) for key in ("half", "width"))
    latest = [math.inf if None in half else max(half) / runs[0]["steps"][-1] for half in halves]
    return {LATEST: latest, GAP: [gap(*seed) for seed in zip(halves, widths, strict=True)]}


def gap(halves: tuple, widths: tuple) -> float | None:
    """The least distance of one drop to the next over the width of the earlier; None without all drops, and their widths."""
    if None in (*halves, *widths):
        return None
    drops = sorted(zip(halves, widths, strict=True))
    return min((later - earlier) / max(width, 1) for (earlier, width), (later, _) in pairwise(drops))


CLAIMS = [
    Claim("C24", "A mixture of sizes is learned size by size: every size drops, and the next only after the one before.",
          source="Fig 16", presets=LONG, needs=("mixture/mixture",), number=separation,
          below={LATEST: 1}, above={GAP: 1}, note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
