"""Loss curves of several runs of one study: widths, depths, sizes, laws, masks (paper Figs 13, 14, 18, appendix I)."""

import common.process  # noqa: F401

import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Annotated

from abrupt_learning.analysis._judging import COMPANY, FLAT, LONG, SHARP, over, shape, time_ratios
from abrupt_learning.evaluate import Analysis, Trained
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.experiment import over_seeds
from common.limits import Distinct, Name
from common.plain import steps


@dataclass
class Settings(Analysis):
    runs: Annotated[list[Name], Distinct()] = field(default_factory=list)
    """Names of runs in the same study as `run`, in the order in which they are compared."""


def curve(trained: Trained, component: str | None = None) -> dict:
    """One run, or a component of it, as `analyse` has it."""
    rows = [trained.curve(seed, component) for seed in trained.seeds]
    variance = trained.data.baseline
    return {
        "variance": variance,
        "steps": rows[0]["step"].tolist(),
        "curves": [(row["loss_masked"] / variance).round(5).tolist() for row in rows],
        "drop": over_seeds([asdict(trained.drop(seed, component)) for seed in trained.seeds]),
        "final_loss": over_seeds([float(row["loss"].tail(10).mean()) for row in rows]),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> name -> variance (of an entry), steps (of the rows), curves (seed -> L_mask / Var per row), drop -> field
    of Drop and final_loss (L over the last ten rows): {values, mean, error} over seeds.
    """
    return {"runs": {name: curve(trained.sibling(name)) for name in settings.runs}}


def draw(result: dict, quantity: str = "L_mask / Var"):
    """The curves against the step, a line per seed."""
    fig, ax = plotting.axes(width=4.5, height=2.8)
    for color, (name, run) in zip(plotting.COLORS, result["runs"].items(), strict=False):
        plotting.each_seed(ax, run["steps"], run["curves"], label=name.replace("_", " "), color=color)
    ax.axhline(1, color=plotting.GREY, ls="--", lw=0.8)
    ax.set(xlabel="step", ylabel=quantity, ylim=(0, 1.3))
    ax.legend()
    return fig


def finding(result: dict) -> str:
    """Each run's drop and last level, by name."""
    return "; ".join(
        f"{name}: drop {steps(run['drop']['half']['values'])}, end {run['drop']['final']['mean'] / run['variance']:.2f} Var"
        for name, run in result["runs"].items()
    )


NARROWEST, WIDEST = "narrowest: L_mask / Var at the end", "widest: L_mask / Var at the end"
RISE = "largest rise from a width to the next"
DEEPEST, NEXT = "t_drop of the deepest / of the shallowest", "largest t_drop / that of the next shallower"
TIME, SHARE = "steps to 0.25 Var, [0, 1] / [-1, 1]", "share of the control's t_drop at Var"
LATER, SOONER = 1.1, 0.5


def ends_by_width(result: dict) -> dict[str, list]:
    """L_mask / Var over the last steps, by width in rising order."""
    ends = by_seed(*(over(run["drop"]["final"], run["variance"]) for run in result["runs"].values()))
    return {
        NARROWEST: [end[0] for end in ends],
        WIDEST: [end[-1] for end in ends],
        RISE: [max(b - a for a, b in pairwise(end)) for end in ends],
    }


def drops_by_depth(result: dict) -> dict[str, list]:
    """Ratios of t_drop, by depth in rising order."""
    runs, names = result["runs"], list(result["runs"])
    whole = time_ratios(runs, names[-1], names[0])
    each = [time_ratios(runs, deeper, shallower, bound=LATER) for shallower, deeper in pairwise(names)]

    def worst(ratios: list) -> float | None:
        known = max((r for r in ratios if r is not None), default=0.0)
        return None if None in ratios and known < LATER else known

    return {DEEPEST: whole, NEXT: [worst([column[seed] for column in each]) for seed in range(len(whole))]}


def latest_drop(result: dict) -> list:
    """Per seed the latest t_drop as a share of the steps trained; inf if a run never drops."""
    runs = result["runs"].values()
    shares = ([math.inf if h is None else h / run["steps"][-1] for h in run["drop"]["half"]["values"]] for run in runs)
    return [max(seed) for seed in by_seed(*shares)]


def completion_without_symmetry(result: dict) -> dict[str, list]:
    """Time to 0.25 Var, where a linear fit on row and column means stops at 0.43 Var with factors on [0, 1]; what of a
    plateau is left.
    """
    runs = result["runs"]
    times = time_ratios(runs, "control", "main", "quarter", SOONER)
    return {TIME: times, SHARE: runs["control"]["drop"]["at_level"]["values"]}


CLAIMS = [
    Claim("C21", "Narrow models do not solve it, wider ones do better.", source="Fig 13", presets=COMPANY, needs=("width",),
          number=ends_by_width, above={NARROWEST: 0.9}, below={WIDEST: 0.25, RISE: 0.05}, note=finding),
    Claim("C22", "The deepest model drops before the shallowest, and none much later than the next shallower.",
          source="Fig 14", presets=LONG, needs=("depth",), number=drops_by_depth,
          below={DEEPEST: 1, NEXT: LATER}, note=finding),
    Claim("C23", "Larger matrices are learned too.", source="appendix I", presets=LONG, needs=("size",), number=latest_drop,
          unit="latest t_drop / steps trained", below=1, note=finding),
    Claim("C25", "With Gaussian factors there is a flat plateau and a sharp drop as well.", source="Fig 18", presets=LONG,
          needs=("gaussian",), below=SHARP, within=FLAT, note=finding,
          number=lambda result: shape(result["runs"]["gaussian"]["drop"], result["runs"]["gaussian"]["variance"])),
    Claim("C31", "Without the sign symmetry of centred factors the model completes in less than half of the steps, without a "
          "plateau.", source="ours", presets=COMPANY, needs=("control/control",), number=completion_without_symmetry,
          below={TIME: SOONER, SHARE: 1 / 3}, note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
