"""How often each value of an entry is drawn, and what a decoder that knows no more than that loses (paper Fig 11)."""

import math

import torch
from torch import Generator, Tensor

from abrupt_learning.data import Data, factors
from common.device import generator


def counts(data: Data, draws: int, source: Generator) -> Tensor:
    """How often (2 half + 1,) each integer k = -half .. half comes among rounded entries of X drawn from the law."""
    u, v = (factors((draws, data.rank), data, source) for _ in range(2))
    k = ((u * v).sum(1) * 10**data.precision).round().long().clamp(-data.half, data.half)
    return torch.bincount(k + data.half, minlength=2 * data.half + 1)


def entry_shares(data: Data, draws: int = 2**20) -> Tensor:
    """Share (2 half + 1,) of each integer k = -half .. half, from draws that are always the same."""
    return counts(data, draws, generator("cpu", 0, "values")) / draws


def marginal_entropy(data: Data, draws: int = 200_000) -> float:
    """Entropy in nats of one rounded entry of X, from so many Monte Carlo draws with the Miller-Madow correction."""
    p = counts(data, draws, torch.Generator().manual_seed(0)).double() / draws
    p = p[p > 0]
    return float(-(p * p.log()).sum() + (len(p) - 1) / (2 * draws))


def entropy_levels(data: Data) -> tuple[float, float]:
    """GPT's two levels of the mean loss over its 2N targets (Fig 11): (nothing but the marginal, observed cells copied).

    Input half: which cells are masked, but for the first, (N - 1)(1 - p) values of entropy H each, one certain separator;
    output half: N cells of entropy H before copying, p N after. At 7 x 7, r = 2, p = 0.3: 4.74 and 2.90 nats.
    """
    cells, p, entropy = math.prod(data.sizes[0]), data.share, marginal_entropy(data)
    one = -p * math.log(p) - (1 - p) * math.log(1 - p) if 0 < p < 1 else 0.0
    masks = cells * one if data.mask == "bernoulli" else math.log(math.comb(cells, round(p * cells)))
    inputs = masks - one + (cells - 1) * (1 - p) * entropy
    return (inputs + cells * entropy) / (2 * cells), (inputs + cells * p * entropy) / (2 * cells)
