"""What every analysis of this paper shares: its settings, the cells and checkpoints it reads, the look of a placement."""

from collections.abc import Callable
from dataclasses import dataclass, field

from common import analysis, plotting
from common.analysis import over_seeds as over_seeds
from layernorm_grok.evaluate import Trained
from layernorm_grok.placement import PAPER_NAMES, paper_name

COLORS = dict(zip(PAPER_NAMES, (*plotting.COLORS[-1:], *plotting.COLORS[:-1], plotting.GREY), strict=True))
"""No LN is ink; every placement keeps its colour in all figures."""


@dataclass
class Analysis(analysis.Analysis):
    run: str = "runs/layernorm_grok/quick/main"
    """Run folder to analyse."""
    cells: list[str] = field(default_factory=list)
    """Cells of the run's grid to look at; empty: all of them."""


@dataclass
class Probe(Analysis):
    points: int = 24
    """Checkpoints looked at per replica, spread over its life (the first and the last always)."""

    def __post_init__(self):
        if self.points < 2:
            raise ValueError(f"points is {self.points}; expected 2 or more")


def perform(name: str, settings_class: type, analyse: Callable, draw: Callable, finding: Callable) -> None:
    """Entry point of an analysis, see common.analysis.perform."""

    def read(settings) -> Trained:
        return Trained(settings.run, settings.device, settings.threads)

    analysis.perform(name, settings_class, read, analyse, draw, finding)


def chosen(trained: Trained, settings: Analysis) -> list[str]:
    """Names of the cells asked for, checked."""
    return [trained.cell(name).name for name in settings.cells] or list(trained.cells)


def sibling(trained: Trained, name: str) -> Trained:
    """Another run of the same study."""
    return Trained(trained.run.path.parent / name, trained.device.type)


def spread_out(steps: list[int], points: int) -> list[int]:
    """About `points` of the steps, evenly by rank, first and last included."""
    if len(steps) <= points:
        return steps
    return [steps[round(i * (len(steps) - 1) / (points - 1))] for i in range(points)]


def looked_at(steps: list[int], points: int, after: int | None) -> list[int]:
    """`spread_out`, and the first of the steps that is `after` or later."""
    found = [s for s in steps if after is not None and s >= after][:1]
    return sorted({*spread_out(steps, points), *found})


def along(trained: Trained, settings: Probe, measure: Callable, what: str, after: Callable = lambda *_: None) -> dict:
    """measure(model, cell name, seed) -> flat dict of numbers, along the life of every replica.

    after(cell name, seed) -> a step or None: the first checkpoint from there on is looked at too.

    Result per cell: {"seeds": [{"steps": [...], key: [...], ...} per seed]}; raises UserError where the run kept too few
    checkpoints to show a development.
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
    result = {}
    for (name, _), found in rows.items():
        keys = next(iter(found.values())).keys()
        curve = {"steps": list(found)} | {key: [row[key] for row in found.values()] for key in keys}
        result.setdefault(name, {"seeds": []})["seeds"].append(curve)
    return result


def label(cell: str) -> str:
    """The paper's name of a placement, and how it is written here."""
    name = paper_name(cell)
    return cell if name == cell else f"{name} ({cell})"


def colors(names: list[str]) -> dict[str, str]:
    """Colour of every cell: that of its placement, or shades in order for cells that differ in a number."""
    if all(name in COLORS for name in names):
        return {name: COLORS[name] for name in names}
    return dict(zip(names, plotting.ordered(len(names)), strict=True))


def draw_lives(ax, result: dict, key: str, names: list[str] | None = None, **style) -> None:
    """Curves of `along`: every seed thin, the first seed's bold and labelled."""
    names = names or list(result)
    for name in names:
        for number, curve in enumerate(result[name]["seeds"]):
            first = {"label": label(name), "lw": 1.6} if number == 0 else {"lw": 0.6, "alpha": 0.55}
            ax.plot(curve["steps"], curve[key], color=colors(names)[name], **first | style)


def last(result: dict, name: str, key: str) -> dict:
    """Final value of a curve of `along`, over seeds."""
    return over_seeds([curve[key][-1] for curve in result[name]["seeds"]])
