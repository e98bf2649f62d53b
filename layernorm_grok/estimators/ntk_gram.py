"""The neural tangent kernel from Gram matrices of inputs and output gradients: what ntk.py's `gram` is made of.

Of each parameter, `collect` keeps per example what the inner products of gradients need, and `assemble` sums them up.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from layernorm_grok.data import tokens
from layernorm_grok.estimators.trace import Trace, trace
from layernorm_grok.model import Transformer

BLOCK = 128
"""Rows of the kernel computed at a time; it is symmetric, so each block needs only the columns from its own on."""


class Traced(nn.Module):
    """The literal forward as a module, for functional_call."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor, **probes) -> Trace:
        return trace(self.model, rows, pruned=True, **probes)


@dataclass
class Outer:
    """A matrix's gradient by example, sum over s of left_s right_s^T: left (S, n, p), right (S, n, q)."""

    left: Tensor
    right: Tensor
    bias: float = 0.0
    """1 where a bias is trained as well: a weight on one more input, of 1."""
    crossed: bool = True
    """Whether different s act on the same weights (positions), or on disjoint ones (heads)."""


class Plain(NamedTuple):
    """Gradients (n, w) whose inner products count as they are, times a number."""

    gradient: Tensor
    factor: float = 1.0


@dataclass
class Parts:
    """What the kernel of n pairs is the sum of."""

    tokens: Tensor
    """(n, 3)."""
    vectors: Tensor
    """Probe vectors (B, C), scaled so that the kernel is the sum over them."""
    plain: list[Plain] = field(default_factory=list)
    outer: list[Outer] = field(default_factory=list)
    constant: float = 0.0
    operands: Tensor | None = None
    """Gradients (2, n, w) of the embeddings of a and b, which meet where tokens are equal."""
    tied: tuple[Tensor, Tensor] | None = None
    """Two (n, d), each to be multiplied with the other, where one matrix embeds and unembeds."""

    def add(self, new: Outer) -> None:
        """Add an outer product; a factor that all examples share is a number for each s, and the other one then plain."""
        separate = len(new.left) == 1 or not new.crossed
        if separate and same(new.left):
            factors = new.left[:, 0].square().sum(-1).tolist()
            self.plain += map(Plain, new.right, factors)
            self.constant += new.bias * sum(factors)
        elif separate and same(new.right):
            self.plain += map(Plain, new.left, (new.right[:, 0].square().sum(-1) + new.bias).tolist())
        else:
            self.outer.append(new)


def same(factor: Tensor) -> bool:
    """Whether a factor (S, n, p) is bitwise that of every example."""
    return torch.equal(factor, factor[:, :1].expand_as(factor))


class Passes(NamedTuple):
    """A forward pass and one backward pass per probe vector."""

    model: Transformer
    forward: Trace
    inputs: dict[str, Tensor]
    """Input (n, T, q) of every linear map."""
    gradients: dict[str, Tensor]
    """Gradients (B, n, ...) at outputs of linear maps, at parameters that are not matrices, and inside the last attention."""


