"""Does the model read the scale of the MLP's input? Loss with it removed, in three modes (paper Fig 3a)."""

import common.process  # noqa: F401

import math

import numpy as np
import torch

from common import experiment, plotting
from common.claims import Claim, by_seed
from layernorm_grok.analysis._compare import ALL, by_name, came, cells_of, crossings
from layernorm_grok.analysis._lives import after, along, at_end, by_cell, digits, draw_lives, from_on
from layernorm_grok.estimators.scale_removed import MODES, norm_variation, scale_removed
from layernorm_grok.evaluate import Probe as Settings
from layernorm_grok.evaluate import Trained
from layernorm_grok.losses import cross_entropy

TITLES = {
    "code": "y / ||y||, all norms dropped (as the authors ran it)",
    "unit": "y / ||y||, same path",
    "mean_norm": "y mean||y|| / ||y||, same path",
}


@torch.no_grad()
def measure(trained: Trained, model, name: str, seed: int) -> dict:
    """Loss and accuracy on train and test pairs under every mode, and how the norm of the MLP's input varies."""
    alpha, numbers = trained.cell(name).alpha, {}
    for side, rows in zip(("train", "test"), trained.pairs[seed], strict=True):
        offset, targets = trained.offset(name, seed, rows), trained.targets[rows]
        logits = alpha * (model(rows).logits - offset)
        numbers[f"{side}_loss"] = float(cross_entropy(logits, targets).double().mean())
        for mode in MODES:
            values = scale_removed(model, rows, targets, alpha, mode, offset)
            numbers |= {f"{side}_{mode}_{key}": value for key, value in values.items()}
    norms = norm_variation(model, trained.pairs[seed][0])
    return numbers | {"norm": norms["mean"][-1], "variation": norms["variation"][-1]}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along`: of train and test the loss, and <side>_<mode>_loss and _accuracy with the scale
    removed in each mode; norm and variation of the MLP's input)."""
    return {"cells": along(trained, settings, measure, "the development of the scale-removed loss")}


def draw(result: dict):
    """The three modes on the train pairs, and the mean norm of the MLP's input."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.4)
    for ax, (mode, title) in zip(axes.flat, TITLES.items(), strict=False):
        draw_lives(ax, cells, f"train_{mode}_loss", title=title, ylabel="scale-removed train loss", yscale="symlog")
    draw_lives(axes[1, 1], cells, "norm", title="scale that is removed", ylabel="mean ||y||", yscale="log")
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    peaks = by_cell(result["cells"], lambda cell: [max(c["train_unit_loss"]) for c in cell["seeds"]], ".1f")
    return f"largest scale-removed train loss, same path: {peaks}"


SWEPT = "weight_decay=1"


def scale_is_read(result: dict) -> dict[str, list]:
    """C5, without LN, on the same path: the scale-removed train loss from T_train on.

    In this order: its value at T_train, its peak before T, its end. None where T_train never came; of the end also where T
    never did. No LN is that of the decay sweep at lambda = 1, which trains on enough pairs to generalise within the budget.
    """
    rows, cell = [], result["cells"][SWEPT]
    for curve, fitted, t in by_seed(cell["seeds"], cell["times"]["t_train"], came(cell)):
        values, losses = (after(curve, key, fitted) for key in ("train_unit_loss", "train_loss"))
        before = after(curve, "train_unit_loss", fitted, t[0] if t and t[1] else math.inf)
        if before:
            peak = max(before)
            end = _over(values[-1], peak) if t and t[1] else None
            rows.append((min(map(_over, values, losses)), peak, _over(peak, before[0]), end))
        else:
            rows.append((None,) * 4)
    return by_name(("least removed / train loss", "peak before T, nats", "peak / at T_train", "end / peak"), rows)


def _over(a: float, b: float) -> float:
    return a / b if b else math.inf


def gap(cell: dict, key: str) -> float:
    """Largest distance of a curve from the train loss over all seeds, where both are known."""
    pairs = (pair for curve in cell["seeds"] for pair in zip(curve[key], curve["train_loss"], strict=True))
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def scale_note(result: dict) -> str:
    cell = result["cells"][SWEPT]
    return (
        f"at the end {digits(at_end('train_unit_loss')(cell))}; {crossings(result, [SWEPT])}; with the mean of ||y|| kept, the "
        f"train loss moves by at most {gap(cell, 'train_mean_norm_loss'):.2f}: what counts is the mean scale"
    )


START = 100
"""Step from which C6 looks at the scale-removed loss."""
PATHS = ("mlp-pre", "attn-pre-v")


def since_start(cell: dict) -> list[tuple[list, list] | None]:
    """Per seed the scale-removed train loss from START on, and from T on; None where there is none, or T never came."""
    rows = []
    for curve, t in by_seed(cell["seeds"], came(cell)):
        values, late = (after(curve, "train_unit_loss", step) for step in (START, t[0] if t and t[1] else None))
        rows.append((values, late) if values and late else None)
    return rows


def paths_of_scale(result: dict) -> dict[str, list]:
    """C6, on the same path: M's scale-removed train loss from T on (median) over that at step 100; of A^v's from step 100 on
    the largest over the least, whether it rises or falls. None where that placement has not generalised."""
    m, value = map(since_start, cells_of(result, PATHS))
    return {
        "M, after T / at step 100": [row and _over(float(np.median(row[1])), row[0][0]) for row in m],
        "A^v, largest / least": [row and _over(max(row[0]), min(row[0])) for row in value],
    }


def paths_note(result: dict) -> str:
    """What the authors' mode says, and that M on its own path is exact."""

    def ends(cell: dict) -> list:
        starts = [from_on(curve, "train_code_loss", START) for curve in cell["seeds"]]
        return [start and end / start for start, end in by_seed(starts, at_end("train_code_loss")(cell))]

    exact = gap(result["cells"]["mlp-pre"], "train_unit_loss")
    return (
        f"as the authors ran it, all norms dropped, end / at step 100: {by_cell(result['cells'], ends, names=PATHS)}; on the "
        f"same path M's is its train loss (within {exact:.1g})"
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
