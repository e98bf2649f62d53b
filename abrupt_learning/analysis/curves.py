"""Loss curves of several runs of one study: widths, depths, sizes, laws, masks (paper Figs 13, 14, 18, appendix I)."""

import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from abrupt_learning.analysis._judging import COMPANY, FLAT, LONG, SHARP, over, ratio, shape
from abrupt_learning.evaluate import Analysis, Trained
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.experiment import over_seeds
from common.plain import steps


@dataclass
class Settings(Analysis):
    runs: list[str] = field(default_factory=list)
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
    """The curves against the step, every seed thin under the mean."""
    fig, ax = plotting.axes(width=4.5, height=2.8)
    for color, (name, run) in zip(plotting.COLORS, result["runs"].items(), strict=False):
        plotting.seed_lines(ax, run["steps"], run["curves"], label=name.replace("_", " "), color=color)
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


def halves(result: dict) -> tuple[list[tuple], list[float]]:
    """Per seed t_drop of every run, in their order; the runs' last steps."""
    runs = result["runs"].values()
    return by_seed(*(run["drop"]["half"]["values"] for run in runs)), [run["steps"][-1] for run in runs]


NARROWEST, WIDEST = "narrowest: L_mask / Var at the end", "widest: L_mask / Var at the end"
RISE = "largest rise from a width to the next"


def ends_by_width(result: dict) -> dict[str, list]:
    """L_mask / Var over the last steps, by width in rising order."""
    ends = by_seed(*(over(run["drop"]["final"], run["variance"]) for run in result["runs"].values()))
    return {
        NARROWEST: [end[0] for end in ends],
        WIDEST: [end[-1] for end in ends],
        RISE: [max(b - a for a, b in pairwise(end)) for end in ends],
    }


LATER = 1.1


def drops_by_depth(result: dict) -> dict[str, list]:
    """Ratios of t_drop, by depth in rising order."""
    rows, ends = halves(result)

    def later(half: tuple) -> float | None:
        ratios = [ratio(half[i + 1], half[i], (ends[i + 1], ends[i]), LATER) for i in range(len(half) - 1)]
        worst = max((r for r in ratios if r is not None), default=0.0)
        return None if None in ratios and worst < LATER else worst

    return {
        "t_drop of the deepest / of the shallowest": [ratio(half[-1], half[0], (ends[-1], ends[0])) for half in rows],
        "largest t_drop / that of the next shallower": [later(half) for half in rows],
    }


def latest_drop(result: dict) -> list:
    """Per seed the latest t_drop as a share of the steps trained; inf if a run never drops."""
    rows, ends = halves(result)
    return [max(math.inf if h is None else h / end for h, end in zip(half, ends, strict=True)) for half in rows]


SOONER = 0.5


def completion_without_symmetry(result: dict) -> dict[str, list]:
    """Time to 0.25 Var, where a linear fit on row and column means stops at 0.43 Var with factors on [0, 1]; what of a
    plateau is left.
    """
    runs = result["runs"]
    pairs = by_seed(*(runs[name]["drop"]["quarter"]["values"] for name in ("control", "main")))
    ends = tuple(runs[name]["steps"][-1] for name in ("control", "main"))
    return {
        "steps to 0.25 Var, [0, 1] / [-1, 1]": [ratio(*pair, ends, SOONER) for pair in pairs],
        "share of the control's t_drop at Var": runs["control"]["drop"]["at_level"]["values"],
    }


CLAIMS = [
    Claim("C21", "Narrow models do not solve it, wider ones do better.", source="Fig 13", presets=COMPANY, needs=("width",),
          number=ends_by_width, above={NARROWEST: 0.9}, below={WIDEST: 0.25, RISE: 0.05}, note=finding),
    Claim("C22", "The deepest model drops before the shallowest, and none much later than the next shallower.",
          source="Fig 14", presets=LONG, needs=("depth",), number=drops_by_depth,
          below={"t_drop of the deepest / of the shallowest": 1, "largest t_drop / that of the next shallower": LATER},
          note=finding),
    Claim("C23", "Larger matrices are learned too.", source="appendix I", presets=LONG, needs=("size",), number=latest_drop,
          unit="latest t_drop / steps trained", below=1, note=finding),
    Claim("C25", "With Gaussian factors there is a flat plateau and a sharp drop as well.", source="Fig 18", presets=LONG,
          needs=("gaussian",), below=SHARP, within=FLAT, note=finding,
          number=lambda result: shape(result["runs"]["gaussian"]["drop"], result["runs"]["gaussian"]["variance"])),
    Claim("C31", "Without the sign symmetry of centred factors the model completes in less than half of the steps, without a "
          "plateau.", source="ours", presets=COMPANY, needs=("control/control",), number=completion_without_symmetry,
          below={"steps to 0.25 Var, [0, 1] / [-1, 1]": SOONER, "share of the control's t_drop at Var": 1 / 3}, note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
