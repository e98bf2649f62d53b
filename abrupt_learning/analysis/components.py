"""Which part holds the drop back (paper Fig 8, sheet C20): one part trained afresh, the rest at its final weights."""

from dataclasses import asdict

from abrupt_learning.analysis._curves import curve, draw, finding
from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.evaluate import Trained, find_drop
from common.config import UserError


def part_curve(run: Trained, part: str) -> dict:
    """As `_curves.curve`, for the replicas that trained one part."""
    rows, variance = run.run.metrics(), run.data.baseline
    seeds = [rows[(rows["component"] == part) & (rows["seed"] == s)].reset_index(drop=True) for s in run.seeds]
    return {
        "variance": variance,
        "steps": seeds[0]["step"].tolist(),
        "curves": [(m["loss_masked"] / variance).round(5).tolist() for m in seeds],
        "drop": over_seeds([asdict(find_drop(m, variance)) for m in seeds]),
        "last_step": int(seeds[0]["step"].iloc[-1]),
        "final_loss": over_seeds([float(m["loss"].tail(10).mean()) for m in seeds]),
    }


def analyse(trained: Trained, settings: Analysis) -> dict:
    if not trained.config.train.start_from:
        raise UserError(
            f"found no train.start_from in {trained.run.path}; give the run that trained components: --run ..."
        )
    whole = Trained(trained.config.train.start_from, trained.device.type)
    parts = {part: part_curve(trained, part) for part in trained.config.train.components}
    return {"runs": {"everything": curve(whole), **parts}}


if __name__ == "__main__":
    perform("components", Analysis, analyse, draw, finding)
