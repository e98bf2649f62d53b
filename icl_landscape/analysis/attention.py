"""What the heads look at along training: entropy, variability, and weights on the token itself, the one before it and the x
tokens, by head and token (paper appendix D.3.5)."""

import common.process  # noqa: F401

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from common import experiment, plotting
from common.claims import Claim
from common.config import UserError
from common.limits import Range
from common.replicas import Replicas
from icl_landscape.analysis._curves import along, first, over_training
from icl_landscape.analysis._presets import ALL
from icl_landscape.estimators.attention import MEASURES
from icl_landscape.evaluate import Probe, Trained, repeated
from icl_landscape.regression.data import Batch
from icl_landscape.regression.losses import token_losses

QUERIES = {"x": slice(2, None, 2), "y": slice(1, None, 2)}
"""Tokens by kind. The first x has nothing to choose from."""
PATTERNS = ("previous", "self", "x")
"""The special before the general: who looks at the previous token from a y looks at an x."""
TAKEN = 0.5
"""A head has a pattern where its weight there is more than half way from that of equal attention to 1."""
LR2 = 0.94
"""LR2 ends with this part of the loss's fall from its start on, as in the paper's run (2.27 of 2.42)."""


@dataclass
class Settings(Probe):
    sequences: Annotated[int, Range(2, 10**6)] = 512
    """Fixed sequences that every checkpoint of every seed sees."""


def with_all_tokens(trained: Trained) -> Trained:
    """The run with models that let all 2K - 1 tokens ask in every block: the same weights and predictions."""
    whole = copy.copy(trained)
    switched = replace(trained.config.model, last_block_at_x=False, drop_last_y=True)
    whole.config = replace(trained.config, model=switched)
    return whole


def look(model, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Predictions (..., B, K), and every measure of every block's attention (..., L, H, T)."""
    seen = []

    def hook(site: str, layer: int, value: Tensor) -> Tensor:
        if site == "attention":
            seen.append([of(value) for of in MEASURES.values()])
        return value

    predictions = model(x, y, hook)
    return predictions, *(torch.stack(blocks, -3) for blocks in zip(*seen, strict=True))


def measure(batch: Batch, stack: Replicas, times: int) -> dict[str, Tensor]:
    """What `analyse` tells of some checkpoints, (times S, ...) each."""
    own = repeated(batch, times)
    predictions, *values = stack.each(look, own.x, own.y)
    # To five digits: beyond them lies the error of a batch, and the file would be thrice as long
    told = {name: value.cpu().double().round(decimals=5) for name, value in zip(MEASURES, values, strict=True)}
    losses = token_losses(predictions, own.y).mean(-1)
    return {**told, "prior_score": predictions.double().square().mean((-2, -1)), "loss": losses}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); per seed, checkpoint, block, head and token (S, T, L, H, 2K - 1), tokens being x_1, y_1, x_2, ...:
    entropy (bits, over those of equal attention), variability, self, previous, x (weights), mean_index, hardness (see
    estimators.attention); prior_score and loss (S, T). heads: per seed those that end with a pattern, {head (block:number),
    queries (x or y), pattern, excess}. Raises UserError for runs with a single example."""
    if trained.data.K < 2:
        raise UserError(
            "found data.K 1, a token that can look at itself alone, expected 2 or more; train a run with --data.K 8 --name NEW"
        )
    batch = trained.sequences(settings.sequences)
    with torch.no_grad():
        curves = along(with_all_tokens(trained), settings.steps(trained), partial(measure, batch))
    return {**curves, "heads": [patterns(curves, seed) for seed in range(len(trained.seeds))]}


def by_kind(result: dict, key: str, seed: int) -> dict[str, np.ndarray]:
    """A measure's mean over the x and over the y queries: (T, heads) each, the heads of all blocks in order."""
    values = np.asarray(result[key][seed])
    return {kind: values[..., tokens].mean(-1).reshape(len(values), -1) for kind, tokens in QUERIES.items()}


def equal_attention(key: str, length: int) -> dict[str, float]:
    """The weight that attention to all tokens alike would have, as `by_kind` averages it."""
    k = np.arange(1, length + 1)
    values = (k + 1) // 2 / k if key == "x" else 1 / k
    return {kind: float(values[tokens].mean()) for kind, tokens in QUERIES.items()}


def excess(result: dict, key: str, seed: int) -> dict[str, np.ndarray]:
    """Weight beyond equal attention, 0 for that and 1 for all weight, by kind of query: (T, heads) each."""
    even = equal_attention(key, len(result[key][0][0][0][0]))
    return {kind: (v - even[kind]) / (1 - even[kind]) for kind, v in by_kind(result, key, seed).items()}


