"""The empirical neural tangent kernel of f(x) = alpha logits(x) without per-sample gradients (paper section 2.3; sheet 3.6, 7.2).

A linear map's gradient for one example is a sum of outer products, output gradient times input, so its inner product for two
examples is a sum of products of two short inner products. The kernel is assembled from such Gram matrices, one backward pass
for each probe vector v and none per example:

    K_ij = mean over v of <d v.f(x_i) / d theta, d v.f(x_j) / d theta>

Everything is computed in the precision of the model; in float32 the kernel is good to about 1e-6 of its norm.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from layernorm_grok.data import tokens
from layernorm_grok.model import Norm, Transformer
from layernorm_grok.reference import LayerTrace, Trace, trace

BLOCK = 128
"""Rows of the kernel computed at a time; of the symmetric kernel only the blocks on and above the diagonal are."""


def vectors(kind: Literal["sum", "projected", "full"], classes: int, count: int = 8, seed: int = 0) -> Tensor:
    """Probe vectors (B, C) in float64, the same for every example and checkpoint.

    sum: all ones, the authors' default: the gradient of the sum of logits, to which cross-entropy is blind.
    projected: `count` orthogonal vectors at random in the complement of all-ones, of length sqrt(C - 1), so that the mean of
    v v^T is I - 11^T/C in expectation, and exactly so at count = C - 1. The kernel is then the full one restricted to the
    complement of all-ones, in expectation. full: all C axes of length sqrt(C), whose kernel is sum_c <df_c(x_i), df_c(x_j)>.
    """
    if kind == "sum":
        return torch.ones(1, classes, dtype=torch.float64)
    if kind == "full":
        return classes**0.5 * torch.eye(classes, dtype=torch.float64)
    if not 1 <= count < classes:
        raise ValueError(f"found {count} projected vectors for {classes} classes, expected 1 .. {classes - 1}")
    drawn = torch.randn(classes, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (classes - 1) ** 0.5 * torch.linalg.qr(drawn - drawn.mean(0)).Q.T


def drift(kernel: Tensor, start: Tensor) -> float:
    """||K_t - K_0||_F / ||K_0||_F of two kernels (n, n) of the same pairs."""
    if kernel.shape != start.shape:
        raise ValueError(f"found kernels {tuple(kernel.shape)} and {tuple(start.shape)}, expected the same pairs in both")
    return float((kernel.double() - start.double()).norm() / start.double().norm())


def gram(model: Transformer, rows: Tensor, vectors: Tensor, alpha: float = 1.0, names: set[str] | None = None) -> Tensor:
    """The kernel (n, n) of pairs rows (n,) for probe vectors (B, C), in the model's precision.

    names: the parameters that are trained, all by default. Raises ValueError for names or vectors that do not fit the model.
    """
    names, vectors = _checked(model, vectors, names)
    return _assemble(_parts(model, rows, vectors * (alpha / len(vectors) ** 0.5), names))


def per_sample_gram(
    model: Transformer, rows: Tensor, vectors: Tensor, alpha: float = 1.0, names: set[str] | None = None
) -> Tensor:
    """The same from its definition: the gradient of every example, then all their inner products; n x weights of memory."""
    names, vectors = _checked(model, vectors, names)
    traced = _Traced(model)
    fixed = {f"model.{n}": p.detach() for n, p in model.named_parameters()}
    moving = {f"model.{n}": fixed[f"model.{n}"] for n in sorted(names)}

    def read(moving: dict[str, Tensor], row: Tensor, v: Tensor) -> Tensor:
        return alpha * (functional_call(traced, fixed | moving, (row[None],)).logits * v).sum()

    kernel = 0
    for v in vectors:
        for g in vmap(grad(read), (None, 0, None))(moving, rows, v).values():
            kernel = kernel + g.flatten(1) @ g.flatten(1).T / len(vectors)
    return kernel


def _checked(model: Transformer, vectors: Tensor, names: set[str] | None) -> tuple[set[str], Tensor]:
    known = {n for n, _ in model.named_parameters()}
    if names is not None and not names <= known:
        raise ValueError(f"found trained parameters {sorted(names - known)}, expected some of {sorted(known)}")
    if vectors.dim() != 2 or vectors.shape[1] != len(model.embed):
        raise ValueError(f"found probe vectors {tuple(vectors.shape)}, expected (any number, {len(model.embed)})")
    return known if names is None else names, vectors.to(model.embed)


class _Traced(nn.Module):
    """The literal forward as a module, for functional_call."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor, linear=None) -> Trace:
        return trace(self.model, rows, pruned=True, linear=linear)


