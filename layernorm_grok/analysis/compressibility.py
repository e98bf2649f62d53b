"""How compressible the prelogits are along training (paper Figs 6 and 9)."""

import common.process  # noqa: F401

import torch

from common import experiment, plotting
from common.claims import Claim, by_seed
from common.plain import steps
from layernorm_grok.analysis._compare import LARGE, ORDER, Time, agreements, came, cells_of, share
from layernorm_grok.analysis._lives import after, along, by_cell, draw_against_t, draw_lives
from layernorm_grok.estimators import compressibility, times
from layernorm_grok.evaluate import Probe as Settings
from layernorm_grok.evaluate import Trained

AFTER = 200
"""Step from which a minimum counts, as in the paper: at the start the prelogits are nearly the same for all pairs."""
RANK, EXPONENT = "test_effective_rank", "test_alpha_pl"


@torch.no_grad()
def measure(trained: Trained, model, name: str, seed: int) -> dict:
    """Spectrum of z^T z on train and on test pairs, and ||theta|| without norms that the placement leaves out, of one model."""
    numbers = {}
    for side, rows in zip(("train", "test"), trained.pairs[seed], strict=True):
        numbers |= {f"{side}_{key}": v for key, v in compressibility.spectrum(model(rows).prelogits).items()}
    norms = model.placement.norms
    used = [p for n, p in model.named_parameters() if ".ln" not in n or n.split(".")[-2] in norms]
    return numbers | {"weight_norm": float(torch.cat([p.flatten() for p in used]).norm())}


def still_falling(curve: dict, key: str, budget: int) -> bool:
    """Whether a replica stopped before the budget with its least value in its last tenth: the true minimum is unknown."""
    known = [(v, s) for s, v in zip(curve["steps"], curve[key], strict=True) if s >= AFTER and v == v]
    return curve["steps"][-1] < budget and (not known or min(known)[1] > 0.9 * curve["steps"][-1])


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along` of the measures of `estimators.compressibility`, as <side>_<measure>, and
    weight_norm; within: measure -> per seed the first checkpoint within 10% of its minimum, both from AFTER on; median_within;
    at_stop: measure -> per seed `still_falling`; minimum: least effective rank per seed), after (that step)."""
    cells = along(trained, settings, measure, "the development of the spectrum")
    budget, keys = trained.config.train.steps, ("train_effective_rank", RANK, "train_alpha_pl", EXPONENT)
    for cell in cells.values():
        curves = cell["seeds"]
        ends = [curve["steps"][-1] for curve in curves]
        within = {key: [compressibility.within(c[key], c["steps"], after=AFTER) for c in curves] for key in keys}
        cell["within"] = within
        cell["median_within"] = {key: times.quantile(when, ends) for key, when in within.items()}
        cell["at_stop"] = {key: [still_falling(curve, key, budget) for curve in curves] for key in keys}
        cell["minimum"] = [min(after(curve, RANK, AFTER) or curve[RANK]) for curve in curves]
    return {"cells": cells, "after": AFTER}


def draw(result: dict):
    """Effective rank, power-law exponent, numerical rank, ||theta||; the "within 10%" step against T."""
    cells = result["cells"]
    fig, axes = plotting.axes(3, 2, height=4.6)
    panels = (
        (RANK, "effective rank (test)"), (EXPONENT, "power-law exponent (test)"),
        ("test_numerical_rank", "numerical rank (test)"), ("weight_norm", "norm of all weights"),
        ("train_effective_rank", "effective rank (train)"),
    )  # fmt: skip
    for ax, (key, text) in zip(axes.flat, panels, strict=False):
        draw_lives(ax, cells, key, ylabel=text)
    ax = axes.flat[5]
    draw_against_t(ax, cells, lambda cell: cell["within"][RANK])
    draw_against_t(ax, cells, lambda cell: cell["within"][EXPONENT], "s", filled=False)
    ax.set_xlabel("step within 10% of minimum\n(filled: rank, open: exponent)")
    ax.set_ylabel("T (triangle: never)")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def finding(result: dict) -> str:
    inside = by_cell(result["cells"], lambda cell: cell["within"][RANK], steps)
    return f"effective rank within 10% of its minimum at {inside}"


def compressed_at(cell: dict, key: str) -> list[Time]:
    """Per seed when a measure came within 10% of its minimum; None where that is not known: the placement has not
    generalised, or stopped with the measure still falling."""
    rows = by_seed(cell["within"][key], cell["at_stop"][key], came(cell))
    return [(at, True) if at is not None and not cut and t is not None and t[1] else None for at, cut, t in rows]


PAIRS = {"rank, share of the six pairs": RANK, "exponent, share of the six pairs": EXPONENT}


def in_order(result: dict) -> dict[str, list]:
    """C16: of rank and exponent the share of the six pairs of placements that come within 10% strictly in the order of T."""
    pairs = {name: agreements(result, lambda cell, key=key: compressed_at(cell, key)) for name, key in PAIRS.items()}
    return {name: [share(row) for row in rows] for name, rows in pairs.items()}


def in_order_note(result: dict) -> str:
    both = lambda within: f"{steps(within[RANK])} and {steps(within[EXPONENT])}"  # noqa: E731
    return f"rank and exponent within 10% at {by_cell(result['cells'], lambda cell: cell['within'], both, ORDER)}"


def least_ranks(result: dict) -> list[float | None]:
    """C17: A*'s least effective rank over No LN's; None where one has not generalised, or stopped with its rank falling."""
    cells = cells_of(result, ("attn-pre", "off"))
    known = by_seed(*(compressed_at(cell, RANK) for cell in cells))
    return [None if None in seen else a / off for seen, a, off in by_seed(known, *(cell["minimum"] for cell in cells))]


CLAIMS = [
    Claim("C16", "Placements become compressible in the order in which they grok.", source="Fig 6", presets=LARGE,
          paper="within 10%: rank 4400, 5200, 8000, 8600; exponent 1000, 2400, 6800, 8200", number=in_order,
          above=dict.fromkeys(PAIRS, 0.99), note=in_order_note),
    Claim("C17", "A* does not reach a lower effective rank than No LN.", source="section 4.2", presets=LARGE,
          paper="1.51 (12.61, 8.34)", number=least_ranks, unit="least effective rank, A* / No LN", above=1,
          note=lambda r: f"least effective ranks: {by_cell(r['cells'], lambda cell: cell['minimum'], names=ORDER)}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
