"""The empirical neural tangent kernel of f(x) = alpha logits(x) without per-sample gradients (paper section 4.1).

A linear map's gradient for one example is a sum of outer products, output gradient times input, so its inner product for two
examples is a sum of products of two short inner products. The kernel is assembled from such Gram matrices, one backward pass
for each probe vector v and none per example:

    K_ij = mean over v of <d v.f(x_i) / d theta, d v.f(x_j) / d theta>

Everything is computed in the precision of the model; in float32 the kernel is good to about 1e-6 of its norm.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from layernorm_grok.estimators.ntk_gram import Traced, assemble, collect
from layernorm_grok.model import Transformer


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
        raise ValueError(
            f"found kernels {tuple(kernel.shape)} and {tuple(start.shape)}, expected the same pairs in both"
        )
    return float((kernel.double() - start.double()).norm() / start.double().norm())


def gram(
    model: Transformer, rows: Tensor, vectors: Tensor, alpha: float = 1.0, names: set[str] | None = None
) -> Tensor:
    """The kernel (n, n) of pairs rows (n,) for probe vectors (B, C), in the model's precision.

    names: the parameters that are trained, all by default. Raises ValueError for names or vectors that do not fit the model.
    """
    names, vectors = _checked(model, vectors, names)
    return assemble(collect(model, rows, vectors * (alpha / len(vectors) ** 0.5), names))


def per_sample_gram(
    model: Transformer, rows: Tensor, vectors: Tensor, alpha: float = 1.0, names: set[str] | None = None
) -> Tensor:
    """The same from its definition: the gradient of every example, then all their inner products; n x weights of memory."""
    names, vectors = _checked(model, vectors, names)
    traced = Traced(model)
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
