"""Does the model read the scale of the MLP's input? Loss with it removed, in three modes (paper Fig 3a)."""

import math

import numpy as np
import torch

from common import experiment, plotting
from common.claims import Claim, by_seed
from layernorm_grok.analysis._compare import ALL, came, crossings
from layernorm_grok.analysis._lives import after, along, at_end, by_cell, digits, draw_lives, from_on
from layernorm_grok.estimators.scale_removed import MODES, norm_variation, scale_removed
from layernorm_grok.evaluate import Probe, Trained
from layernorm_grok.losses import cross_entropy

Settings = Probe

TITLES = {
    "code": "y / ||y||, all norms dropped (as the authors ran it)",
    "unit": "y / ||y||, same path",
    "mean_norm": "y mean||y|| / ||y||, same path",
}


def measure_of(trained: Trained):
    """Loss and accuracy on train and test pairs under every mode, and how the norm of the MLP's input varies."""
    sides = {seed: trained.pairs(seed) for seed in trained.seeds}

    @torch.no_grad()
    def measure(model, name: str, seed: int) -> dict:
        alpha, numbers = trained.cell(name).alpha, {}
        for side, rows in zip(("train", "test"), sides[seed], strict=True):
            offset = trained.offset(name, seed, rows)
            logits = alpha * (model(rows).logits - offset)
            numbers[f"{side}_loss"] = float(cross_entropy(logits, trained.targets[rows]).double().mean())
            for mode in MODES:
                values = scale_removed(model, rows, trained.targets[rows], alpha, mode, offset)
                numbers |= {f"{side}_{mode}_{key}": float(value) for key, value in values.items()}
        norms = norm_variation(model, sides[seed][0])
        return numbers | {"norm": norms["mean"][-1], "variation": norms["variation"][-1]}

    return measure


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along`: of train and test the loss, and <side>_<mode>_loss and _accuracy with the scale
    removed in each mode; norm and variation of the MLP's input)."""
    return {"cells": along(trained, settings, measure_of(trained), "the development of the scale-removed loss")}


def draw(result: dict):
    """The three modes on the train pairs, and the mean norm of the MLP's input."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.4)
    for ax, (mode, title) in zip(axes.flat, TITLES.items(), strict=False):
        draw_lives(ax, cells, f"train_{mode}_loss")
        ax.set(title=title, ylabel="scale-removed train loss", xlabel="step", yscale="symlog")
        ax.set_ylim(bottom=0)
    draw_lives(axes[1, 1], cells, "norm")
    axes[1, 1].set(title="scale that is removed", ylabel="mean ||y||", xlabel="step", yscale="log")
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    peaks = by_cell(result["cells"], lambda cell: [max(c["train_unit_loss"]) for c in cell["seeds"]], ".1f")
    return f"largest scale-removed train loss, same path: {peaks}"


def scale_is_read(result: dict) -> dict[str, list]:
    """C5, without LN, on the same path: the scale-removed train loss from T_train on.

    In this order: its value at T_train, its peak before T, its end. None where T_train never came; of the end also where T
    never did. No LN is that of the decay sweep at lambda = 1, which trains on enough pairs to generalise within the budget.
    """
    numbers = {"least removed / train loss": [], "peak before T, nats": [], "peak / at T_train": [], "end / peak": []}
    cell = result["cells"]["weight_decay=1"]
    for curve, fitted, t in by_seed(cell["seeds"], cell["times"]["t_train"], came(cell)):
        generalised = t is not None and t[1]
        values, losses = (after(curve, key, fitted) for key in ("train_unit_loss", "train_loss"))
        before = after(curve, "train_unit_loss", fitted, t[0] if generalised else math.inf)
        row = [None] * 4
        if before:
            row = [min(map(_over, values, losses)), max(before), _over(max(before), before[0])]
            row.append(_over(values[-1], max(before)) if generalised else None)
        for column, number in zip(numbers.values(), row, strict=True):
            column.append(number)
    return numbers


def _over(a: float, b: float) -> float:
    return a / b if b else math.inf


def gap(curve: dict, key: str, other: str) -> float:
    """Largest distance between two curves of one seed, where both are known."""
    pairs = zip(curve[key], curve[other], strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def scale_note(result: dict) -> str:
    cell = result["cells"]["weight_decay=1"]
    moved = max(gap(curve, "train_mean_norm_loss", "train_loss") for curve in cell["seeds"])
    ends = digits(at_end("train_unit_loss")(cell))
    return (
        f"at the end {ends}; {crossings(result['cells'], ['weight_decay=1'])}; with the mean of ||y|| kept, the train loss "
        f"moves by at most {moved:.2f}: what counts is the mean scale"
    )


START = 100
"""Step from which C6 looks at the scale-removed loss."""


def paths_of_scale(result: dict) -> dict[str, list]:
    """C6, on the same path: M's scale-removed train loss from T on (median) over that at step 100; of A^v's from step 100 on
    the largest over the least, whether it rises or falls. None where that placement has not generalised."""
    numbers = {"M, after T / at step 100": [], "A^v, largest / least": []}
    for name, column in zip(("mlp-pre", "attn-pre-v"), numbers.values(), strict=True):
        for curve, t in by_seed(result["cells"][name]["seeds"], came(result["cells"][name])):
            values = after(curve, "train_unit_loss", START)
            late = after(curve, "train_unit_loss", t[0]) if t is not None and t[1] else []
            if not late or not values:
                column.append(None)
            elif name == "mlp-pre":
                column.append(_over(float(np.median(late)), from_on(curve, "train_unit_loss", START)))
            else:
                column.append(_over(max(values), min(values)))
    return numbers


def paths_note(result: dict) -> str:
    """What the authors' mode says, and that M on its own path is exact."""
    cells = {name: result["cells"][name] for name in ("mlp-pre", "attn-pre-v")}

    def ends(cell: dict) -> list:
        starts = [from_on(curve, "train_code_loss", START) for curve in cell["seeds"]]
        return [start and c["train_code_loss"][-1] / start for start, c in by_seed(starts, cell["seeds"])]

    exact = max(gap(curve, "train_unit_loss", "train_loss") for curve in cells["mlp-pre"]["seeds"])
    return (
        f"as the authors ran it, all norms dropped, end / at step 100: {by_cell(cells, ends)}; on the same path M's is its "
        f"train loss (within {exact:.1g})"
    )


CLAIMS = [
    Claim("C5", "No LN relies on the scale of the MLP's input: without it the train loss is high, rises from T_train to a peak "
          "before T and falls while grokking.", source="Fig 3a", presets=ALL, needs=("wd_sweep/sr_train_no_ln",),
          paper="3.36 at 200, 6.10 at 4000, 3.28 at the end: rises by 82%, falls by 46%", number=scale_is_read,
          above={"least removed / train loss": 10, "peak before T, nats": 1, "peak / at T_train": 1.2},
          below={"end / peak": 0.8}, note=scale_note),
    Claim("C6", "Until they have generalised, M lowers the scale-removed loss and A^v keeps it flat.", source="Fig 3a",
          presets=ALL, paper="all norms dropped: M 4.27 to 2.68, A^v 4.48 to 5.04", number=paths_of_scale,
          below={"M, after T / at step 100": 0.75, "A^v, largest / least": 1.33}, note=paths_note),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
