"""Collapse of the LayerNorms' gains along training, layer by layer (paper appendices D.3.3 and D.3.4)."""

import common.process  # noqa: F401

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from common import experiment, plotting
from common.claims import Claim
from common.config import UserError
from common.replicas import Replicas
from icl_landscape.analysis._curves import along, draw_curve, first, over_training
from icl_landscape.analysis._presets import LONG
from icl_landscape.estimators.structure import collapsed, layer_norm_statistics
from icl_landscape.evaluate import Probe, Trained

UNEMBEDDING, PRE_ATTENTION = "unembedding", "block 1 pre-attention"
PASSED = 0.25
"""A layer has collapsed where more than this fraction of its gains is below 0.1 in size."""


@dataclass
class Settings(Probe):
    pass


def norms(layers: int) -> dict[str, str]:
    """Every LayerNorm's name in words -> the prefix of its parameters, in the order of the forward pass."""
    blocks = {
        f"block {n + 1} pre-{what}": f"blocks.{n}.{part}"
        for n in range(layers)
        for part, what in (("norm1", "attention"), ("norm2", "MLP"))
    }
    return {**blocks, UNEMBEDDING: "norm"}


def measure(prefixes: list[str], stack: Replicas, times: int) -> dict[str, torch.Tensor]:
    """What `analyse` tells of some checkpoints, (times S, layers) each."""
    told = {}
    for what, part in (("gain", "weight"), ("bias", "bias")):
        values = torch.stack([stack.params[f"{prefix}.{part}"] for prefix in prefixes], 1)
        told |= {f"{what}_{name}": value for name, value in layer_norm_statistics(values).items()}
        if what == "gain":
            told["collapsed"] = collapsed(values)
    return told


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: layers (names); steps (T); per seed, checkpoint and layer (S, T, layers): collapsed (fraction of gains with
    |gamma| < 0.1), and norm, abs_std (of sizes), std, mean, max, min of gains and biases, as gain_norm, bias_norm, ...

    Raises UserError for a run without LayerNorms.
    """
    if not trained.config.model.layer_norm:
        raise UserError(
            f"found no LayerNorm in {trained.run.path} (model.layer_norm is off), expected a run that has them; "
            "train one with --model.layer_norm true --name NEW"
        )
    names = norms(trained.config.model.layers)
    with torch.no_grad():
        curves = along(trained, settings.steps(trained), partial(measure, list(names.values())))
    return {"layers": list(names), **curves}


def fraction(result: dict, seed: int, layer: str) -> np.ndarray:
    """Fraction of collapsed gains of a layer over training (T,)."""
    return np.asarray(result["collapsed"][seed])[:, result["layers"].index(layer)]


def others(result: dict, *known: str) -> list[str]:
    """The layers but for those named."""
    return [layer for layer in result["layers"] if layer not in known]


def unembedding_collapses(result: dict) -> dict[str, list]:
    """Per seed at the end: the fraction of collapsed gains before the unembedding, and by how much it exceeds all others."""
    own = [float(fraction(result, n, UNEMBEDDING)[-1]) for n in range(len(result["collapsed"]))]
    rest = [max(fraction(result, n, name)[-1] for name in others(result, UNEMBEDDING)) for n in range(len(own))]
    return {
        "fraction before the unembedding": own,
        "less that of the most collapsed other": [float(a - b) for a, b in zip(own, rest, strict=True)],
    }


def passes(result: dict, seed: int, layer: str) -> float:
    """The first checkpoint with more than a quarter of the gains collapsed; inf without one."""
    return first(result["steps"], fraction(result, seed, layer), lambda value: value > PASSED)


def earlier(one: float, other: float) -> float | None:
    """one / other of two steps: 0 where only the other never comes, inf where only the one never comes, None for both."""
    if one == other == math.inf:
        return None
    return one / other if one < math.inf else math.inf


def collapses_in_order(result: dict) -> dict[str, list]:
    """Per seed the step of the unembedding over that of the first block's pre-attention norm (None where the latter has not
    come: the order is open), and the latter over the first of all other layers."""
    ratios = {"unembedding / block 1 pre-attention": [], "block 1 pre-attention / any other": []}
    for seed in range(len(result["collapsed"])):
        top, low = (passes(result, seed, layer) for layer in (UNEMBEDDING, PRE_ATTENTION))
        rest = [passes(result, seed, layer) for layer in others(result, UNEMBEDDING, PRE_ATTENTION)]
        values = (None if low == math.inf else earlier(top, low), earlier(low, min(rest, default=math.inf)))
        for column, value in zip(ratios.values(), values, strict=True):
            column.append(value)
    return ratios


def draw(result: dict):
    """By layer over training: fraction of gains below 0.1, mean and standard deviation of gains, norm of gains and biases."""
    keys = {
        "collapsed": r"fraction $|\gamma| < 0.1$", "gain_norm": r"norm of $\gamma$", "bias_norm": r"norm of $\beta$",
        "gain_mean": r"mean of $\gamma$", "gain_std": r"std of $\gamma$", "gain_abs_std": r"std of $|\gamma|$",
    }  # fmt: skip
    fig, axes = plotting.axes(3, 2, height=4.2)
    for ax, (key, label) in zip(axes.flatten(), keys.items(), strict=True):
        for i, color in zip(range(len(result["layers"])), plotting.ordered(len(result["layers"])), strict=True):
            draw_curve(ax, result, key, result["layers"][i], color, lambda seed, i=i: seed[:, i])
        over_training(ax, label)
    axes[0, 0].set_ylim(0, 1)
    axes[0, 0].legend(fontsize=5)
    return fig


def finding(result: dict) -> str:
    last = np.asarray([seed[-1] for seed in result["collapsed"]]).mean(0)
    told = ", ".join(f"{name} {value:.2f}" for name, value in zip(result["layers"], last, strict=True))
    return f"fraction of gains below 0.1 at the end: {told}"


CLAIMS = [
    Claim("C8", "After LR2 the LayerNorms collapse, that before the unembedding most.", source="appendices D.3.3, D.3.4",
          paper="unembedding 0 at the end of LR2, 0.48 at that of LR3, 0.94 at the end; block 1 pre-attention 0.52 there",
          presets=LONG, number=unembedding_collapses,
          above={"fraction before the unembedding": 0.3, "less that of the most collapsed other": 0.0}),
    Claim("C9", "The LayerNorm before the unembedding collapses first, then that before the first attention.",
          source="appendices D.3.3, D.3.4", paper="unembedding from 86k to 126k, block 1 pre-attention from 126k to 202k",
          presets=LONG, number=collapses_in_order,
          below={"unembedding / block 1 pre-attention": 1.0, "block 1 pre-attention / any other": 1.0}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
