"""Loss curves of several runs of one study beside each other: widths, depths, sizes, laws."""

from dataclasses import asdict, dataclass, field

from abrupt_learning.analysis._driver import Analysis, over_seeds
from abrupt_learning.evaluate import Trained
from common import plotting


@dataclass
class Curves(Analysis):
    runs: list[str] = field(default_factory=list)
    """Names of runs in the same study as `run`; `main` is the run itself."""


def sibling(trained: Trained, name: str) -> Trained:
    """Another run of the same study."""
    return Trained(trained.run.path.parent / name, trained.device.type)


def curve(run: Trained, metric: str = "loss_masked") -> dict:
    """Steps, one curve per seed in units of the variance of an entry, and the drop of a run."""
    rows = {seed: run.metrics(seed) for seed in run.seeds}
    variance = run.data.baseline
    return {
        "variance": variance,
        "steps": rows[run.seeds[0]]["step"].tolist(),
        "curves": [(m[metric] / variance).round(5).tolist() for m in rows.values()],
        "drop": over_seeds([asdict(run.drop(seed)) for seed in run.seeds]),
        "final_loss": over_seeds([float(m["loss"].tail(10).mean()) for m in rows.values()]),
    }


def analyse(trained: Trained, settings: Curves) -> dict:
    return {"runs": {name: curve(sibling(trained, name)) for name in settings.runs}}


def draw(result: dict):
    """L_mask over Var against the step, every seed thin under the mean."""
    fig, ax = plotting.axes(width=4.5, height=2.8)
    for color, (name, run) in zip(plotting.COLORS, result["runs"].items(), strict=False):
        plotting.seed_lines(ax, run["steps"], run["curves"], label=name.replace("_", " "), color=color)
    ax.axhline(1, color="0.5", ls="--", lw=0.8)
    ax.set(xlabel="step", ylabel="L_mask / Var", ylim=(0, 1.3))
    ax.legend()
    return fig


def finding(result: dict) -> str:
    """Each run's drop and last level, by name."""
    parts = []
    for name, run in result["runs"].items():
        halves = "/".join("none" if v is None else f"{v:.0f}" for v in run["drop"]["half"]["values"])
        parts.append(f"{name}: drop {halves}, end {run['drop']['final']['mean'] / run['variance']:.2f} Var")
    return "; ".join(parts)
