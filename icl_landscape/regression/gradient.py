"""Loss and gradient of the default transformer by hand, for a CPU: autograd's numbers from fewer operations (see `layers`)."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from common.replicas import Replicas
from icl_landscape.regression.data import tokens
from icl_landscape.regression.layers import Block, First, Later, Normed, Weights, every
from icl_landscape.regression.losses import token_losses
from icl_landscape.regression.model import Model

ROWS = 8192
"""Tokens of all models to take at a time: fewer leave the operations small, more leave the cache."""


def fits(replicas: Replicas, model: Model) -> bool:
    """Whether the way by hand knows these switches of the model, and is the faster one here."""
    switches = model.layer_norm and model.include_output and model.drop_last_y and model.last_block_at_x
    return switches and model.layers > 1 and replicas.flat.device.type == "cpu"


def differentiate(
    replicas: Replicas, model: Model, x: Tensor, y: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (R, P), loss (R,) and the K parts (R, K) of which it is the mean: ell_k, times weights (K,) if given.

    x (R, B, K, D), y (R, B, K). Where the way by hand does not fit it is `Replicas.differentiate` of the same loss.
    """
    if not fits(replicas, model):
        return replicas.differentiate(functools.partial(_weighted, weights), x, y)
    results = _passes(replicas, model, x, y, weights, True)
    parts = torch.cat([parts for parts, _ in results])
    gradient = torch.cat([torch.cat([g[name].flatten(1) for name in replicas.shapes], 1) for _, g in results])
    return gradient if replicas.moves is None else gradient.mul_(replicas.moves), parts.mean(-1), parts


def losses(replicas: Replicas, model: Model, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """The parts (R, K) alone, with the bits that `differentiate` gives them."""
    if not fits(replicas, model):
        return replicas.each(functools.partial(_weighted, weights), x, y)[1]
    return torch.cat([parts for parts, _ in _passes(replicas, model, x, y, weights, False)])


@torch.no_grad()
def _passes(replicas: Replicas, model: Model, x: Tensor, y: Tensor, weights: Tensor | None, back: bool) -> list[tuple]:
    """`_pass` of some models at a time."""
    size = max(1, ROWS // (2 * y[0].numel()))
    # Copies, as the library's products have other last bits where a row of `flat` starts at another alignment
    groups = zip(*(part.split(size) for part in (x, y, *replicas.params.values())), strict=True)
    named = ((x, y, {n: w.clone() for n, w in zip(replicas.shapes, p, strict=True)}) for x, y, *p in groups)
    return [_pass(model, p, x, y, weights, back) for x, y, p in named]


def by_hand(replicas: Replicas, model: Model, weights: Tensor | None = None) -> Callable:
    """The same for chains whose `flat` is that of the replicas: flat, batch -> parts (R, K), gradient (R, P)."""

    def of_chains(flat: Tensor, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        gradient, _, parts = differentiate(replicas, model, *batch, weights)
        return parts, gradient

    return of_chains


def _weighted(weights: Tensor | None, model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    parts = token_losses(model(x, y), y)
    parts = parts if weights is None else parts * weights
    return parts.mean(-1), parts


def _pass(model: Model, p: Weights, x: Tensor, y: Tensor, weights: Tensor | None, back: bool) -> tuple[Tensor, Weights]:
    """Parts (R, K) of the loss of some models, and with `back` the gradient of their mean by name."""
    T, g = 2 * y.shape[-1] - 1, {}
    entry = First(model, p, g, tokens(x, y)[..., :T, :])
    stream, path = entry.stream, []
    for layer in range(model.layers):
        stride = 2 if layer == model.layers - 1 else 1
        entry = Later(model, p, g, layer, stream, T, stride) if layer else entry
        block = Block(model, p, g, layer, y.shape[1])
        stream = block.forward(every(stream, T, stride), *entry.forward())
        path.append((entry, block))
    parts, grad = _read(p, g, stream, y, weights)
    for entry, block in reversed(path if back else []):
        grad = entry.backward(*block.backward(grad))
    return parts, g


def _read(p: Weights, g: Weights, stream: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Parts (R, K), from the stream (R, N, d), and the gradient of that."""
    matrix, bias = p["unembedding.weight"], p["unembedding.bias"]
    normed = Normed(p, g, "norm", matrix[:, :1], stream)
    # Not a matrix product, whose bits with a single row depend on the number of models
    said = (normed.normal.u * normed.map.gained).sum(-1) + normed.map.bias[..., 0] + bias[:, :1]
    error = said.view_as(y).sub_(y)
    weights = y.new_ones(y.shape[2:]) if weights is None else weights
    grad = (error * (2 / y[0].numel() * weights)).flatten(1)[..., None]
    g["unembedding.weight"], g["unembedding.bias"] = torch.zeros_like(matrix), torch.zeros_like(bias)
    g["unembedding.bias"][:, 0] = grad.sum((1, 2))
    back, g["unembedding.weight"][:, :1] = normed.backward(grad)
    return error.square_().mean(1) * weights, back
