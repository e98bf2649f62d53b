"""Sweeps over the readout scale without LN: times, losses, update norms, and NTK drift (paper Fig 5, authors' notebooks)."""

from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.claims import Claim, by_seed
from layernorm_grok.analysis._cells import cell_result, draw_loss, draw_times, draw_updates
from layernorm_grok.analysis._compare import ALL, LARGE, crossings, placements, ratio, swept
from layernorm_grok.analysis._drift import with_drift
from layernorm_grok.analysis._lives import chosen, colors, digits, draw_lives
from layernorm_grok.estimators import times
from layernorm_grok.evaluate import Probe, Trained


@dataclass
class Settings(Probe):
    pairs: int = 256
    """Train pairs in the kernel."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_cells.cell_result`, alpha, mean_loss_half_way: the paper's statistic), half_way (the step),
    drift (cell -> curves of the kernel's drift, see `_drift.with_drift`)."""
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
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(2, 2, height=4.6)
    draw_loss(axes[0, 0], cells, palette)
    draw_times(axes[0, 1], cells, palette)
    draw_updates(axes[1, 0], cells, palette)
    draw_lives(axes[1, 1], result["drift"], "projected")
    axes[1, 1].set(xlabel="step", ylabel="NTK drift", xscale="symlog", yscale="symlog")
    axes[1, 1].set_ylim(bottom=0)
    return fig


def finding(result: dict) -> str:
    return crossings(result["cells"])


def slower(result: dict) -> list[float | None]:
    """C12: per seed the share of neighbours in which the larger alpha generalises strictly later."""
    return swept(result["cells"], larger_is_faster=False)


def faster(result: dict) -> list[float | None]:
    """C13: per seed the share of neighbours in which the larger alpha generalises strictly sooner."""
    return swept(result["cells"], larger_is_faster=True)


def fixed_note(result: dict) -> str:
    """The statistics of the mean curve, which may say otherwise."""
    cells = result["cells"]
    losses = ", ".join(f"{name} {cell['times']['gen_loss'] or 'never'}" for name, cell in cells.items())
    half = ", ".join(f"{cell['mean_loss_half_way']:.2g}" for cell in cells.values())
    return f"{crossings(cells)}; mean test loss first at 0.01: {losses}; mean test loss half-way: {half}"


def both(scaled: dict, fixed: dict) -> dict[str, list]:
    """C23: C12's number and C13's."""
    return {SCALED: slower(scaled), FIXED: faster(fixed)}


EARLY = 500
"""Last step whose update counts in C14: memorising, before what alpha does to the time of grokking shows."""


def update_spread(result: dict) -> list[float | None]:
    """Per seed, over the values of alpha, largest over least norm of the update at the same step: the median over the evaluated
    steps 2 to EARLY that all of them lived.

    Step 1 is left out: by Adam's rule its update is eta times about the root of the number of weights, whatever alpha is.
    None where a replica diverged.
    """
    cells = list(result["cells"].values())
    spreads = []
    for curves, lost in by_seed(
        by_seed(*(c["curves"]["update_norm"] for c in cells)), by_seed(*(c["lost"] for c in cells))
    ):
        # A cell all of whose replicas have stopped has no evaluations after that: the shortest curve ends the comparison.
        rows = [norms for step, *norms in zip(cells[0]["steps"], *curves, strict=False) if 1 < step <= EARLY]
        ratios = [max(norms) / min(norms) for norms in rows if None not in norms and min(norms) > 0]
        spreads.append(None if any(lost) or not ratios else float(np.median(ratios)))
    return spreads


def update_spreads(fixed: dict, scaled: dict) -> dict[str, list]:
    """C14: `update_spread` under both rules."""
    return {
        "fixed eta, largest / least": update_spread(fixed),
        "eta_0 / alpha^2, largest / least": update_spread(scaled),
    }


def update_note(fixed: dict, scaled: dict) -> str:
    """The same of step 1."""
    rows = [
        [max(row) / min(row) for row in by_seed(*(cell["update_norm"]["values"] for cell in result["cells"].values()))]
        for result in (fixed, scaled)
    ]
    return f"at step 1, which Adam's rule fixes: {digits(rows[0])} and {digits(rows[1])}"


LITTLE = (0.67, 1.5)


def subtracted(with_it: dict, without: dict) -> list[float | None]:
    """C22: T with the initial output subtracted over T without, at alpha = 1 and one learning rate, kaiming and epsilon 0."""
    rows = by_seed(*(placements(result["cells"], ["alpha=1"]) for result in (with_it, without)))
    return [ratio(a, b, *LITTLE) for (a,), (b,) in rows]


def subtracted_note(with_it: dict, without: dict) -> str:
    return " and without: ".join(crossings(result["cells"], ["alpha=1"]) for result in (with_it, without))


SCALED, FIXED = "eta_0 / alpha^2, share of neighbours in order", "fixed eta, share of neighbours in order"
IN_ORDER = {"unit": "share of neighbours in order, two that never came aside", "above": 0.99}
RUNS = ("readout_fixed_lr/readout_fixed_lr", "readout_scaled_lr/readout_scaled_lr")

CLAIMS = [
    Claim("C12", "With eta_0 / alpha^2 a larger readout scale groks slower, value by value.", source="Fig 5a", presets=ALL,
          paper="2021, 5531, 7807, never, never", needs=RUNS[1:], number=slower, **IN_ORDER,
          note=lambda result: crossings(result["cells"])),
    Claim("C13", "At a fixed learning rate a larger readout scale groks faster, value by value.", source="Fig 5c", presets=ALL,
          paper="mean curve: never, never, 7807, 8221, 8309; fastest seed: 9155, 7604, 6328, 5019, 4328", needs=RUNS[:1],
          number=faster, **IN_ORDER, note=fixed_note),
    Claim("C14", "Update norms of steps 2 to 500 are comparable across alpha at fixed eta, and not under eta_0 / alpha^2.",
          source="Figs 5b, 5d", presets=ALL, paper="at step 1: 1.018, 8.8", needs=RUNS,
          number=update_spreads,
          below={"fixed eta, largest / least": 1.5}, above={"eta_0 / alpha^2, largest / least": 2}, note=update_note),
    Claim("C22", "Subtracting the initial output changes T little, at alpha = 1.", source="authors' scripts",
          presets=LARGE, needs=("readout_fixed_lr_subtract/readout_fixed_lr_subtract",
                                "readout_fixed_lr_eps0/readout_fixed_lr_eps0"),
          number=subtracted, unit="T with over T without", within=LITTLE, note=subtracted_note),
    Claim("C23", "C12 and C13 hold with kaiming weights and epsilon 0.", source="authors' notebooks", presets=LARGE,
          paper="1736, 4587, 6617, 7532, never; 7933, 8131, 6617, 5177, 5168", number=both,
          needs=("readout_scaled_lr_eps0/readout_scaled_lr_eps0", "readout_fixed_lr_eps0/readout_fixed_lr_eps0"),
          above={SCALED: 0.99, FIXED: 0.99},
          note=lambda scaled, fixed: f"{crossings(scaled['cells'])}; fixed eta: {crossings(fixed['cells'])}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
