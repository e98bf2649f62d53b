"""How often each value of an entry is drawn."""

import torch
from torch import Tensor

from abrupt_learning.data import Data, factors
from common.device import generator


def entry_shares(data: Data, draws: int = 2**20) -> Tensor:
    """Share (2 half + 1,) of each integer k = -half .. half among rounded entries of X drawn from the law; always the same."""
    source = generator("cpu", 0, "values")
    u, v = (factors((draws, data.rank), data, source) for _ in range(2))
    k = ((u * v).sum(1) * 10**data.precision).round().long().clamp(-data.half, data.half)
    return torch.bincount(k + data.half, minlength=2 * data.half + 1) / draws
