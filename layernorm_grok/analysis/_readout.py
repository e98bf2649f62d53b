"""Sweeps over the readout scale: times, losses, update norms, and NTK drift (paper Fig 5; sheet C12, C13, C14, C21 to C23)."""

from dataclasses import dataclass

import numpy as np

from common import plotting
from layernorm_grok import times
from layernorm_grok.analysis._drift import with_drift
from layernorm_grok.analysis._driver import Probe, colors, draw_lives
from layernorm_grok.analysis._grokking import cell_result, draw_sweep
from layernorm_grok.analysis._grokking import finding as finding
from layernorm_grok.evaluate import Trained


@dataclass
class Readout(Probe):
    pairs: int = 256
    """Train pairs in the kernel."""


def analyse(trained: Trained, settings: Readout) -> dict:
    """Cells by alpha, the mean test loss half-way through the budget (the paper's statistic), and the drift."""
    cells = {name: cell_result(trained, name) for name in settings.cells or trained.cells}
    half = trained.config.train.steps // 2
    for name, cell in cells.items():
        steps, losses = trained.curves(name, "test_loss")
        cell["alpha"] = trained.cell(name).alpha
        cell["mean_loss_half_way"] = float(times.carried(losses).mean(0)[np.abs(steps - half).argmin()])
    return {"cells": cells, "half_way": half, "drift": with_drift(trained, settings, settings.pairs)}


def draw(result: dict):
    """Test loss, times, norms of updates, drift."""
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(2, 2, height=4.6)
    draw_sweep(axes, cells, palette)
    draw_lives(axes[1, 1], result["drift"], "projected")
    axes[1, 1].set(xlabel="step", ylabel="NTK drift", xscale="symlog", yscale="symlog")
    axes[1, 1].set_ylim(bottom=0)
    return fig