def names(result: dict) -> list[str]:
    """Every head as block:number, both from 1."""
    blocks = result["variability"][0][0]
    return [f"{block + 1}:{head + 1}" for block, heads in enumerate(blocks) for head in range(len(heads))]


def patterns(result: dict, seed: int) -> list[dict]:
    """Heads with a pattern at the last checkpoint: the first of PATTERNS whose excess passes TAKEN, by kind of query."""
    shares = {key: excess(result, key, seed) for key in PATTERNS}
    found = []
    for number, head in enumerate(names(result)):
        for kind in QUERIES:
            ends = {key: float(shares[key][kind][-1, number]) for key in PATTERNS}
            if pattern := next((key for key, value in ends.items() if value > TAKEN), None):
                found.append({"head": head, "queries": kind, "pattern": pattern, "excess": ends[pattern]})
    return found


def stage(result: dict, seed: int) -> tuple[int, int]:
    """Checkpoints, as indices, where LR2 starts (least prior score) and ends (most of the fall of the loss from there)."""
    start = int(np.argmin(result["prior_score"][seed]))
    later = np.asarray(result["loss"][seed])[start:]
    limit = later[0] - LR2 * (later[0] - later.min())
    end = first(range(start, start + len(later)), later, lambda loss: loss <= limit)
    # A seed that diverged has no loss that falls
    return start, int(min(end, start + len(later) - 1))


def falls(result: dict, seed: int) -> dict[str, np.ndarray]:
    """Variability at the end of LR2 over that at its start, by kind of query: (heads,) each."""
    start, end = stage(result, seed)
    return {kind: curve[end] / curve[start] for kind, curve in by_kind(result, "variability", seed).items()}


def settles(result: dict) -> list[float]:
    """Per seed the least of `falls` over heads and kinds of query."""
    return [float(min(np.min(v) for v in falls(result, seed).values())) for seed in range(len(result["variability"]))]


def told_heads(result: dict) -> str:
    """The heads that end with a pattern, in words."""
    rows = []
    for seed, heads in zip(result["seeds"], result["heads"], strict=True):
        text = ", ".join(f"{h['head']} {h['pattern']} from {h['queries']}" for h in heads) or "none"
        rows.append(f"seed {seed}: {text}")
    return f"heads with a pattern at the end: {'; '.join(rows)}"


def draw(result: dict):
    """Every measure by head, of x and of y queries, for the first seed; how far variability falls in LR2, for all."""
    fig, axes = plotting.axes(4, 4, height=6.6)
    axes = axes.flatten()
    panels = [(key, kind) for key in MEASURES for kind in QUERIES]
    blocks, heads = np.shape(result["variability"][0][0])[:2]
    styles = [((0, (1 + 3 * block, block)), color) for block in range(blocks) for color in plotting.ordered(heads)]
    for ax, (key, kind) in zip(axes, panels, strict=False):
        curves = by_kind(result, key, 0)[kind].T
        for head, curve, (dashes, color) in zip(names(result), curves, styles, strict=False):
            ax.plot(result["steps"], curve, color=color, linestyle=dashes, linewidth=1, label=head)
        over_training(ax, key.replace("_", " "), f"{kind} queries")
        ax.set_ylim(0, None)
    ratios = [np.sort(np.concatenate(list(falls(result, n).values()))) for n in range(len(result["seeds"]))]
    plotting.each_seed(axes[14], np.arange(1, len(ratios[0]) + 1), ratios, "each seed", plotting.INK)
    axes[14].axhline(0.5, color=plotting.GREY, linewidth=0.8)
    axes[14].set(xlabel="heads x queries, in order", ylabel="V, end / start of LR2", yscale="log")
    axes[15].axis("off")
    lines, labels = axes[0].get_legend_handles_labels()
    axes[15].legend(
        lines, labels, fontsize=6, ncols=2, title=f"block:head, seed {result['seeds'][0]}", title_fontsize=6
    )
    return fig


def finding(result: dict) -> str:
    least = ", ".join(f"{value:.2f}" for value in settles(result))
    return f"least variability at the end of LR2 over that at its start {least}; {told_heads(result)}"


CLAIMS = [
    Claim("C11", "In LR2 heads take fixed patterns.", source="appendix D.3.5",
          paper="in figures only: previous-token, self and x-token heads form in LR2, their variability falls", presets=ALL,
          number=settles, unit="least V of a head, end / start of LR2", below=0.5, note=told_heads),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
