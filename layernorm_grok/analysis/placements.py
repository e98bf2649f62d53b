"""When the placements of the norm fit and when they generalise (paper Figs 1, 2a, 3b, 7, 8, and variants of ours)."""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated, Literal

from common import experiment, plotting
from common.claims import Claim, by_seed
from common.config import UserError
from common.limits import Distinct, Name
from common.plain import steps
from layernorm_grok.analysis._cells import cell_result, draw_curves, draw_loss, draw_times, neighbours, plain_ticks
from layernorm_grok.analysis._compare import (
    ALL,
    LARGE,
    ORDER,
    agreements,
    by_name,
    came,
    cells_of,
    crossings,
    in_order,
    placements,
    ratio,
)
from layernorm_grok.analysis._lives import by_cell, chosen, digits, draw_against_t
from layernorm_grok.evaluate import Analysis, Trained


@dataclass
class Settings(Analysis):
    runs: Annotated[list[Name], Distinct()] = field(default_factory=list)
    """Further runs of the same study whose cells are looked at too."""
    norm: Literal["layer", "rms"] = "layer"
    """Norm that the run must have; another one is refused."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_cells.cell_result`; cells of a further run as "run", or "run: cell" where it has several),
    order (statistics of neighbours, in the order of the cells), train_fraction (share of the pairs trained on).

    Raises UserError for a run with another norm.
    """
    if trained.config.model.norm != settings.norm:
        raise UserError(
            f"found model.norm {trained.config.model.norm} in {trained.run.path}, expected {settings.norm}; "
            "give another --run, or --norm"
        )
    cells = {name: cell_result(trained, name) for name in chosen(trained, settings)}
    for run in settings.runs:
        other = trained.sibling(run)
        cells |= {run if len(other.cells) == 1 else f"{run}: {n}": cell_result(other, n) for n in other.cells}
    return {"cells": cells, "order": neighbours(cells), "train_fraction": trained.config.data.train_fraction}


def draw(result: dict):
    """Losses, accuracy, the times, and the one against the other."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.8)
    draw_loss(axes[0, 0], cells)
    draw_curves(axes[0, 1], cells, "test_accuracy", "test accuracy")
    draw_times(axes[1, 0], cells)
    ax = axes[1, 1]
    draw_against_t(ax, cells, lambda cell: cell["times"]["t_train"])
    ax.set(xlabel="step: train loss at 0.01", ylabel="T (triangle: never)")
    if ax.lines:
        ax.set(xscale="log", yscale="log")
        plain_ticks(ax.xaxis)
        plain_ticks(ax.yaxis)
    return fig


def finding(result: dict) -> str:
    return crossings(result)


def order_note(result: dict) -> str:
    """The times, and the paper's own statistic beside them."""
    losses = ", ".join(f"{name} {result['cells'][name]['times']['gen_loss'] or 'never'}" for name in ORDER)
    return f"{crossings(result, ORDER)}; mean test loss at 0.01: {losses}"


def fitting_as_generalising(result: dict) -> list[float | None]:
    """C2: per seed, of the six pairs of the four placements, how many fit train in the order in which they generalise.

    None where one pair cannot be told. A placement that stopped with its train loss still above 0.01 fits later than that.
    """
    pairs = agreements(result, lambda cell: came(cell, cell["times"]["t_train"]))
    return [None if None in row else float(sum(row)) for row in pairs]


def deeper(deep: dict, shallow: dict) -> dict[str, list]:
    """C20: the order of C1, and the slingshots of all four placements per 1000 steps, with three layers less with one."""
    rates = by_seed(slingshot_rates(deep), slingshot_rates(shallow))
    return {NEIGHBOURS: in_order(deep), MORE: [three - one for three, one in rates]}


def slingshot_rates(result: dict) -> list[float]:
    """Per seed the slingshots of the four placements over the steps that they lived, in thousands."""
    rows = by_seed(*(by_seed(cell["slingshots"], cell["last"]) for cell in cells_of(result)))
    return [1000 * sum(len(jumps) for jumps, _ in row) / sum(last for _, last in row) for row in rows]


def deeper_note(deep: dict, shallow: dict) -> str:
    rates = " and ".join(digits(slingshot_rates(result)) for result in (deep, shallow))
    return f"{order_note(deep)}; slingshots per 1000 steps {rates}"


STRONGLY = 0.5
M_VALUES_OFF, BOTH_AND_M = ("mlp-pre", "attn-pre-v", "off"), ("pre-v", "mlp-pre")


def value_path(result: dict) -> dict[str, list]:
    """C7: ratios of T; of a No LN that never came the budget stands for T where that is enough."""
    rows = [(ratio(value, off, STRONGLY), ratio(value, m, 1)) for m, value, off in placements(result, M_VALUES_OFF)]
    return by_name(("T(A^v) / T(No LN)", "T(A^v) / T(M)"), rows)


def query_key_path(result: dict) -> list[float | None]:
    """C8: test accuracy of No LN less that of A^qk at the step at which the first of them generalises, or at their end.

    The first has 0.99 there, so that a tie leaves no more than 0.01. None where one diverged.
    """
    names = ("off", "attn-pre-qk")
    gaps, steps = [], result["cells"]["off"]["steps"]
    accuracy = (cell["curves"]["test_accuracy"] for cell in cells_of(result, names))
    for times, off, qk in by_seed(placements(result, names), *accuracy):
        at = None if None in times else steps.index(min(step for step, _ in times))
        gaps.append(None if at is None else off[at] - qk[at])
    return gaps


