"""How sharp attention is along training, in four ways of counting (paper Fig 3c; sheet C9)."""

import math

import torch

from common import plotting
from layernorm_grok.analysis._driver import Probe, along, draw_lives, perform
from layernorm_grok.entropy import attention_entropies, attention_output_rank
from layernorm_grok.evaluate import Trained
from layernorm_grok.reference import trace

MODES = {
    "paper": "averaged over heads, then entropy; all rows",
    "per_head_all": "per head, all rows",
    "per_head_last": "per head, the row that is used",
}


def measure_of(trained: Trained):
    """Entropies in nats of the last layer over the train pairs, and the effective rank of attention's output."""
    train = {seed: trained.pairs(seed)[0] for seed in trained.seeds}

    @torch.no_grad()
    def measure(model, name: str, seed: int) -> dict:
        seen = trace(model, train[seed])
        found = attention_entropies(model, seen)
        by_layer = {f"{mode}_{i}": v for mode, values in found.items() for i, v in enumerate(values) if len(values) > 1}
        last = {mode: values[-1] for mode, values in found.items()}
        return last | by_layer | {"output_rank": attention_output_rank(seen)[-1]}

    return measure


def analyse(trained: Trained, settings: Probe) -> dict:
    """Curves per cell and seed; uniform attention over three tokens has ln 3."""
    cells = along(trained, settings, measure_of(trained), "the development of attention")
    for name, cell in cells.items():
        cell["first"] = trained.times(name)["first"]
    return {"cells": cells, "uniform": math.log(3)}


def draw(result: dict):
    """Three modes of the entropy, and the effective rank of what attention writes."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.4)
    for ax, (mode, title) in zip(axes.flat, MODES.items(), strict=False):
        draw_lives(ax, cells, mode)
        ax.axhline(result["uniform"], color=plotting.GREY, lw=0.6, ls="--")
        ax.set(title=title, xlabel="step", ylabel="entropy (nats)", xscale="symlog", ylim=(0, 1.15))
        ax.set_xlim(left=0)
    draw_lives(axes[1, 1], cells, "output_rank")
    axes[1, 1].set(
        title="attention's output at the last position", xlabel="step", ylabel="effective rank", xscale="symlog"
    )
    axes[1, 1].set_xlim(left=0)
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    ends = ((n, [c["paper"][-1] for c in cell["seeds"]]) for n, cell in result["cells"].items())
    return "entropy at the end (head-averaged; uniform 1.099): " + "; ".join(
        f"{name} {'/'.join(f'{v:.2f}' for v in values)}" for name, values in ends
    )


if __name__ == "__main__":
    perform("attention_entropy", Probe, analyse, draw, finding)
