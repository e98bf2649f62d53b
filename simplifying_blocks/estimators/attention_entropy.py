"""Entropy of the softmax of attention, in nats, without a T x T matrix of its own (He & Hofmann, ICLR 2024)."""

import math

import torch
from torch import Tensor

from simplifying_blocks.estimators.precision import in_single_precision

CHUNK = 2**22
"""Scores held at once (16 MiB), unless a single query of all heads and sequences has more."""


@in_single_precision
def attention_entropy(
    q: Tensor, k: Tensor, causal: bool = True, cap: float | None = None, slopes: Tensor | None = None
) -> Tensor:
    """Mean over batch, heads and queries of -sum_s A_ts ln A_ts, A before shaping: q, k (B, H, T, d_k) -> (), in nats.

    q and k as a Hook reads them (blocks.py); cap and slopes (H) as in attention.softmax_attention. The first causal query
    contributes 0.
    """
    rows = q.shape[:-1].numel()
    step = max(1, CHUNK * q.shape[-2] // (rows * k.shape[-2]))
    total = q.new_zeros(())
    for start in range(0, q.shape[-2], step):
        end = start + step
        keys = k[..., :end, :] if causal else k
        total += softmax_entropy(masked_scores(q[..., start:end, :], keys, start, causal, cap, slopes)).sum()
    return total / rows


def masked_scores(q: Tensor, k: Tensor, start: int, causal: bool, cap: float | None, slopes: Tensor | None) -> Tensor:
    """Scores (B, H, C, S) of the queries (B, H, C, d_k) at positions start, start + 1, ...; -inf where a key is ahead."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    positions = torch.arange(start, start + q.shape[-2], device=q.device)
    distance = positions[:, None] - torch.arange(k.shape[-2], device=q.device)
    if slopes is not None:
        scores = scores - slopes[:, None, None] * distance.abs()
    return scores.masked_fill(distance < 0, -torch.inf) if causal else scores


def softmax_entropy(scores: Tensor) -> Tensor:
    """(..., S) -> (...): entropy of softmax(scores) = logsumexp(scores) - sum softmax(scores) scores, with 0 ln 0 = 0."""
    # Both terms are as large as the scores: shifted to a maximum of 0 they do not cancel.
    scores = scores - scores.amax(-1, keepdim=True)
    weights = scores.exp()
    partition = weights.sum(-1)
    scores = scores.masked_fill(weights == 0, 0)
    return partition.log() - torch.linalg.vecdot(weights, scores) / partition


def uniform_entropy(T: int) -> float:
    """(1/T) sum_{t=1}^T ln t, in nats: that of causal attention that looks at all T positions alike; its largest value."""
    return math.lgamma(T + 1) / T
