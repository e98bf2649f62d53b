"""What is told of a cell of the grid: its curves, when it fits and when it generalises, its plateau (paper Figs 1, 4, 5)."""

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from common.experiment import over_seeds
from layernorm_grok.analysis._lives import label, lived
from layernorm_grok.estimators import times
from layernorm_grok.estimators.slingshots import slingshots
from layernorm_grok.evaluate import Trained

SHOWN = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "update_norm", "weight_norm", "gradient_norm")


def cell_result(trained: Trained, name: str) -> dict:
    """Keys: steps (of the evaluations), curves (metric -> seed -> value per evaluation, None once it stopped), budget, end,
    those of `lived`; median, quartiles and interval over seeds of each time, by Kaplan and Meier; and per seed final_accuracy,
    update_norm (of step 1), plateau_accuracy and plateau_range (see `plateau`), peak_test_loss, instability, slingshots
    (steps at which one begins)."""
    curves = {key: trained.curves(name, key) for key in SHOWN}
    steps, accuracy = curves["test_accuracy"]
    life = lived(trained, name)
    when, last = life["times"], life["last"]
    plateaus = [plateau(steps, *row) for row in zip(accuracy, when["t_train"], when["first"], strict=True)]
    return {
        "steps": steps.tolist(),
        "curves": {key: [_digits(row) for row in values] for key, (_, values) in curves.items()},
        **life,
        "budget": trained.config.train.steps,
        "median": {key: times.median_time(when[key], last) for key in ("t_train", "first", "t_gen")},
        "quartiles": {key: times.interquartile(when[key], last) for key in ("t_train", "first", "t_gen")},
        "interval": {key: times.bootstrap_median(when[key], last) for key in ("first", "t_gen")},
        "final_accuracy": [_last(row) for row in accuracy],
        "update_norm": over_seeds([float(row[0]) for row in curves["update_norm"][1]]),
        "plateau_accuracy": over_seeds([level for level, _ in plateaus]),
        "plateau_range": over_seeds([width for _, width in plateaus]),
        "peak_test_loss": over_seeds([float(np.nanmax(row)) for row in curves["test_loss"][1]]),
        "instability": [instability(steps, *row) for row in zip(accuracy, when["first"], strict=True)],
        "slingshots": [slingshots(steps, row) for row in curves["train_loss"][1]],
        "end": int(steps[-1]),
    }


def _digits(row) -> list[float | None]:
    """Seven significant digits, null where the replica had stopped."""
    return [None if not np.isfinite(v) else float(f"{v:.7g}") for v in row]


def _last(row) -> float:
    return next((float(v) for v in row[::-1] if np.isfinite(v)), float("nan"))


def plateau(steps, accuracy, start: int | None, first: int | None) -> tuple[float, float]:
    """(median, interquartile range) of test accuracy (T,) from T_train half-way to the first crossing, or to the end.

    (NaN, NaN) without T_train or without an evaluation in between.
    """
    if start is None:
        return float("nan"), float("nan")
    inside = (steps >= start) & (steps <= max((start + (first or steps[-1])) / 2, start)) & np.isfinite(accuracy)
    if not inside.any():
        return float("nan"), float("nan")
    low, high = np.quantile(accuracy[inside], [0.25, 0.75])
    return float(np.median(accuracy[inside])), float(high - low)


def instability(steps, accuracy, first: int | None) -> float | None:
    """Share of the evaluations (T,) after the first crossing of 0.99 that are below it again; None before it."""
    after = accuracy[(steps > first) & np.isfinite(accuracy)] if first is not None else np.array([])
    return float((after < 0.99).mean()) if len(after) else None


def compared(cells: dict, a: str, b: str) -> dict:
    """How far the seeds agree that a comes before b: concordance, and of the same seeds sign test and Wilcoxon's."""
    one, other = cells[a], cells[b]
    firsts = one["times"]["first"], other["times"]["first"]
    # Seeds are paired only where both runs have the same ones.
    paired = times.paired(*firsts) if len(firsts[0]) == len(firsts[1]) else {}
    return {"first": a, "second": b, "concordance": times.concordance(*firsts, one["last"], other["last"]), **paired}


def draw_curves(ax, cells: dict, key: str, palette: dict) -> None:
    """Raw curves of every seed, thin; the seed with the median T bold."""
    for name, cell in cells.items():
        order = np.argsort([np.inf if t is None else t for t in cell["times"]["t_gen"]], kind="stable")
        for number, row in enumerate(cell["curves"][key]):
            middle = number == order[(len(order) - 1) // 2]
            style = {"label": label(name), "lw": 1.5} if middle else {"lw": 0.6, "alpha": 0.5}
            values = np.array([np.nan if v is None else v for v in row])
            there = np.isfinite(values)
            ax.plot(np.array(cell["steps"])[there], values[there], color=palette[name], **style)


def draw_loss(ax, cells: dict, palette: dict) -> None:
    """Test loss on two logarithmic axes that begin at 0, with the legend of the figure."""
    draw_curves(ax, cells, "test_loss", palette)
    ax.set(xlabel="step", ylabel="test loss (nats)", yscale="symlog", xscale="log")
    ax.set_ylim(bottom=0)
    ax.legend()


def draw_updates(ax, cells: dict, palette: dict) -> None:
    """Norm of the update."""
    draw_curves(ax, cells, "update_norm", palette)
    ax.set(xlabel="step", ylabel="norm of the update", xscale="log", yscale="log")


def draw_times(ax, cells: dict, palette: dict) -> None:
    """T_train (open), first touch of 0.99 (tick) and T (filled) of every seed; an arrow where T never came; bars at medians."""
    for row, (name, cell) in enumerate(cells.items()):
        for key, marker, face in (("t_train", "o", "white"), ("first", "|", "none"), ("t_gen", "o", palette[name])):
            known = [t for t in cell["times"][key] if t is not None]
            ax.plot(known, [row] * len(known), marker, ms=4, mfc=face, mec=palette[name])
            if key != "first" and cell["median"][key] is not None:
                ax.plot([cell["median"][key]] * 2, [row - 0.3, row + 0.3], color=palette[name], lw=1.5)
        never, unfitted = (sum(t is None for t in cell["times"][key]) for key in ("t_gen", "t_train"))
        words = [f"{never} never"] * bool(never) + [f"{unfitted} stopped unfitted"] * bool(unfitted)
        if never:
            ax.plot([cell["budget"]], [row], ">", ms=5, color=palette[name])
        ax.annotate(
            ", ".join(words), (cell["budget"], row), (-4, 6), textcoords="offset points", fontsize=6, ha="right"
        )
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