@torch.enable_grad()
def passes(model: Transformer, rows: Tensor, vectors: Tensor) -> Passes:
    """Run the model on pairs rows (n,), and back from every vector's readout."""
    inputs, outputs = {}, {}

    def record(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        inputs[name] = x.detach()
        # One matrix product: F.linear makes n of them from the strided input of the last query.
        outputs[name] = F.linear(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
        return outputs[name]

    # Positions and norms get an axis of examples, so that their gradients come out by example.
    params = {n: p.detach() for n, p in model.named_parameters()}
    own = [n for n in params if n == "position" or n.endswith((".weight", ".bias"))]
    own = {n: params[n].expand(len(rows), *params[n].shape).requires_grad_() for n in own}
    own_or_fixed = {f"model.{n}": p for n, p in (params | own).items()}
    forward = functional_call(Traced(model), own_or_fixed, (rows,), {"linear": record})
    last = forward.layers[-1]
    wanted = own | outputs | {"weights": last.weights, "context": last.context}
    tensors, keep = list(wanted.values()), {"retain_graph": True, "allow_unused": True}
    each = [torch.autograd.grad(forward.logits, tensors, v.expand_as(forward.logits), **keep) for v in vectors]
    join = torch.stack if len(each) > 1 else lambda gradients: gradients[0][None]
    # What has no influence is left out.
    gradients = {n: join(g) for n, g in zip(wanted, zip(*each, strict=True), strict=True) if g[0] is not None}
    return Passes(model, forward, inputs, gradients)


def collect(model: Transformer, rows: Tensor, vectors: Tensor, names: set[str]) -> Parts:
    """Parts of the kernel of pairs rows (n,), summed over vectors (B, C), for the parameters `names`."""
    seen, parts = passes(model, rows, vectors), Parts(tokens(rows, model.P), vectors)
    for name in sorted(names & seen.gradients.keys()):
        if name == "position" or name.endswith((".weight", ".bias")):
            parts.plain.append(Plain(seen.gradients[name].movedim(0, 1).flatten(1)))
    embeddings(parts, seen, names)
    for number in range(len(model.layers)):
        if f"layers.{number}.qkv" in names:
            attention(parts, seen, number)
        mlp(parts, seen, f"layers.{number}.", names)
    return parts


def slots(gradient: Tensor) -> Tensor:
    """(B, n, T, p) -> (T, n, B p)."""
    return gradient.permute(2, 1, 0, 3).flatten(2)


def embeddings(parts: Parts, seen: Passes, names: set[str]) -> None:
    """Unembedding and embedding, which may be one matrix."""
    z, at_input = seen.forward.prelogits.detach(), seen.gradients["position"]
    tied = seen.model.c.unembed == "tied"
    if ("embed" if tied else "unembed") in names:
        parts.plain.append(Plain(z, float(parts.vectors.square().sum())))
    if "embed" in names:
        operands = slots(at_input)
        parts.operands = operands[:2]
        parts.plain.append(Plain(operands[2]))
        if tied:
            parts.tied = torch.einsum("bnt,bntd->nd", parts.vectors[:, parts.tokens], at_input), z


def mlp(parts: Parts, seen: Passes, prefix: str, names: set[str]) -> None:
    """Output projection and MLP of a layer, with biases where there are any."""
    for name in (prefix + n for n in ("out", "fc1", "gate", "fc2")):
        weight, bias = name in names, f"{name}_bias" in names
        if weight or bias:
            x = seen.inputs[name].movedim(1, 0)
            parts.add(Outer(slots(seen.gradients[name]), x if weight else x[..., :0], float(bias)))


def attention(parts: Parts, seen: Passes, number: int) -> None:
    """Query, key and value projections of a layer."""
    general = ["q", "k", "v"]
    if number == len(seen.model.layers) - 1:
        values(parts, seen)
        general.remove("v")
        # Normalised keys are no linear function of W_K.
        if not seen.model.placement.qk_norm:
            keys(parts, seen)
            general.remove("k")
    for name in (f"layers.{number}.qkv.{n}" for n in general):
        parts.add(Outer(slots(seen.gradients[name]), seen.inputs[name].movedim(1, 0)))


def values(parts: Parts, seen: Passes) -> None:
    """W_V of the layer with a single query: the context of a head is W_V sum_t w_t x_t, one outer product."""
    layer, heads = seen.forward.layers[-1], seen.model.c.heads
    context = seen.gradients["context"].squeeze(2).unflatten(-1, (heads, -1)).permute(2, 1, 0, 3).flatten(2)
    weights = layer.weights.detach().squeeze(2)
    parts.add(Outer(context, mixed(weights[None], layer.inputs[2].detach()), crossed=False))


def keys(parts: Parts, seen: Passes) -> None:
    """W_K of the layer with a single query: a head's score is q.W_K x_t / sqrt(e), its gradient q (sum_t dscore_t x_t)^T."""
    layer, heads = seen.forward.layers[-1], seen.model.c.heads
    weights, at_weights = layer.weights.detach().squeeze(2), seen.gradients["weights"].squeeze(3)
    at_scores = weights * (at_weights - (weights * at_weights).sum(-1, keepdim=True))
    block = seen.model.layers[-1]
    q = F.linear(layer.inputs[0].detach().squeeze(1), block.qkv.detach().chunk(3)[0]).unflatten(-1, (heads, -1))
    q = q.movedim(1, 0) * q.shape[-1] ** -0.5
    parts.add(Outer(q, mixed(at_scores, layer.inputs[1].detach()), crossed=False))


def mixed(weights: Tensor, x: Tensor) -> Tensor:
    """Inputs x (n, 3, d) summed over positions with weights (B, n, h, 3): (h, n, B d)."""
    first, second, third = weights.permute(3, 2, 1, 0).unsqueeze(-1)
    x = x[:, :, None]
    # Sums of three: in place, three times faster than a batch of matrix products.
    return (first * x[:, 0]).addcmul_(second, x[:, 1]).addcmul_(third, x[:, 2]).flatten(2)


def assemble(parts: Parts) -> Tensor:
    """The kernel (n, n), block of rows by block of rows."""
    n = len(parts.tokens)
    kernel = parts.vectors.new_empty(n, n)
    for start in range(0, n, BLOCK):
        I, J = slice(start, start + BLOCK), slice(start, n)  # noqa: E741
        block = kernel[I, J].fill_(parts.constant)
        for gradient, factor in parts.plain:
            block.addmm_(gradient[I], gradient[J].T, alpha=factor)
        for outer in parts.outer:
            add_outer(block, outer, I, J)
        if parts.tied is not None:
            one, other = parts.tied
            block.addmm_(one[I], other[J].T).addmm_(other[I], one[J].T)
        kernel[start + BLOCK :, I] = block[:, BLOCK:].T
    if parts.operands is not None:
        add_operands(kernel, parts.operands, parts.tokens)
    return kernel


def add_outer(block: Tensor, outer: Outer, I: slice, J: slice) -> None:  # noqa: E741
    """block += sum over s, s' (or s = s') of (left_s left_s'^T) (right_s right_s'^T + bias), elementwise."""
    count = range(len(outer.left))
    for s, other in [(s, r) for s in count for r in count if outer.crossed or r == s]:
        right = outer.right[s, I] @ outer.right[other, J].T
        block.addcmul_(outer.left[s, I] @ outer.left[other, J].T, right.add_(outer.bias) if outer.bias else right)


def add_operands(kernel: Tensor, gradients: Tensor, ids: Tensor) -> None:
    """kernel += gradient of a's or b's embedding times that of the other pair's, where the tokens are equal."""
    flat = ids[:, :2].T.flatten()
    groups = flat.argsort(stable=True).split(flat.unique(return_counts=True)[1].tolist())
    group = pad_sequence(groups, batch_first=True, padding_value=len(flat))
    members = F.pad(gradients.flatten(0, 1), (0, 0, 0, 1))[group]
    rows = group % len(ids)
    kernel.index_put_((rows[:, :, None], rows[:, None]), members @ members.mT, accumulate=True)