@dataclass
class _Outer:
    """A matrix's gradient, sum over s of left_s right_s^T: left (S, n, p), right (S, n, q).

    crossed: terms of different s act on the same weights (positions), rather than on disjoint ones (heads).
    """

    left: Tensor
    right: Tensor
    crossed: bool = True


@dataclass
class _Parts:
    """What the kernel is the sum of."""

    tokens: Tensor
    """(n, 3)."""
    plain: list[Tensor] = field(default_factory=list)
    """Gradients (n, w) whose inner products add up as they are."""
    outer: list[_Outer] = field(default_factory=list)
    operands: Tensor | None = None
    """Gradients (2, n, w) of the embeddings of a and b, which meet where tokens are equal."""
    tied: tuple[Tensor, Tensor] | None = None
    """Two (n, d): inner products of each with the other, where one matrix embeds and unembeds."""

    def add(self, left: Tensor, right: Tensor, crossed: bool = True) -> None:
        """Add an _Outer; a factor that all examples share is a number per s, and the other one then plain."""
        if crossed and len(left) > 1:
            self.outer.append(_Outer(left, right, crossed))
        elif _same(left):
            self.plain += (left[:, :1].norm(dim=-1, keepdim=True) * right).unbind()
        elif _same(right):
            self.plain += (right[:, :1].norm(dim=-1, keepdim=True) * left).unbind()
        else:
            self.outer.append(_Outer(left, right, crossed))


def _same(factor: Tensor) -> bool:
    return torch.equal(factor, factor[:, :1].expand_as(factor))


