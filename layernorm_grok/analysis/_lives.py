"""Measures along the lives of replicas, from checkpoint to checkpoint, and how cells are drawn and written."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from common import plotting
from common.claims import by_seed
from common.config import UserError
from layernorm_grok.evaluate import Analysis, Probe, Trained
from layernorm_grok.placement import PAPER_NAMES

COLORS = dict(zip(PAPER_NAMES, (*plotting.COLORS[-1:], *plotting.COLORS[:-1], plotting.GREY), strict=True))
"""No LN is ink; every placement keeps its colour in all figures."""


def chosen(trained: Trained, settings: Analysis) -> list[str]:
    """Names of the cells asked for, all by default; raises UserError for an unknown one."""
    return [trained.cell(name).name for name in settings.cells] or list(trained.cells)


def lived(trained: Trained, name: str) -> dict:
    """Keys, each a value per seed: times (in every convention, see estimators.times.conventions), last (step of the last
    evaluation), lost (whether the replica diverged: it ended before the budget, and not because it had generalised)."""
    (steps, losses), times = trained.curves(name, "test_loss"), trained.times(name)
    last = [int(steps[np.isfinite(row)].max(initial=0)) for row in losses]
    lost = [t is None and end < trained.config.train.steps for t, end in zip(times["t_gen"], last, strict=True)]
    return {"times": times, "last": last, "lost": lost}


def looked_at(steps: list[int], points: int, after: int | None = None) -> list[int]:
    """About `points` of the steps, evenly by rank, first and last included, and the first of them that is `after` or later."""
    chosen = steps
    if len(steps) > points:
        chosen = [steps[round(i * (len(steps) - 1) / (points - 1))] for i in range(points)]
    return sorted({*chosen, *[s for s in steps if after is not None and s >= after][:1]})


def along(trained: Trained, settings: Probe, measure: Callable, what: str, after: Callable = lambda *_: None) -> dict:
    """measure(trained, model, cell name, seed) -> flat dict of numbers, along the life of every replica; cell name -> result.

    after(cell name, seed) -> a step or None: the first checkpoint from there on is looked at too.

    Keys of a cell: seeds (a curve per seed: steps, and each key of `measure`, a value per checkpoint), and those of
    `lived`. Raises UserError where the run kept too few checkpoints to show `what`.
    """
    if len(trained.steps) < 4:
        raise UserError(
            f"found {len(trained.steps)} checkpoints in {trained.run.path}, expected at least 4 for {what}; "
            f"train with a smaller --train.save_every (it was {trained.config.train.save_every})"
        )
    lives = {
        (name, seed): looked_at(trained.checkpoints_of(name, seed), settings.points, after(name, seed))
        for name in chosen(trained, settings)
        for seed in trained.seeds
    }
    rows = {life: [] for life in lives}
    # Step by step, so that each checkpoint is read once.
    for step in sorted(set().union(*lives.values())):
        for (name, seed), steps in lives.items():
            if step in steps:
                numbers = measure(trained, trained.model(name, seed, step), name, seed)
                rows[name, seed].append({"steps": step, **numbers})
    result = {name: {"seeds": [], **lived(trained, name)} for name, _ in lives}
    for (name, _), life in rows.items():
        result[name]["seeds"].append({key: [row[key] for row in life] for key in life[0]})
    return result


def after(curve: dict, key: str, step: float | None, until: float = math.inf) -> list[float]:
    """Values of one seed's curve from a step on; none where the step is None."""
    return [v for s, v in zip(curve["steps"], curve[key], strict=True) if step is not None and step <= s <= until]


def from_on(curve: dict, key: str, step: float | None) -> float | None:
    """Value of one seed's curve at its first checkpoint from a step on; None without one."""
    return next(iter(after(curve, key, step)), None)


def label(cell: str) -> str:
    """The paper's name of a placement where it has one, and how it is written here."""
    return f"{PAPER_NAMES[cell]} ({cell})" if cell in PAPER_NAMES else cell


def colors(names: Collection[str]) -> dict[str, str]:
    """Colour of every cell: that of its placement, or shades in order for cells that differ in a number."""
    if all(name in COLORS for name in names):
        return {name: COLORS[name] for name in names}
    return dict(zip(names, plotting.ordered(len(names)), strict=True))


def draw_seeds(ax, cells: dict, curves: Callable[[dict], list], **settings) -> None:
    """curves(cell), an (x, y) per seed, None where there is no y: thin, the seed with the median T bold and labelled.

    settings: of the axes; an axis with scale symlog begins at 0.
    """
    for name, color in colors(cells).items():
        order = np.argsort([np.inf if t is None else t for t in cells[name]["times"]["t_gen"]], kind="stable")
        for number, (x, y) in enumerate(curves(cells[name])):
            middle = number == order[(len(order) - 1) // 2]
            style = {"label": label(name), "lw": 1.5} if middle else {"lw": 0.6, "alpha": 0.5}
            ax.plot(x, np.array(y, dtype=float), color=color, **style)
    ax.set(xlabel="step", **settings)
    if ax.get_xscale() == "symlog":
        ax.set_xlim(left=0)
    if ax.get_yscale() == "symlog":
        ax.set_ylim(bottom=0)


def draw_lives(ax, cells: dict, key: str, **settings) -> None:
    """`draw_seeds` of the curves of `along`."""
    draw_seeds(ax, cells, lambda cell: [(curve["steps"], curve[key]) for curve in cell["seeds"]], **settings)


def draw_against_t(ax, cells: dict, values: Callable[[dict], list], marker: str = "o", filled: bool = True) -> None:
    """T against values(cell), a step per seed; a triangle at the last step looked at where T never came."""
    for name, color in colors(cells).items():
        for x, t, last in by_seed(values(cells[name]), cells[name]["times"]["t_gen"], cells[name]["last"]):
            if x is not None:
                y, shape = (last, "^") if t is None else (t, marker)
                ax.plot(x, y, shape, ms=4, color=color, mfc=color if filled else "white")


def digits(values: list, form: str = ".2f") -> str:
    """0.27/-/0.08: values of the seeds as text, a dash for None."""
    return "/".join("-" if v is None else f"{v:{form}}" for v in values)


def by_cell(
    cells: dict, values: Callable[[dict], list], form: str | Callable[[list], str] = ".2f", names: Sequence[str] = ()
) -> str:
    """mlp-pre 1.00/1.10; pre ...: values(cell), a number per seed, of every cell as text, or of the cells `names`.

    form: of a number, as for `digits`, or what makes a text of a cell's numbers.
    """
    write = form if callable(form) else partial(digits, form=form)
    return "; ".join(f"{name} {write(values(cells[name]))}" for name in names or cells)


def at_end(key: str) -> Callable[[dict], list]:
    """cell -> last value of a curve of `along`, per seed."""
    return lambda cell: [curve[key][-1] for curve in cell["seeds"]]
