"""Exact t-SNE for a few hundred points (van der Maaten & Hinton 2008), in float64 and without randomness.

It starts from principal components, so the same points always give the same picture. Every function takes
leading batch dimensions: many small sets (seeds, checkpoints) are embedded at once.
"""

import math

import torch
from torch import Tensor

from abrupt_learning.estimators.geometry import principal_axes

EXAGGERATION = 12.0
TINY = torch.finfo(torch.float64).eps


def affinities(X: Tensor, perplexity: float) -> Tensor:
    """Conditional affinities p(j|i) (..., N, N) of points X (..., N, d); rows sum to 1, p(i|i) = 0.

    Each row's Gaussian is widened or narrowed by bisection until the row's entropy is log(perplexity).
    """
    squares = torch.cdist(X, X, compute_mode="donot_use_mm_for_euclid_dist").square()
    squares = squares / squares.mean((-2, -1), keepdim=True).clamp_min(TINY)
    squares.diagonal(dim1=-2, dim2=-1).fill_(math.inf)
    low, high = torch.full_like(squares[..., :1], -30.0), torch.full_like(squares[..., :1], 30.0)
    for _ in range(64):
        middle = (low + high) / 2
        P = torch.softmax(-squares * middle.exp(), -1)
        too_wide = torch.special.entr(P).sum(-1, keepdim=True) > math.log(perplexity)
        low, high = torch.where(too_wide, middle, low), torch.where(too_wide, high, middle)
    return P


def joint(X: Tensor, perplexity: float) -> Tensor:
    """Symmetric affinities (..., N, N) that sum to 1."""
    P = affinities(X, perplexity)
    return ((P + P.mT) / (2 * P.shape[-1])).clamp_min(TINY)


def student(Y: Tensor) -> tuple[Tensor, Tensor]:
    """The picture's similarities: kernel 1 / (1 + |y_i - y_j|^2) without its diagonal, and Q, the kernel over its sum."""
    kernel = 1 / (1 + torch.cdist(Y, Y, compute_mode="donot_use_mm_for_euclid_dist").square())
    kernel.diagonal(dim1=-2, dim2=-1).zero_()
    return kernel, (kernel / kernel.sum((-2, -1), keepdim=True)).clamp_min(TINY)


def descend(P: Tensor, Y: Tensor, momentum: float, steps: int) -> Tensor:
    """Y after `steps` of gradient descent on KL(P || Q) with momentum and a gain per coordinate.

    The rate N / (4 sum P) is one over the mean curvature of the attraction. Larger fixed rates, usual for thousands of
    points, overshoot for tens: the picture then hangs on rounding errors and its divergence is some 5% higher.
    """
    rate = P.shape[-1] / (4 * P.sum((-2, -1), keepdim=True))
    velocity, gains = torch.zeros_like(Y), torch.ones_like(Y)
    for _ in range(steps):
        kernel, Q = student(Y)
        pull = (P - Q) * kernel
        gradient = 4 * (pull.sum(-1, keepdim=True) * Y - pull @ Y)
        gains = torch.where(velocity * gradient < 0, gains + 0.2, gains * 0.8).clamp_min(0.01)
        velocity = momentum * velocity - rate * gains * gradient
        Y = Y + velocity
    return Y


def tsne(X: Tensor, perplexity: float = 10.0, steps: int = 1000) -> Tensor:
    """A picture (..., N, 2), centred, of points X (..., N, d), N >= 4, d >= 2; perplexity is held below (N - 1) / 3.

    The affinities are exaggerated for the first 250 steps, as in the original method.
    """
    X = X.double()
    P = joint(X, min(perplexity, 0.99 * (X.shape[-2] - 1) / 3))
    mean, axes = principal_axes(X)
    Y = (X - mean) @ axes
    Y = 1e-4 * Y / Y[..., :1].std(-2, keepdim=True).clamp_min(TINY)
    Y = descend(P, descend(EXAGGERATION * P, Y, 0.5, 250), 0.8, steps - 250)
    return Y - Y.mean(-2, keepdim=True)