def _parts(model: Transformer, rows: Tensor, vectors: Tensor, names: set[str]) -> _Parts:
    """Parts of the kernel summed over vectors (B, C)."""
    calls = {}

    def record(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        calls[name] = x, F.linear(x, weight, bias)
        return calls[name][1]

    # Positions, gains and biases of norms get an axis of examples, so that their gradients come out by example.
    params = {n: p.detach() for n, p in model.named_parameters()}
    own = {n: params[n].expand(len(rows), *params[n].shape).clone().requires_grad_() for n in _vectors_of(model)}
    seen = functional_call(_Traced(model), {f"model.{n}": p for n, p in (params | own).items()}, (rows, record))
    gradients = _backward(seen, calls, own, vectors)

    parts = _Parts(tokens(rows, model.P))
    parts.plain += [gradients[n].flatten(2).movedim(0, 1).flatten(1) for n in own if n in names and n in gradients]
    _unembedding(parts, model, seen.prelogits, gradients["position"], vectors, names)
    for number, layer in enumerate(seen.layers):
        _layer(parts, model, number, layer, calls, gradients, names)
    return parts


def _vectors_of(model: Transformer) -> list[str]:
    """Parameters that are added or multiplied: the positions, and those of norms."""
    norms = [name for name, module in model.named_modules() if isinstance(module, Norm)]
    return ["position", *(f"{name}.{part}" for name in norms for part, _ in model.get_submodule(name).named_parameters())]


def _backward(seen: Trace, calls: dict, own: dict[str, Tensor], vectors: Tensor) -> dict[str, Tensor]:
    """Gradients (B, n, ...) of every vector's readout; what has no influence on it is left out."""
    last = seen.layers[-1]
    wanted = own | {name: out for name, (_, out) in calls.items()} | {"weights": last.weights, "context": last.context}
    each = [
        torch.autograd.grad(
            seen.logits, list(wanted.values()), v.expand_as(seen.logits), retain_graph=True, allow_unused=True
        )
        for v in vectors
    ]
    by_name = zip(wanted, zip(*each, strict=True), strict=True)
    return {name: torch.stack(gs) for name, gs in by_name if gs[0] is not None}


def _slots(gradient: Tensor) -> Tensor:
    """(B, n, T, p) -> (T, n, B p)."""
    return gradient.permute(2, 1, 0, 3).flatten(2)


def _unembedding(parts: _Parts, model: Transformer, z: Tensor, at_input: Tensor, vectors: Tensor, names: set[str]) -> None:
    """Unembedding and embedding, which may be one matrix; at_input: gradient (B, n, 3, d) of the model's input."""
    tied = model.c.unembed == "tied"
    if ("embed" if tied else "unembed") in names:
        parts.plain.append(z.detach() * vectors.norm())
    if "embed" not in names:
        return
    slots = _slots(at_input)
    parts.operands = slots[:2]
    parts.plain.append(slots[2])
    if tied:
        parts.tied = torch.einsum("bnt,bntd->nd", vectors[:, parts.tokens], at_input), z.detach()


def _layer(
    parts: _Parts, model: Transformer, number: int, layer: LayerTrace, calls: dict, gradients: dict, names: set[str]
) -> None:
    """The linear maps of one layer; a bias is one more input, of 1."""
    prefix = f"layers.{number}."
    if f"{prefix}qkv" in names:
        rest = ["q", "k", "v"]
        if layer.weights.shape[2] == 1:
            rest = _last_attention(parts, model, layer, calls[f"{prefix}qkv.q"][1], gradients)
        for name in rest:
            parts.add(_slots(gradients[f"{prefix}qkv.{name}"]), calls[f"{prefix}qkv.{name}"][0].detach().movedim(1, 0))
    for name in ("out", "fc1", "gate", "fc2"):
        if prefix + name not in calls:
            continue
        x = calls[prefix + name][0].detach().movedim(1, 0)
        inputs = [x] if prefix + name in names else []
        inputs += [torch.ones_like(x[..., :1])] if f"{prefix}{name}_bias" in names else []
        if inputs:
            parts.add(_slots(gradients[prefix + name]), torch.cat(inputs, -1))


def _last_attention(parts: _Parts, model: Transformer, layer: LayerTrace, q: Tensor, gradients: dict) -> list[str]:
    """Keys and values of the layer with a single query, where each head's gradient is one outer product; returns the others.

    Head h has context sum_t w_t v_t and scores q.k_t / sqrt(e), so W_V's gradient is dcontext (sum_t w_t x_t)^T, and W_K's is
    q (sum_t dscore_t x_t)^T / sqrt(e). Normalised keys are no linear function of W_K and go the general way.
    """
    heads = model.c.heads
    weights = layer.weights.detach().squeeze(2)
    by_head = lambda t: t.unflatten(-1, (heads, -1)).movedim(-2, 0)  # noqa: E731
    context = by_head(gradients["context"].squeeze(2)).movedim(1, 2).flatten(2)
    parts.add(context, torch.einsum("nht,ntd->hnd", weights, layer.inputs[2].detach()), crossed=False)
    if model.placement.qk_norm:
        return ["q", "k"]
    at_weights = gradients["weights"].squeeze(3)
    at_scores = weights * (at_weights - (weights * at_weights).sum(-1, keepdim=True)) * (heads / q.shape[-1]) ** 0.5
    keys = torch.einsum("bnht,ntd->hnbd", at_scores, layer.inputs[1].detach()).flatten(2)
    parts.add(by_head(q.detach().squeeze(1)), keys, crossed=False)
    return ["q"]


def _assemble(parts: _Parts) -> Tensor:
    """The kernel, block of rows by block of rows."""
    n = len(parts.tokens)
    plain = torch.cat(parts.plain, 1) if parts.plain else parts.outer[0].left.new_zeros(n, 1)
    kernel = plain.new_empty(n, n)
    for start in range(0, n, BLOCK):
        I, J = slice(start, start + BLOCK), slice(start, n)  # noqa: E741
        block = plain[I] @ plain[J].T
        for outer in parts.outer:
            _add_outer(block, outer, I, J)
        if parts.operands is not None:
            _add_operands(block, parts.operands, parts.tokens, I, J)
        if parts.tied is not None:
            one, other = parts.tied
            block += one[I] @ other[J].T + other[I] @ one[J].T
        kernel[I, J] = block
        kernel[J, I] = block.T
    return kernel


def _add_outer(block: Tensor, outer: _Outer, I: slice, J: slice) -> None:  # noqa: E741
    """block += sum over s, s' (or s = s') of (left_s left_s'^T) (right_s right_s'^T), elementwise."""
    count = range(len(outer.left))
    for s, other in [(s, r) for s in count for r in count if outer.crossed or r == s]:
        left = outer.left[s, I] @ outer.left[other, J].T
        block.addcmul_(left, outer.right[s, I] @ outer.right[other, J].T)


def _add_operands(block: Tensor, gradients: Tensor, ids: Tensor, I: slice, J: slice) -> None:  # noqa: E741
    """block += gradient of a's or b's embedding times that of the other pair's, where the tokens are equal."""
    for s, other in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        i, j = (ids[I, s, None] == ids[None, J, other]).nonzero(as_tuple=True)
        products = (gradients[s, I][i] * gradients[other, J][j]).sum(-1)
        block.index_put_((i, j), products, accumulate=True)
