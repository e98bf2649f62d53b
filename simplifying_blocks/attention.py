"""Shaped attention (alpha I + beta A - gamma C) V without a T x T matrix of its own (He & Hofmann Eq 5; Noci et al. 2023).

A is the softmax of causal scores and C[t, s] = 1/t for s <= t, so that C V is a running mean of the values; where attention
looks both ways C[t, s] = 1/T. The three coefficients are independent: a missing one is a missing term.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from simplifying_blocks.positions import PAD, fold_alibi

Gain = float | Tensor | None


def scaled(x: Tensor, gain: Gain) -> Tensor | None:
    """gain * x; None is a term that is not there."""
    if gain is None:
        return None
    return x if isinstance(gain, float) and gain == 1 else x * gain


def total(*terms: Tensor | None) -> Tensor:
    """Sum of the terms that are there; at least one is."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], present[0])


def wide(x: Tensor) -> torch.dtype:
    """The type of x, or single precision if that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def running_sum(v: Tensor, before: Tensor | None = None) -> Tensor:
    """Sums of v (B, H, T, d_k) up to each position, after a sum `before` (B, H, 1, d_k); half precision would drift."""
    sums = v.cumsum(-2, dtype=wide(v))
    return sums if before is None else sums + before


def running_mean(sums: Tensor, seen: int = 0) -> Tensor:
    """C V from the running sums (B, H, T, d_k) of positions seen + 1 to seen + T."""
    counts = torch.arange(seen + 1, seen + 1 + sums.shape[-2], device=sums.device, dtype=sums.dtype)
    return sums / counts[:, None]


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, cap: float | None, slopes: Tensor | None
) -> Tensor:
    """A v with the scores written out: for a cap on them, which fused attention lacks, and for biases that look both ways."""
    scores = (q @ k.mT * q.shape[-1] ** -0.5).to(wide(q))
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    reach, keys = q.shape[-2], k.shape[-2]
    distance = torch.arange(keys - reach, keys, device=q.device)[:, None] - torch.arange(keys, device=q.device)
    if slopes is not None:
        scores = scores - slopes[:, None, None] * distance.abs()
    if causal:
        scores = scores.masked_fill(distance < 0, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = True, cap: float | None = None, slopes: Tensor | None = None
) -> Tensor:
    """A v of queries (B, H, T, d_k), which are the last T of the S positions of keys and values (B, H, S, d_k).

    cap: scores s become cap * tanh(s / cap). slopes (H): scores get -m_h |t - s| (ALiBi).
    """
    if cap is not None or slopes is not None and not causal:
        return explicit_attention(q, k, v, causal, cap, slopes)
    width, scale = v.shape[-1], q.shape[-1] ** -0.5
    if slopes is not None:
        (q, k), v = fold_alibi(q, k, slopes), F.pad(v, (0, PAD))
    reach, keys = q.shape[-2], k.shape[-2]
    mask = None
    if causal and 1 < reach < keys:
        mask = torch.ones(reach, keys, dtype=torch.bool, device=q.device).tril(keys - reach)
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal and reach == keys and reach > 1, scale=scale)
    return out[..., :width]


def shape(v: Tensor, attended: Tensor | None, mean: Tensor | None, alpha: Gain, beta: Gain, gamma: Gain) -> Tensor:
    """alpha v + beta (A v) - gamma (C v) for v, A v, C v of (B, H, T, d_k) and coefficients per head (H) or shared.

    Summed in at least single precision, because beta A - gamma C cancels at initialisation.
    """
    alpha, beta, gamma = (g[:, None, None] if isinstance(g, Tensor) else g for g in (alpha, beta, gamma))
    centre = None if gamma is None else -scaled(mean, gamma)
    attended = None if beta is None else scaled(attended, beta)
    return total(centre, scaled(v, alpha), attended).to(v.dtype)


class Cache:
    """Keys, values and the sum of the values of the tokens seen so far, per layer; filled from the left, room for so many."""

    def __init__(self, room: int):
        self.room, self.seen, self.pairs, self.sums = room, 0, {}, {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, H, T, d_k) of a layer; all of that layer's so far, (B, H, seen + T, d_k) each."""
        if layer not in self.pairs:
            self.pairs[layer] = [t.new_empty(*t.shape[:-2], self.room, t.shape[-1]) for t in (k, v)]
        end = self.seen + k.shape[-2]
        for held, new in zip(self.pairs[layer], (k, v), strict=True):
            held[..., self.seen : end, :] = new
        return tuple(held[..., :end, :] for held in self.pairs[layer])

    def mean(self, layer: int, v: Tensor) -> Tensor:
        """C V at the positions of v (B, H, T, d_k), which follow those seen."""
        sums = running_sum(v, self.sums.get(layer))
        self.sums[layer] = sums[..., -1:, :]
        return running_mean(sums, self.seen)
