"""Hooks that look into BERT and change it: record what passes, ablate heads, patch in heads of another input.

V variants of one batch of B matrices share forward passes: they are V * B rows, variant after variant.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from abrupt_learning.model import Hook

# What stands in for attention maps A (V, B, H, N, N). The paper says uniform, its code takes the mean over the batch,
# and head masks of stock libraries are zero.
ABLATIONS = {
    "uniform": lambda A: A.new_tensor(1 / A.shape[-1]),
    "batch_mean": lambda A: A.mean(1, keepdim=True),
    "zero": lambda A: A.new_zeros(()),
}


def head_sets(layers: int, heads: int) -> dict[str, Tensor]:
    """Sets of heads, masks (L, H) on the CPU, by name: every layer, all, every single head."""
    single = torch.eye(layers * heads, dtype=torch.bool).view(layers, heads, layers, heads)
    return {
        **{f"layer {layer + 1}": single[layer].any(0) for layer in range(layers)},
        "all heads": torch.ones(layers, heads, dtype=torch.bool),
        **{f"layer {la + 1} head {h + 1}": single[la, h] for la in range(layers) for h in range(heads)},
    }


@torch.no_grad()
def record(model: nn.Module, ids: Tensor, *sites: str) -> dict[str, Tensor]:
    """What passes the named sites of the model, layers first: attention (L, B, H, N, N), heads (L, B, H, N, d/H)."""
    seen = {site: [] for site in sites}

    def hook(site: str, layer: int, value: Tensor) -> Tensor:
        if site in seen:
            seen[site].append(value)
        return value

    model(ids, hook)
    return {site: torch.stack(values) for site, values in seen.items()}


def ablate(heads: Tensor, kind: str) -> Hook:
    """Hook that makes the attention of chosen heads uninformative. heads: (V, L, H) bool. kind: a key of ABLATIONS.

    batch_mean depends on the batch: it is the mean map of the B matrices of the same variant.
    """

    def hook(site: str, layer: int, value: Tensor) -> Tensor:
        if site != "attention":
            return value
        maps = value.unflatten(0, (len(heads), -1))
        return torch.where(heads[:, layer, None, :, None, None], ABLATIONS[kind](maps), maps).flatten(0, 1)

    return hook


def patch(donor: Tensor, heads: Tensor, cells: Tensor) -> Hook:
    """Hook that replaces z = A v by the donor's, at chosen heads and cells.

    donor: (L, B, H, N, d/H), from `record(..., "heads")`. heads: (V, L, H) bool. cells: (V, B, N) bool.
    """

    def hook(site: str, layer: int, value: Tensor) -> Tensor:
        if site != "heads":
            return value
        z = value.unflatten(0, (len(heads), -1))
        chosen = heads[:, layer, None, :, None] & cells[:, :, None, :]
        return torch.where(chosen[..., None], donor[layer], z).flatten(0, 1)

    return hook


@torch.no_grad()
def predict_variants(
    model: nn.Module, ids: Tensor, count: int, hook_of: Callable[[Tensor], Hook], rows: int | None = None
) -> Tensor:
    """Predictions (V, B, N) of `count` variants on ids (B, N), about `rows` matrices to a forward pass.

    hook_of: the hook of the variants whose indices it is given. By default a GPU gets all it can hold at once; a CPU is
    faster with batches that stay in its cache.
    """
    rows = rows or (8192 if ids.is_cuda else 512)
    chunks = torch.arange(count, device=ids.device).split(max(1, rows // len(ids)))
    outputs = [model(ids.repeat(len(chunk), 1), hook_of(chunk)) for chunk in chunks]
    return torch.cat(outputs).unflatten(0, (count, -1))
