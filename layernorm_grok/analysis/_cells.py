"""What is known of a cell of the grid: its curves, when it fits and when it generalises, its plateau (paper Figs 1, 4, 5)."""

import math
from itertools import pairwise

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from common import plotting
from common.experiment import over_seeds
from layernorm_grok.analysis._lives import colors, draw_seeds, label, lived
from layernorm_grok.estimators import times
from layernorm_grok.estimators.slingshots import slingshots
from layernorm_grok.evaluate import Trained

SHOWN = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "update_norm", "weight_norm", "gradient_norm")


def cell_result(trained: Trained, name: str) -> dict:
    """Keys: steps (of the evaluations), curves (metric -> seed -> value per evaluation, seven digits, null once it stopped),
    budget, end, those of `lived`; median, quartiles and interval over seeds of each time, by Kaplan and Meier; and per seed
    final_accuracy, update_norm (of step 1), plateau_accuracy and plateau_range (see `plateau`), peak_test_loss, instability,
    slingshots (steps at which one begins)."""
    steps = trained.curves(name, "test_accuracy")[0]
    curves = {key: trained.curves(name, key)[1] for key in SHOWN}
    accuracy, life = curves["test_accuracy"], lived(trained, name)
    when, last = life["times"], life["last"]
    plateaus = [plateau(steps, *row) for row in zip(accuracy, when["t_train"], when["first"], strict=True)]
    whole = ("t_train", "first", "t_gen")
    return {
        "steps": steps.tolist(),
        "curves": {key: [[float(f"{v:.7g}") for v in row] for row in rows] for key, rows in curves.items()},
        **life,
        "budget": trained.config.train.steps,
        "median": {key: times.quantile(when[key], last) for key in whole},
        "quartiles": {key: [times.quantile(when[key], last, share) for share in (0.25, 0.75)] for key in whole},
        "interval": {key: times.bootstrap_median(when[key], last) for key in whole[1:]},
        "final_accuracy": times.carried(accuracy)[:, -1].tolist(),
        "update_norm": over_seeds(curves["update_norm"][:, 0].tolist()),
        "plateau_accuracy": over_seeds([level for level, _ in plateaus]),
        "plateau_range": over_seeds([width for _, width in plateaus]),
        "peak_test_loss": over_seeds(np.nanmax(curves["test_loss"], axis=1).tolist()),
        "instability": [instability(steps, *row) for row in zip(accuracy, when["first"], strict=True)],
        "slingshots": [slingshots(steps, row) for row in curves["train_loss"]],
        "end": int(steps[-1]),
    }


def plateau(steps, accuracy, start: int | None, first: int | None) -> tuple[float, float]:
    """(median, interquartile range) of test accuracy (T,) from T_train half-way to the first crossing, or to the end.

    (NaN, NaN) without T_train or without an evaluation in between.
    """
    if start is not None:
        end = max((start + (first or steps[-1])) / 2, start)
        inside = accuracy[(steps >= start) & (steps <= end) & np.isfinite(accuracy)]
        if len(inside):
            low, high = np.quantile(inside, [0.25, 0.75])
            return float(np.median(inside)), float(high - low)
    return math.nan, math.nan


def instability(steps, accuracy, first: int | None) -> float | None:
    """Share of the evaluations (T,) after the first crossing of 0.99 that are below it again; None before it."""
    after = accuracy[(steps > first) & np.isfinite(accuracy)] if first is not None else np.array([])
    return float((after < 0.99).mean()) if len(after) else None


def neighbours(cells: dict) -> list[dict]:
    """Of every two neighbours, how far the seeds agree that the first comes first: concordance, sign test and Wilcoxon's."""
    rows = []
    for (a, one), (b, other) in pairwise(cells.items()):
        firsts = one["times"]["first"], other["times"]["first"]
        # Seeds are paired only where both runs have the same ones.
        paired = times.paired(*firsts) if len(firsts[0]) == len(firsts[1]) else {}
        concordance = times.concordance(*firsts, one["last"], other["last"])
        rows.append({"first": a, "second": b, "concordance": concordance, **paired})
    return rows


def draw_curves(ax, cells: dict, key: str, ylabel: str, yscale: str = "linear") -> None:
    """Raw curves of every seed."""
    look = {"xscale": "log", "ylabel": ylabel, "yscale": yscale}
    draw_seeds(ax, cells, lambda cell: [(cell["steps"], row) for row in cell["curves"][key]], **look)


def draw_loss(ax, cells: dict) -> None:
    """Test loss, with the legend of the figure."""
    draw_curves(ax, cells, "test_loss", "test loss (nats)", "symlog")
    ax.legend()


def draw_sweep(cells: dict):
    """(figure, free panel): test loss, times and norms of updates of the cells of a sweep, and a panel for what is its own."""
    fig, axes = plotting.axes(2, 2, height=4.6)
    draw_loss(axes[0, 0], cells)
    draw_times(axes[0, 1], cells)
    draw_curves(axes[1, 0], cells, "update_norm", "norm of the update", "log")
    return fig, axes[1, 1]


def draw_times(ax, cells: dict) -> None:
    """T_train (open), first touch of 0.99 (tick) and T (filled) of every seed; an arrow where T never came; bars at medians."""
    for row, (name, color) in enumerate(colors(cells).items()):
        cell = cells[name]
        for key, marker, face in (("t_train", "o", "white"), ("first", "|", "none"), ("t_gen", "o", color)):
            known = [t for t in cell["times"][key] if t is not None]
            ax.plot(known, [row] * len(known), marker, ms=4, mfc=face, mec=color)
            if key != "first" and cell["median"][key] is not None:
                ax.plot([cell["median"][key]] * 2, [row - 0.3, row + 0.3], color=color, lw=1.5)
        never, unfitted = (cell["times"][key].count(None) for key in ("t_gen", "t_train"))
        if never:
            ax.plot([cell["budget"]], [row], ">", ms=5, color=color)
        words = [f"{n} {word}" for n, word in ((never, "never"), (unfitted, "stopped unfitted")) if n]
        at = {"textcoords": "offset points", "fontsize": 6, "ha": "right"}
        ax.annotate(", ".join(words), (cell["budget"], row), (-4, 6), **at)
    ax.set_yticks(range(len(cells)), [label(name) for name in cells])
    ax.set(xlabel="step (open: T_train; tick: touch; filled: T)", xscale="log" if ax.lines else "linear")
    plain_ticks(ax.xaxis)
    ax.invert_yaxis()


def plain_ticks(axis) -> None:
    """On a logarithmic axis of a decade or two: 200, 500, 1000, ... in plain digits."""
    if axis.get_data_interval()[1] <= 0 or not np.isfinite(axis.get_data_interval()).all():
        return
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
