"""Sweeps without LN over learning rate, decay and more: times, and how compressible the end is (paper Figs 4, 9)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from common import experiment, plotting
from common.claims import Claim, by_seed
from common.config import UserError
from common.experiment import over_seeds
from layernorm_grok.analysis._cells import cell_result, draw_curves, draw_sweep, neighbours, plain_ticks
from layernorm_grok.analysis._compare import ALL, IN_ORDER, crossings, faster, share
from layernorm_grok.analysis._lives import by_cell, chosen
from layernorm_grok.analysis.compressibility import measure
from layernorm_grok.evaluate import Analysis, Trained

SHOWN = {
    "test_effective_rank": "effective rank", "test_numerical_rank": "numerical rank",
    "test_alpha_pl": "power-law exponent", "weight_norm": "norm of all weights",
}  # fmt: skip


@dataclass
class Settings(Analysis):
    axis: Literal["", "lr", "weight_decay", "er_strength", "init_scale"] = ""
    """What the run must vary, and nothing else; empty: anything."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_cells.cell_result`, weight_decay, lr, decayed: T eta lambda per seed, end_spectrum: measures of
    the prelogits where each replica stopped), order (statistics of neighbours).

    Raises UserError for a run that varies something else.
    """
    if settings.axis and not all(name.startswith(f"{settings.axis}=") and " " not in name for name in trained.cells):
        raise UserError(
            f"found cells {', '.join(trained.cells)} in {trained.run.path}, expected some {settings.axis}=...; "
            "give another --run, or --axis"
        )
    cells = {}
    for name in chosen(trained, settings):
        cell, setting = cell_result(trained, name), trained.cell(name)
        cell |= {"weight_decay": setting.weight_decay, "lr": setting.lr}
        cell["decayed"] = [None if t is None else t * setting.lr * setting.weight_decay for t in cell["times"]["first"]]
        ends = [measure(trained, trained.model(name, s, trained.last_step(name, s)), name, s) for s in trained.seeds]
        cells[name] = cell | {"end_spectrum": over_seeds(ends)}
    return {"cells": cells, "order": neighbours(cells)}


def draw(result: dict):
    """Test loss, times, norms of updates; four measures of the end against the axis that varies, or test accuracy."""
    cells, axis = result["cells"], result["settings"]["axis"]
    fig, ax = draw_sweep(cells)
    if axis:
        draw_ends(ax, cells, axis)
    else:
        draw_curves(ax, cells, "test_accuracy", "test accuracy")
    return fig


def draw_ends(ax, cells: dict, axis: str) -> None:
    """Four measures of the prelogits at the end against the value of the axis."""
    values = [float(name.partition("=")[2]) for name in cells]
    for color, (key, text) in zip(plotting.COLORS, SHOWN.items(), strict=False):
        rows = by_seed(*(cell["end_spectrum"][key]["values"] for cell in cells.values()))
        plotting.seed_lines(ax, values, rows, label=text, color=color)
    ax.set(xlabel=axis.replace("_", " "), ylabel="prelogits at the end (test)", yscale="log")
    if min(values) > 0:
        ax.set_xscale("log")
        plain_ticks(ax.xaxis)
    ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


def finding(result: dict) -> str:
    return crossings(result)


def end_rank(cell: dict) -> list[float]:
    """Effective rank per seed, where each replica stopped."""
    return cell["end_spectrum"]["test_effective_rank"]["values"]


def compressed(result: dict) -> list[float | None]:
    """C18: per seed the share of pairs of decays in which the larger ends with the strictly lower effective rank.

    Each replica is measured where it stopped; None where one diverged and no pair is the wrong way.
    """
    cells = sorted(result["cells"].values(), key=lambda cell: cell["weight_decay"])
    ranks = [[None if lost else rank for rank, lost in by_seed(end_rank(cell), cell["lost"])] for cell in cells]
    pairs = (combinations(row, 2) for row in by_seed(*ranks))
    return [share(None if None in (low, high) else low > high for low, high in row) for row in pairs]


CLAIMS = [
    Claim("C10", "A higher learning rate at constant effective decay groks faster, value by value.", source="Fig 4a",
          presets=ALL, paper="7807, 7740, 6582, 4470 for 1, 3, 5, 10e-3", needs=("lr_sweep/lr_sweep",), number=faster,
          unit=IN_ORDER, above=0.99, note=crossings),
    Claim("C11", "A higher weight decay groks faster, value by value.", source="Fig 4c", presets=ALL,
          paper="never to .5, then 9787, 7807, 6395", needs=("wd_sweep/wd_sweep",), number=faster,
          unit=IN_ORDER, above=0.99,
          note=lambda r: f"{crossings(r)}; T eta lambda {by_cell(r['cells'], lambda cell: cell['decayed'])}"),
    Claim("C18", "A larger weight decay ends more compressible, value by value.", source="Fig 9", presets=ALL,
          paper="0.93 (42.1, 40.7, 31.2, 7.3, 8.3, 7.0)", needs=("wd_sweep/wd_sweep",), number=compressed,
          unit="share of pairs of decays in order of effective rank", above=0.99,
          note=lambda r: f"effective rank where each replica stopped: {by_cell(r['cells'], end_rank, '.1f')}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