def query_key_note(result: dict) -> str:
    names = ("attn-pre-qk", "off")
    ends = by_cell(result["cells"], lambda cell: cell["final_accuracy"], names=names)
    return f"{crossings(result, names)}; test accuracy at the end: {ends}"


def plateaus(cell: dict) -> list[tuple[float, float] | None]:
    """Per seed (level, range): median and interquartile range of test accuracy from T_train half-way to the touch of 0.99, or
    to the end. None where it does not rest: touched sooner than at twice T_train, diverged, or no evaluation between."""
    times, plateau = cell["times"], by_seed(cell["plateau_accuracy"]["values"], cell["plateau_range"]["values"])
    rows = by_seed(times["t_train"], times["first"], cell["lost"], plateau)
    return [
        None if fitted is None or lost or row[0] is None or (touch is not None and touch < 2 * fitted) else row
        for fitted, touch, lost, row in rows
    ]


def resting(result: dict) -> dict[str, list]:
    """C25: over the placements that rest, the least and the largest of their levels and the widest of their ranges, all over
    the train fraction (see `plateaus`); None where none rests."""
    rows = []
    for seed in by_seed(*map(plateaus, cells_of(result))):
        levels, ranges = ([row[i] / result["train_fraction"] for row in seed if row] for i in (0, 1))
        rows.append((min(levels), max(levels), max(ranges)) if levels else (None,) * 3)
    return by_name([f"{name} / train fraction" for name in ("least level", "largest level", "widest range")], rows)


def resting_note(result: dict) -> str:
    levels = by_cell(result["cells"], lambda cell: cell["plateau_accuracy"]["values"], names=ORDER)
    return f"train fraction {result['train_fraction']:g}; levels {levels}"


NEIGHBOURS = "share of neighbours in order"
MORE = "slingshots per 1000 steps, three layers less one"

CLAIMS = [
    Claim("C1", "Placement orders the speed of grokking: M < M+A* < A* < No LN.", source="Figs 1, 2a", presets=ALL,
          paper="mean test loss at 0.01: 1425, 3525, 7157, 7807", needs=("ln_position",), number=in_order, unit=NEIGHBOURS,
          above=0.99, note=order_note),
    Claim("C2", "Speed of fitting train does not predict speed of fitting test, in either direction.", presets=ALL,
          source="Fig 1, section 2.3", paper="3 (T_train 148, 214, 231, 317 of A*, M+A*, M, No LN)", needs=("ln_position",),
          number=fitting_as_generalising, unit="pairs of the four placements in the same order, of 6", within=(2, 4),
          note=lambda r: f"T_train {by_cell(r['cells'], lambda cell: cell['times']['t_train'], steps, ORDER)}"),
    Claim("C7", "LN on the values alone speeds grokking strongly, and less than M.", source="Fig 3b", presets=ALL,
          paper="0.24, 1.33 (1425, 1891, 7807)", needs=("attn_paths",), number=value_path,
          below={"T(A^v) / T(No LN)": STRONGLY}, above={"T(A^v) / T(M)": 1},
          note=lambda result: crossings(result, M_VALUES_OFF)),
    Claim("C8", "LN on queries and keys alone hurts.", source="Fig 3b", presets=ALL, paper="A^qk never",
          needs=("attn_paths",), number=query_key_path, above=0.05, note=query_key_note,
          unit="test accuracy of No LN less A^qk's, when the first of them generalises or at the end"),
    Claim("C19", "RMSNorm gives the same picture: the order of C1.", source="Fig 7", presets=LARGE,
          paper="read off: 900, 2500, 6000, 7800", needs=("rmsnorm/rmsnorm",), number=in_order, unit=NEIGHBOURS,
          above=0.99, note=order_note),
    Claim("C20", "Three layers of half the width: the order of C1, and more slingshots.", source="Fig 8", presets=LARGE,
          paper="read off: 1000, 1800, 5000, 6000 to 8000", needs=("depth3/depth3", "ln_position"), number=deeper,
          above={NEIGHBOURS: 0.99, MORE: 0}, note=deeper_note),
    Claim("C24", "M+A^v is faster still than M.", source="authors' notebooks", presets=ALL, paper="0.68 (964, 1425)",
          needs=("attn_paths",), unit="T(M+A^v) / T(M)", below=1,
          number=lambda result: [ratio(v, m, 1) for v, m in placements(result, BOTH_AND_M)],
          note=lambda result: crossings(result, BOTH_AND_M)),
    Claim("C25", "Before grokking, test accuracy rests near the train fraction, in every placement that groks at twice T_train "
          "or later.", source="authors' notebooks", presets=ALL, needs=("ln_position",), number=resting,
          paper="fraction 0.3: A* .26 to .28, M+A* .305, M .30, No LN .21", above={"least level / train fraction": 0.75},
          below={"largest level / train fraction": 1.25, "widest range / train fraction": 0.25}, note=resting_note),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
