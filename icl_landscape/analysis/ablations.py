"""What each part of the model is worth along training: the loss without it (ours; the authors' probe of components)."""

import common.process  # noqa: F401

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
    """Fixed sequences, over which the mean of a mean ablation is taken too."""


def components(model: Model) -> dict[str, tuple[str, int, int | None]]:
    """Name -> (site of the hook, layer, head or None for all): heads, attention and MLP of every block, numbered from 1."""
    parts = {}
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


@torch.no_grad()
def losses(batch: Batch, parts: dict, stack: Replicas, times: int) -> dict[str, Tensor]:
    """Losses by token (times S, K) of the models as they are, and without each part."""
    own = repeated(batch, times)

    def of(hook: Hook | None) -> Tensor:
        told = stack.each(lambda model, x, y: (model(x, y, hook),), own.x, own.y)[0]
        return token_losses(told, own.y)

    without = {f"{kind} {name}": of(ablated(*part, kind)) for kind in KINDS for name, part in parts.items()}
    return {"whole": of(None), **without}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); losses by token (S, T, K): whole (the models as they are), and "zero <part>" and "mean <part>" for
    every head, attention and MLP of every block, counted from 1; parts (their names)."""
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
