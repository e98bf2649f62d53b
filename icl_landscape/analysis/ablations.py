"""What each part of the model is worth along training: the loss without it (ours; the authors' probe of components)."""

import common.process  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from common import experiment, plotting
from common.limits import Count
from common.replicas import Replicas
from icl_landscape.analysis._curves import along
from icl_landscape.evaluate import Probe, Trained, repeated
from icl_landscape.regression.data import Batch
from icl_landscape.regression.losses import token_losses
from icl_landscape.regression.model import Hook, Model

KINDS = ("zero", "mean")


@dataclass
class Settings(Probe):
    sequences: Count = 256
    """Fixed sequences, over which the mean of a mean ablation is taken too, but for positions, whose mean is over tokens."""


def components(model: Model) -> dict[str, tuple[str, int, int | None]]:
    """Name -> (site of the hook, layer, head or None for all): positions; heads, attention and MLP of blocks, from 1."""
    parts = {"positions": ("embedding", -1, None)}
    for layer in range(model.layers):
        parts |= {f"head {layer + 1}:{head + 1}": ("heads", layer, head) for head in range(model.heads)}
        parts |= {f"attention {layer + 1}": ("heads", layer, None), f"MLP {layer + 1}": ("mlp", layer, None)}
    return parts


def ablated(site: str, layer: int, head: int | None, kind: str) -> Hook:
    """A hook that replaces a component's output by 0, or by its mean over sequences at each token."""

    def hook(where: str, at: int, value: Tensor) -> Tensor:
        if (where, at) != (site, layer):
            return value
        # heads are (..., B, H, Q, d/H), an MLP's output is (..., B, Q, d)
        batch = -4 if site == "heads" else -3
        put = torch.zeros_like(value) if kind == "zero" else value.mean(batch, keepdim=True).expand_as(value)
        if head is None:
            return put
        chosen = torch.arange(value.shape[-3], device=value.device) == head
        return torch.where(chosen[:, None, None], put, value)

    return hook


def without_positions(matrix: Tensor, kind: str) -> Hook:
    """A hook that takes positions, the columns of matrix (..., d, 2K), out of the stream; for "mean" their mean stays.

    All sequences have the same positions: to take the mean over sequences would change nothing.
    """
    positions = matrix.mT

    def hook(where: str, at: int, value: Tensor) -> Tensor:
        if where != "embedding":
            return value
        own = positions[..., : value.shape[-2], :]
        gone = own - own.mean(-2, keepdim=True) if kind == "mean" else own
        return value - (gone if gone.dim() == 2 else gone[:, None])

    return hook


def without(matrix: Tensor, part: tuple[str, int, int | None], kind: str) -> Hook:
    """The hook that ablates one of `components` of a model with this matrix of positions."""
    return without_positions(matrix, kind) if part[0] == "embedding" else ablated(*part, kind)


@torch.no_grad()
def losses(batch: Batch, parts: dict, stack: Replicas, times: int) -> dict[str, Tensor]:
    """Losses by token (times S, K) of the models as they are, and without each part."""
    own, matrix = repeated(batch, times), stack.params["position.weight"]

    def of(hook: Callable[[Tensor], Hook | None]) -> Tensor:
        told = stack.each(lambda model, x, y, matrix: (model(x, y, hook(matrix)),), own.x, own.y, matrix)[0]
        return token_losses(told, own.y)

    cut = {f"{kind} {name}": of(partial(without, part=p, kind=kind)) for kind in KINDS for name, p in parts.items()}
    return {"whole": of(lambda matrix: None), **cut}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); losses by token (S, T, K): whole (the models as they are), and "zero <part>" and "mean <part>" for
    the positions and every head, attention and MLP of every block, counted from 1; parts (their names)."""
    parts = components(trained.config.model)
    batch = trained.sequences(settings.sequences)
    curves = along(trained, settings.steps(trained), partial(losses, batch, parts))
    return {**curves, "parts": list(parts)}


def increase(result: dict, kind: str) -> np.ndarray:
    """Mean loss without each part less that of the whole model, mean over seeds: (parts, T)."""
    whole = np.asarray(result["whole"]).mean((0, 2))
    return np.stack([np.asarray(result[f"{kind} {name}"]).mean((0, 2)) - whole for name in result["parts"]])


def draw(result: dict):
    """Increase of the loss without each part, over training; zero ablation beside mean ablation."""
    fig, axes = plotting.axes(2, height=3.4, sharey=True)
    maps = {kind: increase(result, kind) for kind in KINDS}
    limit = max(float(np.abs(values).max()) for values in maps.values())
    for ax, (kind, values) in zip(axes, maps.items(), strict=True):
        drawn = plotting.heatmap(ax, values, signed=True, limit=limit)
        ax.set_aspect("auto")
        ax.set(title=f"{kind} ablation", xlabel="step")
        ax.set_xticks(range(len(result["steps"])), result["steps"], rotation=90, fontsize=6)
    axes[0].set_yticks(range(len(result["parts"])), result["parts"], fontsize=6)
    fig.colorbar(drawn, ax=axes, label="loss without it, less the loss")
    return fig


def finding(result: dict) -> str:
    ends = {name: rise[-1] for name, rise in zip(result["parts"], increase(result, "mean"), strict=True)}
    dearest = sorted(ends, key=ends.get, reverse=True)[:3]
    return "dearest at the end, by mean ablation: " + ", ".join(f"{name} {ends[name]:+.2f}" for name in dearest)


if __name__ == "__main__":
    experiment.main(__name__)
