"""Covariance of the weights among draws near a checkpoint: within heads, between heads, between layers (the authors' covariance
estimators; not in a figure of arXiv 2402.02364).

Where the loss is flat a weight has the variance 1 / gamma. Curvature lowers it; a direction with more has negative curvature,
or a gradient whose noise from minibatch to minibatch is large along it. A few hundred draws of thousands of weights have
large eigenvalues by chance alone, so each number stands beside that of the same chains without a loss: same noise, same steps.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from common import experiment, plotting
from common.config import UserError
from common.device import generator
from common.limits import Count, Distinct, Natural
from common.replicas import Replicas
from icl_landscape.analysis._grid import Grid, first_seeds
from icl_landscape.analysis._llc import check_memory, chosen, loss_of, minibatches, sharpest
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import sample
from icl_landscape.sgmcmc.chains import Chains, by_replicas
from icl_landscape.sgmcmc.covariance import Factor, Running, eigenpairs, head_weights, tensor_weights
from icl_landscape.sgmcmc.settings import mask


@dataclass
class Settings(Grid):
    parts: Annotated[list[Literal["query", "key", "value", "output"]], Distinct(1)] = field(
        default_factory=lambda: ["query", "key", "value"]
    )
    """Weights of a head that count: rows of its three matrices, and its columns of the output matrix."""
    top: Count = 5
    """Largest eigenvalues told of every head."""
    small: Natural = 400
    """Tensors of at most so many weights are looked at too, each as a whole: LayerNorms, biases, embedding, unembedding."""

    def __post_init__(self):
        super().__post_init__()
        if self.sampling.draws < 2:
            raise ValueError(f"found {self.sampling.draws} sampling.draws, expected 2 or more for a covariance")

    def steps(self, trained: Trained) -> list[int]:
        """The last checkpoint, or those of `at`."""
        return super().steps(trained) if self.at else trained.steps[-1:]


@dataclass
class Draws:
    """What chains left."""

    kept: Tensor
    """Weights of all heads (draws, C, heads x weights of a head), head by head, of chains that did not diverge."""
    tensors: dict[str, Tensor]
    """Small tensors' names -> covariance (n, n)."""
    chains: int
    """Chains that did not diverge."""


def step_size(trained: Trained, settings: Grid, seed: int, stack: Replicas) -> float:
    """That of `_llc.measure` at a checkpoint, a stack of one row."""
    sampling = settings.sampling
    if not settings.stability:
        return sampling.epsilon
    law = trained.tasks[trained.seeds.index(seed)]
    held = sample(trained.data, law, settings.sharpness, generator(trained.device, 0, "sharpness"))
    largest = float(sharpest(stack, loss_of(settings), held.x, held.y, settings.iterations)[0])
    return settings.stability / (sampling.nbeta * max(largest, 0.0) + sampling.gamma + sampling.prior)


def chains_of(trained: Trained, settings: Grid, seed: int, step: int, epsilon: float, loss: bool = True) -> Chains:
    """Chains from a checkpoint, as `_llc.measure` makes them; or the same without a loss: same noise, gradient 0."""
    model, sampling = trained.model(seed, step), replace(settings.sampling, reference="full")
    moving = Replicas([model] * sampling.chains)
    rates = {"epsilon": torch.full((sampling.chains,), epsilon, device=trained.device)}
    still = chosen(moving, sampling)
    if loss:
        draw, streams, _ = minibatches(trained, settings, seed, 1)
        differentiate, parts = by_replicas(moving, loss_of(settings)), trained.data.K
    else:
        draw, streams, differentiate, parts = (lambda: None), [], flat_loss, 1
    return Chains(moving.flat, differentiate, draw, sampling, parts=parts, generators=streams, mask=still, rates=rates)


def flat_loss(params: Tensor, batch) -> tuple[Tensor, Tensor]:
    """Loss 0 (C,) and its gradient (C, P)."""
    return params.new_zeros(len(params)), torch.zeros_like(params)


def collect(chains: Chains, places: Tensor, tensors: dict[str, Tensor]) -> Draws:
    """Run the chains. places: weights (n,) kept of every draw; tensors: name -> places of weights with a running covariance."""
    settings, flat = chains.settings, chains.sampler.flat
    kept = flat.new_empty(settings.draws, len(flat), len(places))
    running = {name: Running(flat, own) for name, own in tensors.items()}
    for _ in range(settings.burn_in):
        chains.advance()
    for draw in range(settings.draws):
        for _ in range(settings.every):
            chains.advance()
        kept[draw] = flat.detach()[:, places]
        for one in running.values():
            one.update(flat.detach())
    sound = chains.sampler.died < 0
    if not sound.any():
        raise UserError(
            "found every chain diverged, expected one that did not; lower --stability or --sampling.epsilon"
        )
    told = {name: one.covariance(sound).cpu() for name, one in running.items()}
    return Draws(kept[:, sound].cpu(), told, int(sound.sum()))


