"""The literal forward: three positions, plain attention, every layer in full, from the parameters of a Transformer.

The oracle of model.py's shortcut, and the forward that probes look into.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from layernorm_grok.data import tokens
from layernorm_grok.model import FINAL_EPS, Transformer, unit_rms


@dataclass
class LayerTrace:
    """What one layer computed; Q is 3, or 1 in the last layer of a pruned trace."""

    x: Tensor
    """Block input (N, 3, d)."""
    inputs: tuple[Tensor, Tensor, Tensor]
    """Inputs of the query (N, Q, d), key and value (N, 3, d) projections, after LN1 where it is on."""
    weights: Tensor
    """Attention weights (N, h, Q, 3)."""
    context: Tensor
    """Heads' outputs before the output projection (N, Q, d)."""
    attention: Tensor
    """After it (N, Q, d)."""
    y: Tensor
    """Residual before the MLP and its norm (N, Q, d)."""
    hidden: Tensor
    """MLP activations (N, Q, m)."""


@dataclass
class Trace:
    """What the model computed on its way to the logits of N pairs."""

    logits: Tensor
    """(N, P + 1), before the readout scale."""
    prelogits: Tensor
    """(N, d)."""
    layers: list[LayerTrace]


Linear = Callable[[str, Tensor, Tensor, Tensor | None], Tensor]


def trace(
    model: Transformer,
    rows: Tensor,
    pruned: bool = False,
    mlp_input: Callable[[Tensor], Tensor] = lambda y: y,
    linear: Linear = lambda name, x, weight, bias: F.linear(x, weight, bias),
) -> Trace:
    """Forward of pairs rows (N,), and what it went through.

    pruned: the last layer computes its last query alone, which changes no logit. mlp_input: replaces y where the MLP (or
    its norm) reads it, in every layer. linear(name, x, weight, bias): called in the place of F.linear, for probes.
    """
    x = model.embed[tokens(rows, model.P)] + model.position
    layers = []
    for number in range(len(model.layers)):
        kept = slice(-1, None) if pruned and number == len(model.layers) - 1 else slice(None)
        x, layer = _block(model, number, x, kept, mlp_input, linear)
        layers.append(layer)
    z = x[:, -1]
    if model.placement.final_center:
        z = z - z.mean(-1, keepdim=True) if model.c.norm == "layer" else z
        z = z / (z.square().mean(-1, keepdim=True) + FINAL_EPS).sqrt()
    if model.placement.final:
        z = model.final_norm(z)
    tied = model.c.unembed == "tied"
    logits = linear("embed" if tied else "unembed", z, model.embed if tied else model.unembed, None)
    return Trace(logits, z, layers)


def _block(
    model: Transformer, number: int, x: Tensor, kept: slice, mlp_input, called: Linear
) -> tuple[Tensor, LayerTrace]:
    """Block `number` on x (N, 3, d); `kept` are the positions of its queries."""
    block, p, heads = model.layers[number], model.placement, model.c.heads
    linear = lambda name, x, weight, bias=None: called(f"layers.{number}.{name}", x, weight, bias)  # noqa: E731
    inputs = [block.ln1(x) if switch else x for switch in (p.q, p.k, p.v)]
    inputs[0] = inputs[0][:, kept]
    names = ("qkv.q", "qkv.k", "qkv.v")
    projected = [linear(n, u, w) for n, u, w in zip(names, inputs, block.qkv.chunk(3), strict=True)]
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in projected)
    if p.qk_norm:
        q, k = unit_rms(q), unit_rms(k)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    context = (weights @ v).transpose(1, 2).flatten(2)
    attention = linear("out", context, block.out)
    y = x[:, kept] + (block.ln3(attention) if p.peri else attention)
    y = block.ln1(y) if p.post else y
    u = block.ln2(mlp_input(y)) if p.mlp else mlp_input(y)
    if p.unit:
        u = u / u.norm(dim=-1, keepdim=True)
    hidden = linear("fc1", u, block.fc1, block.fc1_bias)
    if model.c.mlp == "glu":
        hidden = F.silu(linear("gate", u, block.gate, block.gate_bias)) * hidden
    else:
        hidden = torch.relu(hidden) if model.c.act == "relu" else F.gelu(hidden)
    out = linear("fc2", hidden, block.fc2, block.fc2_bias)
    z = y + (block.ln4(out) if p.peri else out)
    return block.ln2(z) if p.post else z, LayerTrace(x, tuple(inputs), weights, context, attention, y, hidden)
