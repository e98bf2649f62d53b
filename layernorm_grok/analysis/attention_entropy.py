"""How sharp attention is along training, in three ways of counting (paper Fig 3c)."""

import common.process  # noqa: F401

import math

import torch

from common import experiment, plotting
from common.claims import Claim, by_seed
from layernorm_grok.analysis._compare import ALL, cells_of
from layernorm_grok.analysis._lives import after, along, at_end, by_cell, digits, draw_lives
from layernorm_grok.estimators.entropy import attention_entropies, attention_output_rank
from layernorm_grok.estimators.trace import trace
from layernorm_grok.evaluate import Probe as Settings
from layernorm_grok.evaluate import Trained

MODES = {
    "paper": "averaged over heads, then entropy; all rows",
    "per_head_all": "per head, all rows",
    "per_head_last": "per head, the row that is used",
}


@torch.no_grad()
def measure(trained: Trained, model, name: str, seed: int) -> dict:
    """Entropies in nats of the last layer over the train pairs, also by layer; effective rank of attention's output."""
    seen = trace(model, trained.pairs[seed][0])
    modes = attention_entropies(model, seen)
    by_layer = {f"{mode}_{i}": v for mode, values in modes.items() for i, v in enumerate(values) if len(values) > 1}
    last = {mode: values[-1] for mode, values in modes.items()}
    return last | by_layer | {"output_rank": attention_output_rank(seen)[-1]}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along`: an entropy per mode, and output_rank), uniform (ln 3, of three tokens)."""
    cells = along(trained, settings, measure, "the development of attention")
    return {"cells": cells, "uniform": math.log(3)}


def draw(result: dict):
    """Three modes of the entropy, and the effective rank of what attention writes."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.4)
    for ax, (mode, title) in zip(axes.flat, MODES.items(), strict=False):
        draw_lives(ax, cells, mode, title=title, ylabel="entropy (nats)", xscale="symlog", ylim=(0, 1.15))
        ax.axhline(result["uniform"], color=plotting.GREY, lw=0.6, ls="--")
    title = "attention's output at the last position"
    draw_lives(axes[1, 1], cells, "output_rank", title=title, ylabel="effective rank", xscale="symlog")
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    return f"entropy at the end (head-averaged; uniform 1.099): {by_cell(result['cells'], at_end('paper'))}"


LATE = 200
"""Step from which C9 takes its means: the first of the paper's."""


def mean_after(curve: dict, mode: str, until: float = math.inf) -> float | None:
    """Mean of one seed's curve from step 200 on; None where it ends before."""
    values = after(curve, mode, LATE, until)
    return sum(values) / len(values) if values else None


def sharper(result: dict, mode: str = "paper") -> list[float | None]:
    """Per seed the mean entropy of No LN less A^qk's, in nats, over the steps from 200 on that both lived."""
    gaps = []
    for curves in by_seed(*(cell["seeds"] for cell in cells_of(result, ("off", "attn-pre-qk")))):
        until = min(curve["steps"][-1] for curve in curves)
        off, qk = (mean_after(curve, mode, until) for curve in curves)
        gaps.append(None if None in (off, qk) else off - qk)
    return gaps


def entropies(result: dict) -> dict[str, list]:
    """C9, head-averaged as in the paper: `sharper`, and M's mean from step 200 on over ln 3."""
    means = [mean_after(curve, "paper") for curve in result["cells"]["mlp-pre"]["seeds"]]
    return {
        "No LN less A^qk, nats": sharper(result),
        "M / ln 3": [mean and mean / result["uniform"] for mean in means],
    }


CLAIMS = [
    Claim("C9", "From step 200 on A^qk has lower attention entropy than No LN; M's is nearly uniform.", source="Fig 3c",
          presets=ALL, paper="at 1000: No LN .768, A^qk .603, M 1.098; at the end .964, .770, 1.0986", number=entropies,
          above={"No LN less A^qk, nats": 0.05, "M / ln 3": 0.95},
          note=lambda r: f"per head, on the row that is used, No LN less A^qk: {digits(sharper(r, 'per_head_last'))}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
