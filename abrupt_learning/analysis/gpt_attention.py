"""Where the decoder looks before and after its drop (paper Fig 12): [SEP] first, the cell's own copy later."""

from dataclasses import dataclass

import torch
from torch import Tensor

from abrupt_learning.analysis import gpt
from abrupt_learning.analysis._judging import ALL
from abrupt_learning.evaluate import Trained
from abrupt_learning.gpt import sequence
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.experiment import over_seeds


@dataclass
class Settings(gpt.Settings):
    matrices: int = 256
    """Matrices the maps are averaged over."""
    before: float = 0.5
    """Step of the earlier map, as a share of the drop (the paper: step 200, and 600 for the later)."""


def maps(model, ids: Tensor) -> Tensor:
    """Attention averaged over the batch: (L, H, 2N, 2N)."""
    seen = []
    with torch.no_grad():
        model(ids, lambda site, layer, value: (seen.append(value.mean(0)), value)[1])
    return torch.stack(seen)


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
        seen = {moment: maps(trained.model(seed, step), ids) for moment, step in steps.items()}
        shown = shown or {moment: (m * 1e4).round().div(1e4).tolist() for moment, m in seen.items()}
        rows.append({moment: scores(m) | {"step": steps[moment]} for moment, m in seen.items()})
    cells = ids.shape[1] // 2
    return {"cells": cells, "chance": 1 / (1.5 * cells), "scores": over_seeds(rows), "maps": shown}


def draw(result: dict):
    """Every head's map before the drop and after it."""
    layers, heads = len(result["maps"]["after"]), len(result["maps"]["after"][0])
    fig, axs = plotting.axes(ncols=2 * heads, nrows=layers, width=6.5, height=1.7 * layers + 0.3, squeeze=False)
    for side, moment in enumerate(("before", "after")):
        for layer in range(layers):
            for head in range(heads):
                ax = axs[layer][side * heads + head]
                plotting.heatmap(ax, result["maps"][moment][layer][head])
                ax.axvline(result["cells"], color=plotting.GREY, lw=0.4)
                ax.axhline(result["cells"], color=plotting.GREY, lw=0.4)
                identity = result["scores"][moment]["identity"][layer][head]["values"][0]
                ax.set_title(f"{moment}, layer {layer + 1} head {head + 1}\nown cell {identity:.2f}", fontsize=6.5)
                ax.set(xticks=[], yticks=[])
    for row in axs:
        row[0].set_ylabel("query")
    for ax in axs[-1]:
        ax.set_xlabel("key")
    return fig


def finding(result: dict) -> str:
    def best(moment: str) -> float:
        return max(head["mean"] for layer in result["scores"][moment]["identity"] for head in layer)

    return f"attention to a cell's own masked copy, best head: {best('before'):.2f} before the drop, {best('after'):.2f} after"


LATE, EARLY = "best head's attention to the same cell", "that before the drop / after it"


def same_cell(result: dict) -> dict[str, list]:
    after, before = (
        [
            max(seed)
            for seed in by_seed(*(head["values"] for layer in result["scores"][at]["identity"] for head in layer))
        ]
        for at in ("after", "before")
    )
    return {LATE: after, EARLY: [early / late for early, late in by_seed(before, after)]}


CLAIMS = [
    Claim("C29", "After GPT's drop, and not before it, a head attends to the same cell of the input.", source="Fig 12",
          presets=ALL, needs=("gpt/gpt_attention",), number=same_cell, above={LATE: 0.5}, below={EARLY: 0.5}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