def layout(trained: Trained, settings: Settings, shapes: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Places of all heads' weights (layers x H, weights of a head), and small tensors' names -> places; only of what moves.

    Raises UserError where a part of the heads is not in the model, or does not move.
    """
    model, still = trained.config.model, mask(shapes, settings.sampling)
    try:
        heads = [
            torch.cat(list(head_weights(shapes, model.heads, layer, head, settings.parts).values()))
            for layer in range(model.layers)
            for head in range(model.heads)
        ]
    except ValueError as error:
        raise UserError(f"{error}; give other --parts") from None
    places = torch.stack(heads)
    if still is not None and not still[places].all():
        raise UserError(
            "found weights of heads that do not move, expected all; give other --parts or --sampling.include"
        )
    small = {name: tensor_weights(shapes, name) for name, size in shapes.items() if size.numel() <= settings.small}
    return places, {name: own for name, own in small.items() if still is None or still[own].all()}


def spectra(draws: Draws, settings: Settings, layers: int, heads: int) -> dict:
    """Numbers of one set of draws: those of `analyse`, without seeds and checkpoints."""
    per_head = [Factor.of(part) for part in draws.kept.chunk(layers * heads, 2)]
    per_layer = [Factor.of(part) for part in draws.kept.chunk(layers, 2)]
    first, rest = per_head[:heads], per_head[heads : 2 * heads]
    return {
        "within": [factor.eigenpairs(settings.top).values.tolist() for factor in per_head],
        "trace": [float(factor.trace) for factor in per_head],
        "between": [[float(one.norm(other)) for other in rest] for one in first],
        "layers": [[float(one.norm(other)) for other in per_layer] for one in per_layer],
        "tensors": {name: float(eigenpairs(part, 1).values[0]) for name, part in draws.tensors.items()},
    }


def measure(trained: Trained, settings: Settings, seed: int, step: int) -> dict:
    """Chains of one checkpoint and their spectra, see `analyse`."""
    stack = Replicas([trained.model(seed, step)])
    places, tensors = layout(trained, settings, stack.shapes)
    epsilon = step_size(trained, settings, seed, stack)
    told = {"epsilon": epsilon}
    for name, loss in (("loss", True), ("none", False)):
        draws = collect(chains_of(trained, settings, seed, step, epsilon, loss), places.flatten(), tensors)
        model = trained.config.model
        told[name] = spectra(draws, settings, model.layers, model.heads) | {"chains": draws.chains}
    return told


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T), heads (names, block by block, from 1), flat_variance (1 / (gamma + prior)); cells (S, T), each with
    epsilon (the step size) and, for chains on the `loss` and on `none`: within (heads, top), the largest eigenvalues of a
    head's covariance; trace (heads), the sum of its variances; between (H, H), the largest singular value of the
    cross-covariance of a head of block 1 with one of block 2; layers (L, L), the same for all heads of a block at once, with
    eigenvalues on the diagonal; tensors, name -> largest eigenvalue; chains, those that did not diverge. Squared units of the
    weights."""
    check_memory(trained, settings, 1)
    trained, model = first_seeds(trained, settings.seeds), trained.config.model
    steps, sampling = settings.steps(trained), settings.sampling
    return {
        "steps": steps,
        "heads": [f"{layer + 1}:{head + 1}" for layer in range(model.layers) for head in range(model.heads)],
        "flat_variance": 1 / pull if (pull := sampling.gamma + sampling.prior) else None,
        "cells": [[measure(trained, settings, seed, step) for step in steps] for seed in trained.seeds],
    }


def last(result: dict, kind: str, key: str) -> np.ndarray:
    """A number at the last checkpoint, of every seed: (S, ...)."""
    return np.asarray([seed[-1][kind][key] for seed in result["cells"]])


def draw(result: dict):
    """Largest eigenvalue of every head, with the loss and without; largest singular value between heads over that without."""
    fig, (left, right) = plotting.axes(2, height=2.6)
    names = result["heads"]
    for kind, label, color in (("loss", "with the loss", "model"), ("none", "without a loss", "chance")):
        values = last(result, kind, "within")[:, :, 0]
        plotting.seed_dots(left, dict(zip(names, values.T.tolist(), strict=True)), plotting.PALETTE[color], label)
    left.set(xlabel="head", ylabel="largest eigenvalue", ylim=(0, 1.1 * max(left.get_ylim()[1], 1e-9)))
    left.legend(fontsize=6)
    ratio = last(result, "loss", "between").mean(0) / last(result, "none", "between").mean(0)
    if ratio.size:
        drawn = plotting.heatmap(right, ratio - 1, signed=True)
        count = len(ratio)
        right.set_xticks(range(count), names[count : 2 * count])
        right.set_yticks(range(count), names[:count])
        right.set(xlabel="head of block 2", ylabel="head of block 1")
        fig.colorbar(drawn, ax=right, label="over that without a loss, less 1")
    else:
        right.set_axis_off()
    return fig


def finding(result: dict) -> str:
    ratios = (last(result, "loss", "within") / last(result, "none", "within"))[:, :, 0].mean(0)
    most, least = int(ratios.argmax()), int(ratios.argmin())
    told = (
        f"largest eigenvalue of a head's covariance over that without a loss: {ratios[most]:.4f} for head "
        f"{result['heads'][most]}, {ratios[least]:.4f} for {result['heads'][least]}"
    )
    between = last(result, "loss", "between") / last(result, "none", "between")
    return f"{told}; between heads of blocks 1 and 2 at most {between.mean(0).max():.4f}" if between.size else told


if __name__ == "__main__":
    experiment.main(__name__)
