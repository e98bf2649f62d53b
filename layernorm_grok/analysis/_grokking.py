"""When the cells of a grid fit and when they generalise: what most experiments of the paper come down to (sheet 3.1, 5.2)."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from common import plotting
from layernorm_grok import times
from layernorm_grok.analysis._driver import Analysis, chosen, colors, label, over_seeds, sibling
from layernorm_grok.evaluate import Trained

SHOWN = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "update_norm", "weight_norm", "gradient_norm")


@dataclass
class Sweep(Analysis):
    runs: list[str] = field(default_factory=list)
    """Further runs of the same study whose cells are looked at too."""


def sources(trained: Trained, settings: Sweep) -> list[tuple[str, Trained, str]]:
    """(name, run, cell) of everything asked for: the run's own cells, then those of `runs`."""
    found = [(name, trained, name) for name in chosen(trained, settings)]
    for run in settings.runs:
        other = sibling(trained, run)
        several = len(other.cells) > 1
        found += [(f"{run}: {cell}" if several else run, other, cell) for cell in other.cells]
    return found


def cell_result(trained: Trained, cell: str) -> dict:
    """Curves per seed, grokking times, and what is read off them."""
    curves = {key: trained.curves(cell, key) for key in SHOWN}
    steps = curves["test_loss"][0]
    found, budget = trained.times(cell), trained.config.train.steps
    last = [int(steps[np.isfinite(row)][-1]) for row in curves["test_loss"][1]]
    end = int(steps[-1])
    return {
        "steps": steps.tolist(),
        "curves": {key: [_digits(row) for row in values] for key, (_, values) in curves.items()},
        "times": found,
        "budget": budget,
        "last": last,
        "lost": [t is None and end < budget for t, end in zip(found["first"], last, strict=True)],
        "median": {key: times.median_time(found[key], last) for key in ("t_train", "first")},
        "quartiles": {key: times.interquartile(found[key], last) for key in ("t_train", "first")},
        "interval": times.bootstrap_median(found["first"], last),
        "final_accuracy": [float(row[np.isfinite(row)][-1]) for row in curves["test_accuracy"][1]],
        "update_norm": over_seeds([float(row[0]) for row in curves["update_norm"][1]]),
        "plateau_accuracy": over_seeds([plateau(steps, row, t) for row, t in _with(curves["test_accuracy"][1], found)]),
        "peak_test_loss": over_seeds([float(np.nanmax(row)) for row in curves["test_loss"][1]]),
        "instability": [
            instability(steps, row, first)
            for row, first in zip(curves["test_accuracy"][1], found["first"], strict=True)
        ],
        "end": end,
    }


def _digits(row) -> list[float | None]:
    """Seven significant digits, null where the replica had stopped."""
    return [None if not np.isfinite(v) else float(f"{v:.7g}") for v in row]


def _with(rows, found: dict) -> list[tuple]:
    return list(zip(rows, zip(found["t_train"], found["first"], strict=True), strict=True))


def plateau(steps, accuracy, bounds: tuple) -> float:
    """Median test accuracy from T_train to halfway to the first crossing, or to the end (C25); NaN without T_train."""
    start, first = bounds[0], bounds[1] or steps[-1]
    if start is None:
        return float("nan")
    inside = (steps >= start) & (steps <= max((start + first) / 2, start)) & np.isfinite(accuracy)
    return float(np.median(accuracy[inside])) if inside.any() else float("nan")


def instability(steps, accuracy, first: int | None) -> float | None:
    """Share of the evaluations after the first crossing of 0.99 that are below it again (sheet P5); None before it."""
    after = accuracy[(steps > first) & np.isfinite(accuracy)] if first is not None else np.array([])
    return float((after < 0.99).mean()) if len(after) else None


def analyse(trained: Trained, settings: Sweep) -> dict:
    """`cells`: name -> cell_result; `order`: statistics of neighbours, in the order of the cells."""
    cells = {name: cell_result(run, cell) for name, run, cell in sources(trained, settings)}
    return {"cells": cells, "order": [compared(cells, *pair) for pair in pairwise(cells)]}


