"""A real lazy limit: SGD on squared error against AdamW on cross-entropy, over three decades of alpha (ours; section 4.1)."""

import common.process  # noqa: F401

from dataclasses import dataclass

from common import experiment, plotting
from common.claims import by_seed
from common.experiment import over_seeds
from common.limits import Count, Name
from layernorm_grok.analysis._lives import at_end
from layernorm_grok.analysis.ntk import with_drift
from layernorm_grok.estimators import times
from layernorm_grok.evaluate import Probe, Trained


@dataclass
class Settings(Probe):
    other: Name = "lazy_adamw"
    """Run of the same study with AdamW on cross-entropy."""
    pairs: Count = 256
    """Train pairs in the kernel."""


ENDS = ("train_accuracy", "test_accuracy", "train_loss")


def end_of(trained: Trained, settings: Settings) -> dict:
    """Keys of a cell: alpha, drift (kind -> at the end), train_accuracy, test_accuracy and train_loss at the end, fits (first
    step per seed with train accuracy at 0.99), times."""
    rows = {}
    for name, drift in with_drift(trained, settings, settings.pairs).items():
        steps, right = trained.curves(name, "train_accuracy")
        rows[name] = {
            "alpha": trained.cell(name).alpha,
            "fits": [times.first(steps, row >= 0.99) for row in right],
            "drift": {kind: over_seeds(at_end(kind)(drift)) for kind in ("projected", "sum")},
            **{key: over_seeds(times.carried(trained.curves(name, key)[1])[:, -1].tolist()) for key in ENDS},
            "times": trained.times(name),
        }
    return rows


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs (name of the run -> cell -> `end_of`)."""
    runs = {trained.run.path.name: trained, settings.other: trained.sibling(settings.other)}
    return {"runs": {name: end_of(run, settings) for name, run in runs.items()}}


def draw(result: dict):
    """Drift of the kernel and accuracies at the end, against alpha."""
    fig, axes = plotting.axes(3, height=2.4)
    panels = {
        "NTK drift at the end": lambda cell: cell["drift"]["projected"],
        "train accuracy": lambda cell: cell["train_accuracy"],
        "test accuracy": lambda cell: cell["test_accuracy"],
    }
    for ax, (text, end) in zip(axes, panels.items(), strict=True):
        for color, (run, cells) in zip(plotting.COLORS, result["runs"].items(), strict=False):
            rows = by_seed(*(end(cell)["values"] for cell in cells.values()))
            plotting.seed_lines(ax, [cell["alpha"] for cell in cells.values()], rows, run, color)
        ax.set(xlabel="readout scale alpha", ylabel=text, xscale="log")
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    parts = []
    for run, cells in result["runs"].items():
        ends = [f"{cell['alpha']:g}: {cell['drift']['projected']['mean']:.3g}" for cell in cells.values()]
        parts.append(f"{run}: drift by alpha {', '.join(ends)}")
    return "; ".join(parts)


if __name__ == "__main__":
    experiment.main(__name__)
