"""Measures along the lives of replicas, from checkpoint to checkpoint, and the look of a placement."""

import math
from collections.abc import Callable

from common import plotting
from layernorm_grok.evaluate import Analysis, Probe, Trained
from layernorm_grok.placement import PAPER_NAMES, paper_name

COLORS = dict(zip(PAPER_NAMES, (*plotting.COLORS[-1:], *plotting.COLORS[:-1], plotting.GREY), strict=True))
"""No LN is ink; every placement keeps its colour in all figures."""


def chosen(trained: Trained, settings: Analysis) -> list[str]:
    """Names of the cells asked for, all by default; raises UserError for an unknown one."""
    return [trained.cell(name).name for name in settings.cells] or list(trained.cells)


def lived(trained: Trained, name: str) -> dict:
    """Keys, each a value per seed: times (in every convention, see estimators.times.conventions), last (step of the last
    evaluation), lost (whether the replica diverged: it ended before the budget, and not because it had generalised)."""
    (steps, losses), times = trained.curves(name, "test_loss"), trained.times(name)
    last = [max((int(s) for s, v in zip(steps, row, strict=True) if math.isfinite(v)), default=0) for row in losses]
    lost = [t is None and end < trained.config.train.steps for t, end in zip(times["t_gen"], last, strict=True)]
    return {"times": times, "last": last, "lost": lost}


def spread_out(steps: list[int], points: int) -> list[int]:
    """About `points` of the steps, evenly by rank, first and last included."""
    if len(steps) <= points:
        return steps
    return [steps[round(i * (len(steps) - 1) / (points - 1))] for i in range(points)]


def looked_at(steps: list[int], points: int, after: int | None) -> list[int]:
    """`spread_out`, and the first of the steps that is `after` or later."""
    next_step = [s for s in steps if after is not None and s >= after][:1]
    return sorted({*spread_out(steps, points), *next_step})


def along(trained: Trained, settings: Probe, measure: Callable, what: str, after: Callable = lambda *_: None) -> dict:
    """measure(model, cell name, seed) -> flat dict of numbers, along the life of every replica; cell name -> result.

    after(cell name, seed) -> a step or None: the first checkpoint from there on is looked at too.

    Keys of a cell: seeds (a curve per seed: steps, and each key of `measure`, a value per checkpoint), and those of
    `lived`. Raises UserError where the run kept too few checkpoints to show `what`.
    """
    trained.need(4, what)
    lives = {
        (name, seed): looked_at(trained.checkpoints_of(name, seed), settings.points, after(name, seed))
        for name in chosen(trained, settings)
        for seed in trained.seeds
    }
    rows = {life: {} for life in lives}
    # Step by step, so that each checkpoint is read once.
    for step in sorted(set().union(*lives.values())):
        for (name, seed), steps in lives.items():
            if step in steps:
                rows[name, seed][step] = measure(trained.model(name, seed, step), name, seed)
    result = {name: {"seeds": [], **lived(trained, name)} for name, _ in lives}
    for (name, _), by_step in rows.items():
        keys = next(iter(by_step.values())).keys()
        curve = {"steps": list(by_step)} | {key: [row[key] for row in by_step.values()] for key in keys}
        result[name]["seeds"].append(curve)
    return result


def after(curve: dict, key: str, step: float | None, until: float = math.inf) -> list[float]:
    """Values of one seed's curve from a step on; none where the step is None."""
    return [v for s, v in zip(curve["steps"], curve[key], strict=True) if step is not None and step <= s <= until]


def from_on(curve: dict, key: str, step: float | None) -> float | None:
    """Value of one seed's curve at its first checkpoint from a step on; None without one."""
    return next(iter(after(curve, key, step)), None)


def label(cell: str) -> str:
    """The paper's name of a placement, and how it is written here."""
    name = paper_name(cell)
    return cell if name == cell else f"{name} ({cell})"


def colors(names: list[str]) -> dict[str, str]:
    """Colour of every cell: that of its placement, or shades in order for cells that differ in a number."""
    if all(name in COLORS for name in names):
        return {name: COLORS[name] for name in names}
    return dict(zip(names, plotting.ordered(len(names)), strict=True))


def draw_lives(ax, cells: dict, key: str) -> None:
    """Curves of `along`: every seed thin, the first seed's bold and labelled."""
    for name, color in colors(list(cells)).items():
        for number, curve in enumerate(cells[name]["seeds"]):
            style = {"label": label(name), "lw": 1.6} if number == 0 else {"lw": 0.6, "alpha": 0.55}
            ax.plot(curve["steps"], curve[key], color=color, **style)


def digits(values: list, form: str = ".2f") -> str:
    """0.27/-/0.08: values of the seeds as text, a dash for None."""
    return "/".join("-" if v is None else f"{v:{form}}" for v in values)


def by_cell(cells: dict, values: Callable[[dict], list], form: str = ".2f") -> str:
    """mlp-pre 1.00/1.10; pre ...: values(cell), a number per seed, of every cell as text."""
    return "; ".join(f"{name} {digits(values(cell), form)}" for name, cell in cells.items())


def at_end(key: str) -> Callable[[dict], list]:
    """cell -> last value of a curve of `along`, per seed."""
    return lambda cell: [curve[key][-1] for curve in cell["seeds"]]
