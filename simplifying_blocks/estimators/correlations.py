"""Outliers and signal propagation in activations X: kurtosis, correlations of features and of inputs.

Rows of X (n, d) are tokens, columns are features; leading axes of (..., d) are flattened into n. Everything but rms is blind
to the scale of X, and NaN where X is 0. Source: He et al., "Understanding and Minimising Outlier Features in Transformer
Training" (NeurIPS 2024), Secs 2 and 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from simplifying_blocks.estimators.precision import in_single_precision

ROWS = 1024
"""Rows of the n x n Gram matrix held at once, where it is wanted."""


@in_single_precision
def rms(x: Tensor) -> Tensor:
    """(..., d) -> (): root of the mean square of the entries."""
    return x.square().mean().sqrt()


@in_single_precision
def kurtosis(x: Tensor) -> Tensor:
    """(..., d) -> (): (mean_j s_j^4) / (mean_j s_j^2)^2, s_j^2 = mean_rows X_j^2 (Eq 1, uncentred).

    1 where all features are as large, d where one has everything.
    """
    s2 = x.flatten(0, -2).square().mean(0)
    return s2.square().mean() / s2.mean().square()


def feature_moments(x: Tensor) -> Tensor:
    """(n, d) -> F = X^T X / n (d, d), after the mean square of X is 1."""
    moments = x.mT @ x / len(x)
    return moments / moments.diagonal().mean()


def off_diagonal(matrix: Tensor) -> Tensor:
    """(d, d) with zeros on the diagonal, which an outlier can make so large that subtracting it later would cancel."""
    return matrix.diagonal_scatter(torch.zeros_like(matrix.diagonal()))


@in_single_precision
def feature_correlation(x: Tensor) -> Tensor:
    """(..., d) -> (): root mean square over i != j of F = X^T X / n, after the mean square of X is 1 (Sec 3)."""
    d = x.shape[-1]
    return (off_diagonal(feature_moments(x.flatten(0, -2))).square().sum() / (d * (d - 1))).sqrt()


@in_single_precision
def input_correlation(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., d) -> mean () and root mean square () over a != b of G = X X^T / d, after the mean square of X is 1 (Sec 3).

    No n x n matrix: sum G is |sum_a x_a|^2 / d, and sum G^2 is |X^T X|^2 / d^2 (Eq 5); the diagonal is subtracted.
    """
    x = x.flatten(0, -2)
    n, d = x.shape
    squares = x.square().mean(-1)
    diagonal = squares / squares.mean()
    mean = (n * x.mean(0).square().mean() / squares.mean() - 1) / (n - 1)
    square = (n * feature_moments(x).square().sum() / d**2 - diagonal.square().mean()) / (n - 1)
    # Rounding may leave a little less than nothing of nearly orthogonal rows.
    return mean, square.clamp(min=0).sqrt()


@in_single_precision
def cosine(x: Tensor) -> Tensor:
    """(B, T, d) -> (): mean cosine between different positions of a sequence; a row of zeros counts as orthogonal to all.

    With u_t = x_t / |x_t|, the sum over pairs of u_s . u_t is |sum_t u_t|^2 - sum_t |u_t|^2.
    """
    length = x.shape[-2]
    units = F.normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny)
    pairs = units.sum(-2).square().sum(-1) - units.square().sum((-2, -1))
    return pairs.mean() / (length * (length - 1))


@in_single_precision
def eq5_sides(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., d) -> n^2 d Kurt + sum_{i != j} (X^T X)_ij^2 and sum_{a, b} (X X^T)_ab^2, after the mean square is 1 (Eq 5).

    Equal but for rounding. The right side is taken from the n x n matrix, in n^2 d operations: a check, not a diagnostic.
    """
    x = x.flatten(0, -2)
    n, d = x.shape
    features = n**2 * (d * kurtosis(x) + off_diagonal(feature_moments(x)).square().sum())
    x = x / rms(x)
    inputs = sum((rows @ x.mT).square().sum() for rows in x.split(ROWS))
    return features, inputs
