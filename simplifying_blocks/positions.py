"""Positions: sinusoidal table (Vaswani et al. 2017), rotary queries and keys (Su et al. 2021), ALiBi (Press et al. 2022)."""

import math

import torch
from torch import Tensor

BASE = 10_000.0
PAD = 8
"""Channels that a linear bias adds to queries and keys: two carry it, the rest keep the head size a multiple of 8."""
STEP = 256
"""Positions are split as 256 hi + lo, both exact in bfloat16."""


def angles(length: int, width: int) -> Tensor:
    """t / 10000^(2i / width) for positions t = 0 .. length - 1, (length, width / 2), rounded once from double precision."""
    frequencies = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return (torch.arange(length, dtype=torch.float64)[:, None] * frequencies).float()


def sinusoidal(length: int, d: int) -> Tensor:
    """(length, d): sines of the angles in the even channels, cosines in the odd ones."""
    angle = angles(length, d)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i + d_k/2}) of x (..., T, d_k) by angle (T, d_k / 2)."""
    cos, sin = angle.cos(), angle.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def alibi_slopes(heads: int) -> Tensor:
    """Slopes m_h (H): 2^(-8 h / H) for a power of two; else those of the next lower power n, then every other one of 2 n."""
    n = 2 ** math.floor(math.log2(heads))
    own = [2 ** (-8 * (h + 1) / n) for h in range(n)]
    between = [2 ** (-8 * (h + 1) / (2 * n)) for h in range(0, 2 * n, 2)]
    return torch.tensor((own + between)[:heads])


def fold_alibi(q: Tensor, k: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, H, T or S, d_k + 8) whose products, scaled by 1 / sqrt(d_k), carry the bias of causal attention.

    The softmax of a row is blind to what all its keys share, so -m (t - s) may be written m s: a product of a query
    channel and a key channel, which fused attention adds up without a T x T bias.
    """
    positions = torch.arange(k.shape[-2], device=k.device)
    hi, lo = positions.div(STEP, rounding_mode="floor"), positions % STEP
    in_key = torch.stack([hi, lo], -1).to(k.dtype).expand(*k.shape[:-1], 2)
    in_query = q.shape[-1] ** 0.5 * slopes[:, None, None] * slopes.new_tensor([STEP, 1.0])
    in_query = in_query.to(q.dtype).expand(*q.shape[:-1], 2)
    return tuple(torch.nn.functional.pad(torch.cat(parts, -1), (0, PAD - 2)) for parts in ((q, in_query), (k, in_key)))
