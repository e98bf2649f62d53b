"""Sweeps whose end is looked at: times, and how compressible the prelogits are where each replica stopped (paper Fig 9)."""

from itertools import pairwise

from common import plotting
from common.config import UserError
from layernorm_grok.analysis._driver import Analysis, colors, over_seeds
from layernorm_grok.analysis._grokking import cell_result, compared, draw_sweep
from layernorm_grok.analysis.compressibility import measure_of
from layernorm_grok.evaluate import Trained

SHOWN = {
    "test_effective_rank": "effective rank", "test_numerical_rank": "numerical rank",
    "test_alpha_pl": "power-law exponent", "weight_norm": "norm of all weights",
}  # fmt: skip


def analyse(trained: Trained, settings: Analysis) -> dict:
    """Cells by name, T eta lambda, and the spectrum of the prelogits at each replica's end."""
    cells, measure = {}, measure_of(trained)
    if any(name.count("=") != 1 for name in trained.cells):
        raise UserError(
            f"found cells {', '.join(trained.cells)} in {trained.run.path}, expected a sweep over a number; give another --run"
        )
    for name in settings.cells or trained.cells:
        cell = cell_result(trained, name)
        setting = trained.cell(name)
        cell |= {"weight_decay": setting.weight_decay, "lr": setting.lr}
        firsts = cell["times"]["first"]
        cell["decayed"] = [None if t is None else t * setting.lr * setting.weight_decay for t in firsts]
        ends = [measure(trained.model(name, s, trained.last_step(name, s)), name, s) for s in trained.seeds]
        cell["end_spectrum"] = over_seeds(ends)
        cells[name] = cell
    return {"cells": cells, "order": [compared(cells, *pair) for pair in pairwise(cells)]}


def draw(result: dict):
    """Test loss, times, norms of updates; four measures of the end against the axis that varies."""
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(2, 2, height=4.6)
    draw_sweep(axes, cells, palette)
    axis = next(iter(cells)).partition("=")[0]
    values = [float(name.partition("=")[2]) for name in cells]
    for color, (key, text) in zip(plotting.COLORS, SHOWN.items(), strict=False):
        rows = list(zip(*(cell["end_spectrum"][key]["values"] for cell in cells.values()), strict=True))
        plotting.seed_lines(axes[1, 1], values, rows, label=text, color=color)
    axes[1, 1].set(xlabel=axis.replace("_", " "), ylabel="prelogits at the end (test)", yscale="log")
    if min(values) > 0:
        axes[1, 1].set_xscale("log")
    axes[1, 1].legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return fig
