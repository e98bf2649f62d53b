"""Squared errors of predictions in context, token by token (Hoogland et al., arXiv 2402.02364). No loss is halved."""

from collections.abc import Callable

import torch
from torch import Tensor


def token_losses(predictions: Tensor, y: Tensor) -> Tensor:
    """ell_k, the mean over sequences of (yhat_k - y_k)^2: two of (..., B, K) -> (..., K)."""
    return (predictions - y).square().mean(-2)


def subsequence_mse(losses: Tensor) -> Tensor:
    """Mean loss of a prefix of uniformly random length, in expectation: ell (..., K) -> (...).

    E_k'[mean_{k <= k'} ell_k] = sum_k ell_k (1/K) sum_{k' >= k} 1/k', in place of random prefixes.
    """
    return (losses * subsequence_weights(losses)).sum(-1)


def subsequence_weights(losses: Tensor) -> Tensor:
    """(1/K) sum_{k' >= k} 1/k' (K,), for losses (..., K)."""
    length = losses.shape[-1]
    inverse = 1 / torch.arange(1, length + 1, dtype=losses.dtype, device=losses.device)
    return inverse.flip(0).cumsum(0).flip(0) / length


def objective(model: Callable, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What training and sampling descend: the mean of ell_k over k (...), and ell_k (..., K)."""
    losses = token_losses(model(x, y), y)
    return losses.mean(-1), losses