def compared(cells: dict, a: str, b: str) -> dict:
    """How far the seeds agree that a comes before b: concordance, sign test, Wilcoxon (sheet 5.2)."""
    one, other = cells[a], cells[b]
    firsts = one["times"]["first"], other["times"]["first"]
    # Seeds are paired only where both runs have the same ones.
    paired = times.paired(*firsts) if len(firsts[0]) == len(firsts[1]) else {}
    return {"first": a, "second": b, "concordance": times.concordance(*firsts, one["last"], other["last"]), **paired}


def draw(result: dict):
    """Test loss and accuracy, every seed; times of fitting and of generalising; the norm of updates."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.6)
    palette = colors(list(cells))
    draw_curves(axes[0, 0], cells, "test_loss", palette)
    axes[0, 0].set(ylabel="test loss (nats)", yscale="symlog")
    draw_curves(axes[0, 1], cells, "test_accuracy", palette)
    axes[0, 1].set(ylabel="test accuracy")
    draw_times(axes[1, 0], cells, palette)
    draw_curves(axes[1, 1], cells, "update_norm", palette)
    axes[1, 1].set(ylabel="norm of the update", yscale="log")
    for ax in (axes[0, 0], axes[0, 1], axes[1, 1]):
        ax.set(xlabel="step", xscale="log")
    axes[0, 0].legend()
    return fig


def draw_sweep(axes, cells: dict, palette: dict) -> None:
    """Three panels of a sweep: test loss, times, norm of the update."""
    draw_curves(axes[0, 0], cells, "test_loss", palette)
    axes[0, 0].set(xlabel="step", ylabel="test loss (nats)", yscale="symlog", xscale="log")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend()
    draw_times(axes[0, 1], cells, palette)
    draw_curves(axes[1, 0], cells, "update_norm", palette)
    axes[1, 0].set(xlabel="step", ylabel="norm of the update", xscale="log", yscale="log")


def draw_curves(ax, cells: dict, key: str, palette: dict) -> None:
    """Raw curves of every seed, thin; the seed whose crossing is the median one bold."""
    for name, cell in cells.items():
        order = np.argsort([np.inf if t is None else t for t in cell["times"]["first"]], kind="stable")
        for number, row in enumerate(cell["curves"][key]):
            middle = number == order[(len(order) - 1) // 2]
            style = {"label": label(name), "lw": 1.5} if middle else {"lw": 0.6, "alpha": 0.5}
            values = np.array([np.nan if v is None else v for v in row])
            there = np.isfinite(values)
            ax.plot(np.array(cell["steps"])[there], values[there], color=palette[name], **style)


def draw_times(ax, cells: dict, palette: dict) -> None:
    """T_train (open) and first crossing of 0.99 (filled) of every seed; an arrow where it never came; bars at medians."""
    for row, (name, cell) in enumerate(cells.items()):
        for key, face in (("t_train", "white"), ("first", palette[name])):
            known = [t for t in cell["times"][key] if t is not None]
            ax.plot(known, [row] * len(known), "o", ms=4, mfc=face, mec=palette[name])
            if cell["median"][key] is not None:
                ax.plot([cell["median"][key]] * 2, [row - 0.3, row + 0.3], color=palette[name], lw=1.5)
        never, unfitted = (sum(t is None for t in cell["times"][key]) for key in ("first", "t_train"))
        told = [f"{never} never"] * bool(never) + [f"{unfitted} stopped unfitted"] * bool(unfitted)
        if never:
            ax.plot([cell["budget"]], [row], ">", ms=5, color=palette[name])
        ax.annotate(", ".join(told), (cell["budget"], row), (-4, 6), textcoords="offset points", fontsize=6, ha="right")
    ax.set_yticks(range(len(cells)), [label(name) for name in cells])
    ax.set(xlabel="step (open: train loss 0.01, filled: test 0.99)", xscale="log" if ax.lines else "linear")
    plain_ticks(ax.xaxis)
    ax.invert_yaxis()


def plain_ticks(axis) -> None:
    """On a logarithmic axis of a decade or two: 200, 500, 1000, ... in plain digits."""
    if axis.get_data_interval()[1] <= 0 or not np.isfinite(axis.get_data_interval()).all():
        return
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def text(steps: list) -> str:
    return "/".join("never" if s is None else f"{s:.0f}" for s in steps)


def finding(result: dict) -> str:
    """First crossings by cell and seed."""
    return "first step at 0.99: " + "; ".join(f"{n} {text(c['times']['first'])}" for n, c in result["cells"].items())
