"""Fourier concentration of the embedding along training (paper Figs 2b, 2c)."""

import common.process  # noqa: F401

from common import experiment, plotting
from common.claims import Claim, by_seed
from common.plain import steps
from layernorm_grok.analysis._compare import ALL, ORDER, agreements, by_name, came, crossings, share
from layernorm_grok.analysis._lives import along, at_end, by_cell, colors, draw_against_t, draw_lives
from layernorm_grok.estimators import fourier
from layernorm_grok.evaluate import Probe as Settings
from layernorm_grok.evaluate import Trained

LEVEL = 1.0
"""The paper's threshold on C_F."""
RISE = 30.0
"""Ours, in units of the value at the start: what white noise gives depends on P and d."""


def measure(trained: Trained, model, name: str, seed: int) -> dict:
    """C_F of the embedding of the P numbers, with and without DC, and two other measures of its spectrum."""
    table = model.embed[: model.P]
    return {
        "concentration": fourier.concentration(table),
        "without_dc": fourier.concentration(table, dc=False),
        "key_share": fourier.key_frequency_share(table),
        "gini": fourier.gini(table),
    }


def passing(curve: dict, level: float) -> int | None:
    """First checkpoint with C_F at the level."""
    return next((s for s, v in zip(curve["steps"], curve["concentration"], strict=True) if v >= level), None)


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along` of `measure`; passes and rises: per seed the first checkpoint with C_F at 1, and at
    30 times its start), level, rise."""
    cells = along(trained, settings, measure, "the curve of C_F")
    for cell in cells.values():
        cell["passes"] = [passing(curve, LEVEL) for curve in cell["seeds"]]
        cell["rises"] = [passing(curve, RISE * curve["concentration"][0]) for curve in cell["seeds"]]
    return {"cells": cells, "level": LEVEL, "rise": RISE}


def draw(result: dict):
    """C_F and the share of the five strongest frequencies along training; rising of C_F against generalising."""
    cells = result["cells"]
    fig, axes = plotting.axes(3, height=2.6)
    draw_lives(axes[0], cells, "concentration", ylabel="Fourier concentration C_F", yscale="log")
    axes[0].axhline(result["level"], color=plotting.GREY, lw=0.6, ls="--")
    for name, color in colors(cells).items():
        if cells[name]["times"]["t_gen"][0] is not None:
            axes[0].axvline(cells[name]["times"]["t_gen"][0], color=color, lw=0.6, ls=":")
    draw_lives(axes[1], cells, "key_share", ylabel="share of 5 frequencies")
    draw_against_t(axes[2], cells, lambda cell: cell["rises"])
    low, high = axes[2].get_xlim()
    axes[2].plot([low, high], [low, high], color=plotting.GREY, lw=0.6)
    axes[2].set(xlabel=f"step: C_F {result['rise']:g} times its start", ylabel="T (triangle: never)")
    fig.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def finding(result: dict) -> str:
    return f"C_F at the end: {by_cell(result['cells'], at_end('concentration'))}"


def rising_order(result: dict) -> list[float | None]:
    """C3: per seed the share of the six pairs of placements in which C_F rises strictly in the order of T.

    A pair of which neither rose, or neither generalised, cannot be told; nor one with a replica that diverged.
    """
    return [share(row) for row in agreements(result, lambda cell: came(cell, cell["rises"]))]


def rising_note(result: dict) -> str:
    rises, passes = (
        by_cell(result["cells"], lambda cell, key=key: cell[key], steps, ORDER) for key in ("rises", "passes")
    )
    return f"C_F at 30 times its start: {rises}; at 1 (the paper's): {passes}; {crossings(result, ORDER)}"


PERIODIC = {"C_F / start": RISE, "share of 5 frequencies": 0.5}


def periodic_cells(main: dict, no_ln: dict) -> dict:
    """Those of C4. No LN is that of the decay sweep at lambda = 1, which trains on enough pairs to generalise in the budget."""
    return {name: main["cells"][name] for name in ORDER[:-1]} | {"off": no_ln["cells"]["weight_decay=1"]}


def ends_periodic(main: dict, no_ln: dict) -> dict[str, list]:
    """C4: per seed the least, over the placements that generalised, of C_F at the end over its start, and of the power of the
    five strongest frequencies over that of all but DC (C_F counts DC too, and may rise by it alone).

    Where one has not generalised the seed can only refute.
    """
    cells, rows = periodic_cells(main, no_ln).values(), []
    for seed in by_seed(*(by_seed(cell["seeds"], came(cell)) for cell in cells)):
        curves = [curve for curve, t in seed if t is not None and t[1]]
        ends = [(c["concentration"][-1] / c["concentration"][0], c["key_share"][-1]) for c in curves]
        least = [min(column) for column in zip(*ends, strict=True)] or [None] * 2
        whole = len(curves) == len(cells)
        bounds = zip(least, PERIODIC.values(), strict=True)
        rows.append([n if n is not None and (whole or n <= bound) else None for n, bound in bounds])
    return by_name(PERIODIC, rows)


def periodic_note(main: dict, no_ln: dict) -> str:
    cells = periodic_cells(main, no_ln)
    return f"at the end C_F {by_cell(cells, at_end('concentration'))}; share of 5 {by_cell(cells, at_end('key_share'))}"


CLAIMS = [
    Claim("C3", "C_Fourier rises in the order in which the placements generalise.", source="Figs 2b, 2c", presets=ALL,
          paper="C_F at 1: 1800, 2600, 5400, 6200", number=rising_order, unit="share of the six pairs in order", above=0.99,
          note=rising_note),
    Claim("C4", "Every placement, once it has generalised, ends in a periodic solution.", source="Fig 2b, section 2.3",
          presets=ALL, paper="C_F at the end: No LN 3.35, M+A* 2.27, M 1.65, A* 0.45 (start 0.0089)",
          needs=("fourier", "wd_sweep/fourier_no_ln"), number=ends_periodic, above=PERIODIC, note=periodic_note),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
