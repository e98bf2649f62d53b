"""Where the decoder looks before and after its drop (paper Fig 12): [SEP] first, the cell's own copy later."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from abrupt_learning.analysis import gpt
from abrupt_learning.analysis._judging import ALL
from abrupt_learning.estimators.interventions import record
from abrupt_learning.evaluate import Matrices, Trained, rounded
from abrupt_learning.gpt import sequence
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.limits import Share


@dataclass
class Settings(gpt.Settings):
    matrices: Matrices = 256
    """Matrices the maps are averaged over."""
    before: Share = 0.5
    """Step of the earlier map, as a share of the drop (the paper: step 200, and 600 for the later)."""


def scores(attention: Tensor) -> dict[str, list]:
    """Per layer and head, over the positions that predict cells: attention to the same cell of the input, and to [SEP].

    Position N + j (0-based; N is [SEP]) predicts cell j, whose masked copy stands at position j.
    """
    cells = attention.shape[-1] // 2
    writers = attention[:, :, cells:, :]
    identity = writers[..., :cells].diagonal(dim1=-2, dim2=-1).mean(-1)
    return {"identity": identity.tolist(), "separator": writers[..., cells].mean(-1).tolist()}


def moments(trained: Trained, seed: int, share: float) -> dict[str, int]:
    """Checkpointed steps well before the drop and at the end."""
    target = share * (gpt.copy_step(trained, seed) or trained.steps[-1])
    earlier = [step for step in trained.steps if step <= target]
    return {"before": max(earlier, default=trained.steps[0]), "after": trained.steps[-1]}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells; chance (attention to one cell); scores -> before, after -> step, identity and separator -> layer -> head:
    {values, mean, error} over seeds; maps -> before, after (L, H, 2N, 2N) of the first seed.
    """
    ids = sequence(trained.matrices(settings.matrices), trained.data)
    rows, shown = [], {}
    for seed in trained.seeds:
        steps = moments(trained, seed, settings.before)
        models = {at: trained.model(seed, step) for at, step in steps.items()}
        seen = {at: record(model, ids, "attention")["attention"].mean(1) for at, model in models.items()}
        shown = shown or {at: rounded(m) for at, m in seen.items()}
        rows.append({at: scores(m) | {"step": steps[at]} for at, m in seen.items()})
    cells = ids.shape[1] // 2
    return {"cells": cells, "chance": 1 / (1.5 * cells), "scores": experiment.over_seeds(rows), "maps": shown}


def draw(result: dict):
    """Every head's map before the drop and after it."""
    layers, heads, cells = len(result["maps"]["after"]), len(result["maps"]["after"][0]), result["cells"]
    fig, axs = plotting.axes(2 * heads, layers, height=1.7 * layers + 0.3, squeeze=False)
    for (layer, column), ax in np.ndenumerate(axs):
        moment, head = ("before", "after")[column // heads], column % heads
        plotting.heatmap(ax, result["maps"][moment][layer][head])
        ax.axvline(cells, color=plotting.GREY, lw=0.4)
        ax.axhline(cells, color=plotting.GREY, lw=0.4)
        identity = result["scores"][moment]["identity"][layer][head]["values"][0]
        ax.set_title(f"{moment}, layer {layer + 1} head {head + 1}\nown cell {identity:.2f}", fontsize=6.5)
        ax.set(xticks=[], yticks=[], ylabel="" if column else "query", xlabel="key" if layer == layers - 1 else "")
    return fig


def best_head(result: dict, moment: str) -> list[float]:
    """Per seed the most attention of any head to the same cell."""
    return [max(seed) for seed in by_seed(*(h["values"] for row in result["scores"][moment]["identity"] for h in row))]


def finding(result: dict) -> str:
    before, after = (sum(seeds) / len(seeds) for seeds in (best_head(result, at) for at in ("before", "after")))
    return f"attention to a cell's own masked copy, best head: {before:.2f} before the drop, {after:.2f} after"


LATE, EARLY = "best head's attention to the same cell", "that before the drop / after it"


def same_cell(result: dict) -> dict[str, list]:
    after, before = (best_head(result, at) for at in ("after", "before"))
    return {LATE: after, EARLY: [early / late for early, late in by_seed(before, after)]}


CLAIMS = [
    Claim("C29", "After GPT's drop, and not before it, a head attends to the same cell of the input.", source="Fig 12",
          presets=ALL, needs=("gpt/gpt_attention",), number=same_cell, above={LATE: 0.5}, below={EARLY: 0.5}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
