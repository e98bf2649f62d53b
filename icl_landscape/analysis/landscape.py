"""The loss around checkpoints, in the plane in which chains move most: the first two principal components of their draws
(paper appendix on calibration, visualisations of sampling).

A random walk in many dimensions draws arcs in its own principal components too: arcs alone tell nothing of the loss.
"""

import common.process  # noqa: F401

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

from common import experiment, plotting
from common.device import generator
from common.limits import Count, Positive, Range
from common.replicas import Replicas
from icl_landscape.analysis._grid import Grid, first_seeds
from icl_landscape.analysis._llc import loss_of, minibatches, sharpest, with_sampling
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import Batch, sample
from icl_landscape.sgmcmc.chains import Chains, by_replicas
from icl_landscape.sgmcmc.settings import mask

COMPONENTS = 3


@dataclass
class Settings(Grid):
    cells: Annotated[int, Range(2, 200)] = 10
    """Losses along each side of the plane."""
    sequences: Count = 512
    """Fixed sequences that the loss is measured on."""
    reach: Positive = 1.5
    """Half of a side, over the farthest that a draw or w* lies from the draws' mean along that component."""


@dataclass
class Plane:
    """The plane of the first two principal components of points (N, P)."""

    centre: Tensor
    """Mean of the points (P,)."""
    axes: Tensor
    """Unit vectors (2, P)."""
    explained: list[float]
    """Shares of the variance of the first COMPONENTS components."""

    @classmethod
    def of(cls, points: Tensor) -> "Plane":
        """From the Gram matrix of the points in double: there are far fewer of them than weights."""
        centre = points.double().mean(0)
        rest = points.double() - centre
        values, vectors = torch.linalg.eigh(rest @ rest.T)
        axes = torch.nn.functional.normalize(vectors.flip(1)[:, :2].T @ rest, dim=1)
        shares = (values.flip(0)[:COMPONENTS] / values.sum()).tolist()
        return cls(centre, axes, shares)

    def place(self, points: Tensor) -> Tensor:
        """Coordinates of points (N, P) in the plane: (N, 2)."""
        return (points.double() - self.centre) @ self.axes.T

    def point(self, coordinates: Tensor) -> Tensor:
        """Points (N, P) at coordinates (N, 2)."""
        return self.centre + coordinates.to(self.axes) @ self.axes


def walked(trained: Trained, settings: Settings, seed: int, step: int) -> Tensor:
    """Weights of every draw of every chain from a checkpoint (draws, chains, P)."""
    settings = with_sampling(settings, reference="full")
    sampling, loss, model = settings.sampling, loss_of(settings), trained.model(seed, step)
    epsilon = sampling.epsilon
    if settings.stability:
        law = trained.tasks[trained.seeds.index(seed)]
        held = sample(trained.data, law, settings.sharpness, generator(trained.device, 0, "sharpness"))
        sharpness = sharpest(Replicas([model]), loss, held.x, held.y, settings.iterations).clamp(min=0)
        epsilon = float(settings.stability / (sampling.nbeta * sharpness + sampling.gamma + sampling.prior))
    moving = Replicas([model] * sampling.chains)
    draw, streams, _ = minibatches(trained, settings, seed, 1)
    rates = {"epsilon": torch.full((sampling.chains,), epsilon)}
    still = mask(moving.shapes, sampling)
    differentiate = by_replicas(moving, loss)
    chains = Chains(
        moving.flat, differentiate, draw, sampling, parts=trained.data.K, generators=streams, mask=still, rates=rates
    )
    kept = []
    for number in range(sampling.burn_in + sampling.draws * sampling.every):
        if number >= sampling.burn_in and (number - sampling.burn_in) % sampling.every == 0:
            kept.append(moving.flat.detach().clone())
        chains.advance()
    return torch.stack(kept)


def losses_at(trained: Trained, settings: Settings, seed: int, points: Tensor, batch: Batch) -> list[float]:
    """Loss (N,) of weights (N, P) on sequences x (B, K, D), y (B, K)."""
    model, loss, told = trained.model(seed, trained.steps[0]), loss_of(settings), []
    for part in points.split(settings.cells):
        stack = Replicas([model] * len(part))
        with torch.no_grad():
            stack.flat.copy_(part)
            told += stack.each(loss, *(x.expand(len(part), *x.shape) for x in (batch.x, batch.y)))[0].tolist()
    return told


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: seeds (those looked at); steps (T); panels (S, T) of: explained (variance shares of three components), draws
    (coordinates, (chains, draws, 2)), centre (coordinates of w*), x and y (of the cells), losses ([y][x]), loss (of w*)."""
    trained = first_seeds(trained, settings.seeds)
    steps = settings.steps(trained)
    panels = [[panel(trained, settings, seed, step) for step in steps] for seed in trained.seeds]
    return {"seeds": trained.seeds, "steps": steps, "panels": panels}


def panel(trained: Trained, settings: Settings, seed: int, step: int) -> dict:
    """The plane about one checkpoint, and the loss on it."""
    weights = walked(trained, settings, seed, step)
    plane = Plane.of(weights.flatten(0, 1))
    start = Replicas([trained.model(seed, step)]).flat.detach()
    draws, centre = plane.place(weights.flatten(0, 1)), plane.place(start)
    far = settings.reach * torch.cat([draws, centre]).abs().amax(0).clamp(min=1e-12)
    x, y = (torch.linspace(-1, 1, settings.cells, dtype=far.dtype) * side for side in far.cpu())
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    batch = Batch(*(part[trained.seeds.index(seed)] for part in trained.sequences(settings.sequences)))
    losses = losses_at(trained, settings, seed, plane.point(cells), batch)
    (own,) = losses_at(trained, settings, seed, start, batch)
    return {
        "explained": plane.explained,
        "draws": draws.unflatten(0, weights.shape[:2]).transpose(0, 1).tolist(),
        "centre": centre[0].tolist(),
        "x": x.tolist(),
        "y": y.tolist(),
        "losses": np.reshape(losses, (settings.cells, settings.cells)).tolist(),
        "loss": own,
    }


def draw(result: dict):
    """A panel for every checkpoint of the first seed: the loss, on a logarithmic scale, the chains' draws and w*."""
    fig, axes = plotting.axes(len(result["steps"]), height=2.3, squeeze=False)
    for ax, step, one in zip(axes[0], result["steps"], result["panels"][0], strict=True):
        shade = ax.pcolormesh(
            one["x"], one["y"], one["losses"], norm=LogNorm(), cmap=plotting.SEQUENTIAL, shading="nearest"
        )
        fig.colorbar(shade, ax=ax)
        for chain in np.asarray(one["draws"]):
            ax.plot(*chain.T, color=plotting.VERMILION, linewidth=0.5)
        ax.scatter(*one["centre"], marker="*", color=plotting.INK, s=25, zorder=3)
        first, second, _ = one["explained"]
        ax.set(title=f"step {step}", xlabel=f"PC1 ({first:.0%})", ylabel=f"PC2 ({second:.0%})")
    return fig


def finding(result: dict) -> str:
    told = [
        f"step {step}: loss {one['loss']:.3g} at w*, {np.min(one['losses']):.3g} to {np.max(one['losses']):.3g} in the plane "
        f"of {sum(one['explained'][:2]):.0%} of the variance"
        for step, one in zip(result["steps"], result["panels"][0], strict=True)
    ]
    return "; ".join(told)


if __name__ == "__main__":
    experiment.main(__name__)
