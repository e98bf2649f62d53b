"""Sweeps over the readout scale without LN: times, losses, update norms, and NTK drift (paper Fig 5, authors' notebooks)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from common import experiment
from common.claims import Claim, by_seed
from common.limits import Count
from layernorm_grok.analysis._cells import cell_result, draw_sweep
from layernorm_grok.analysis._compare import ALL, IN_ORDER, LARGE, crossings, faster, placements, ratio, slower
from layernorm_grok.analysis._lives import chosen, digits, draw_lives
from layernorm_grok.analysis.ntk import with_drift
from layernorm_grok.estimators import times
from layernorm_grok.evaluate import Probe, Trained


@dataclass
class Settings(Probe):
    pairs: Count = 256
    """Train pairs in the kernel."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_cells.cell_result`, alpha, mean_loss_half_way: the paper's statistic), half_way (the step),
    drift (cell -> curves of the kernel's drift, see `ntk.with_drift`)."""
    cells, half = {}, trained.config.train.steps // 2
    for name in chosen(trained, settings):
        steps, losses = trained.curves(name, "test_loss")
        cells[name] = cell_result(trained, name) | {
            "alpha": trained.cell(name).alpha,
            "mean_loss_half_way": float(times.carried(losses).mean(0)[np.abs(steps - half).argmin()]),
        }
    return {"cells": cells, "half_way": half, "drift": with_drift(trained, settings, settings.pairs)}


def draw(result: dict):
    """Test loss, times, norms of updates, drift."""
    fig, ax = draw_sweep(result["cells"])
    draw_lives(ax, result["drift"], "projected", ylabel="NTK drift", xscale="symlog", yscale="symlog")
    return fig


def finding(result: dict) -> str:
    return crossings(result)


def fixed_note(result: dict) -> str:
    """The statistics of the mean curve, which may say otherwise."""
    cells = result["cells"]
    losses = ", ".join(f"{name} {cell['times']['gen_loss'] or 'never'}" for name, cell in cells.items())
    half = ", ".join(f"{cell['mean_loss_half_way']:.2g}" for cell in cells.values())
    return f"{crossings(result)}; mean test loss first at 0.01: {losses}; mean test loss half-way: {half}"


EARLY = 500
"""Last step whose update counts in C14: memorising, before what alpha does to the time of grokking shows."""


def update_spread(result: dict) -> list[float | None]:
    """Per seed, over the values of alpha, largest over least norm of the update at the same step: the median over the evaluated
    steps 2 to EARLY that all of them lived.

    Step 1 is left out: by Adam's rule its update is eta times about the root of the number of weights, whatever alpha is.
    None where a replica diverged.
    """
    cells, spreads = list(result["cells"].values()), []
    for seed in by_seed(*(by_seed(cell["curves"]["update_norm"], cell["lost"]) for cell in cells)):
        curves, lost = zip(*seed, strict=True)
        # A cell all of whose replicas have stopped has no evaluations after that: the shortest curve ends the comparison.
        rows = [norms for step, *norms in zip(cells[0]["steps"], *curves, strict=False) if 1 < step <= EARLY]
        ratios = [max(norms) / min(norms) for norms in rows if None not in norms and min(norms) > 0]
        spreads.append(None if any(lost) or not ratios else float(np.median(ratios)))
    return spreads


def update_note(fixed: dict, scaled: dict) -> str:
    """The same of step 1."""
    both = [by_seed(*(c["update_norm"]["values"] for c in result["cells"].values())) for result in (fixed, scaled)]
    ratios = [digits([max(row) / min(row) for row in rows]) for rows in both]
    return f"at step 1, which Adam's rule fixes: {' and '.join(ratios)}"


LITTLE = (0.67, 1.5)


def subtracted(with_it: dict, without: dict) -> list[float | None]:
    """C22: T with the initial output subtracted over T without, at alpha = 1 and one learning rate, kaiming and epsilon 0."""
    rows = by_seed(*(placements(result, ["alpha=1"]) for result in (with_it, without)))
    return [ratio(a, b, *LITTLE) for (a,), (b,) in rows]


SCALED, FIXED = "eta_0 / alpha^2, share of neighbours in order", "fixed eta, share of neighbours in order"
SCALED_NORMS, FIXED_NORMS = "eta_0 / alpha^2, largest / least", "fixed eta, largest / least"
RUNS = ("readout_fixed_lr/readout_fixed_lr", "readout_scaled_lr/readout_scaled_lr")

CLAIMS = [
    Claim("C12", "With eta_0 / alpha^2 a larger readout scale groks slower, value by value.", source="Fig 5a", presets=ALL,
          paper="2021, 5531, 7807, never, never", needs=RUNS[1:], number=slower, unit=IN_ORDER, above=0.99,
          note=crossings),
    Claim("C13", "At a fixed learning rate a larger readout scale groks faster, value by value.", source="Fig 5c", presets=ALL,
          paper="mean curve: never, never, 7807, 8221, 8309; fastest seed: 9155, 7604, 6328, 5019, 4328", needs=RUNS[:1],
          number=faster, unit=IN_ORDER, above=0.99, note=fixed_note),
    Claim("C14", "Update norms of steps 2 to 500 are comparable across alpha at fixed eta, and not under eta_0 / alpha^2.",
          source="Figs 5b, 5d", presets=ALL, paper="at step 1: 1.018, 8.8", needs=RUNS,
          number=lambda fixed, scaled: {FIXED_NORMS: update_spread(fixed), SCALED_NORMS: update_spread(scaled)},
          below={FIXED_NORMS: 1.5}, above={SCALED_NORMS: 2}, note=update_note),
    Claim("C22", "Subtracting the initial output changes T little, at alpha = 1.", source="authors' scripts",
          presets=LARGE, needs=("readout_fixed_lr_subtract/readout_fixed_lr_subtract",
                                "readout_fixed_lr_eps0/readout_fixed_lr_eps0"),
          number=subtracted, unit="T with over T without", within=LITTLE,
          note=lambda *results: " and without: ".join(crossings(result, ["alpha=1"]) for result in results)),
    Claim("C23", "C12 and C13 hold with kaiming weights and epsilon 0.", source="authors' notebooks", presets=LARGE,
          paper="1736, 4587, 6617, 7532, never; 7933, 8131, 6617, 5177, 5168",
          number=lambda scaled, fixed: {SCALED: slower(scaled), FIXED: faster(fixed)},
          needs=("readout_scaled_lr_eps0/readout_scaled_lr_eps0", "readout_fixed_lr_eps0/readout_fixed_lr_eps0"),
          above={SCALED: 0.99, FIXED: 0.99},
          note=lambda scaled, fixed: f"{crossings(scaled)}; fixed eta: {crossings(fixed)}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
