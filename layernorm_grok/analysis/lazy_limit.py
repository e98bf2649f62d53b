"""A real lazy limit: SGD on squared error against AdamW on cross-entropy, over three decades of alpha (ours; section 4.1)."""

from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.experiment import over_seeds
from layernorm_grok.analysis._drift import with_drift
from layernorm_grok.evaluate import Probe, Trained


@dataclass
class Settings(Probe):
    other: str = "lazy_adamw"
    """Run of the same study with AdamW on cross-entropy."""
    pairs: int = 256
    """Train pairs in the kernel."""


def end_of(trained: Trained, settings: Settings) -> dict:
    """Keys of a cell: alpha, drift (kind -> at the end), train_accuracy, test_accuracy and train_loss at the end, fits (first
    step per seed with train accuracy at 0.99), times."""
    drift = with_drift(trained, settings, settings.pairs)
    rows = {}
    for name in drift:
        cell = trained.cell(name)
        steps, right = trained.curves(name, "train_accuracy")
        fits = [next((int(s) for s, v in zip(steps, row, strict=True) if v >= 0.99), None) for row in right]
        ends = {
            key: over_seeds([float(row[np.isfinite(row)][-1]) for row in trained.curves(name, key)[1]])
            for key in ("train_accuracy", "test_accuracy", "train_loss")
        }
        last = {kind: over_seeds([c[kind][-1] for c in drift[name]["seeds"]]) for kind in ("projected", "sum")}
        rows[name] = {
            "alpha": cell.alpha,
            "fits": fits,
            "drift": last,
            **ends,
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
    for color, (run, cells) in zip(plotting.COLORS, result["runs"].items(), strict=False):
        alphas = [cell["alpha"] for cell in cells.values()]
        nodes = [
            [cell["drift"]["projected"]["values"] for cell in cells.values()],
            [cell["train_accuracy"]["values"] for cell in cells.values()],
            [cell["test_accuracy"]["values"] for cell in cells.values()],
        ]
        for ax, rows in zip(axes, nodes, strict=True):
            plotting.seed_lines(ax, alphas, list(zip(*rows, strict=True)), run, color)
    for ax, text in zip(axes, ("NTK drift at the end", "train accuracy", "test accuracy"), strict=True):
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
