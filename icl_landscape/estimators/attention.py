"""What attention looks at: measures of softmax weights by head and token (Hoogland et al., arXiv 2402.02364, appendix D.3.5).

Every function takes causal weights A (..., B, H, T, T), queries in rows, of a batch of B sequences, and gives the mean over
the batch for each head and query: (..., H, T). Tokens are x_1, y_1, x_2, ...; k counts them from 1.
"""

import math

import torch
from torch import Tensor


def entropy(weights: Tensor) -> Tensor:
    """-sum_j a_kj log2 a_kj / log2 k, in [0, 1]: bits over the bits of looking at all k tokens alike; 0 for k = 1."""
    bits = torch.special.entr(weights).sum(-1).mean(-3) / math.log(2)
    # The first token has 0 bits of 0; any denominator will do
    return bits / ordinals(weights).log2().clamp_min(1.0)


def variability(weights: Tensor) -> Tensor:
    """V_k = E_b sum_j |a_kj - mean_b a_kj| / 2, in [0, 1): 0 for a pattern that does not depend on the sequence."""
    mean = weights.mean(-4, keepdim=True)
    return (weights - mean).abs().sum(-1).mean(-3) / 2


def to_itself(weights: Tensor) -> Tensor:
    """a_kk."""
    return weights.diagonal(dim1=-2, dim2=-1).mean(-3)


def to_previous(weights: Tensor) -> Tensor:
    """a_k,k-1; 0 for k = 1."""
    before = weights.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-3)
    return torch.cat([torch.zeros_like(before[..., :1]), before], -1)


def to_x(weights: Tensor) -> Tensor:
    """Sum of a_kj over the x tokens j, by any query."""
    return weights[..., ::2].sum(-1).mean(-3)


def mean_index(weights: Tensor) -> Tensor:
    """sum_j j a_kj / k, in (0, 1]: how far along the sequence so far a token looks; 1 at itself."""
    places = ordinals(weights)
    return (weights @ places).mean(-3) / places


def hardness(weights: Tensor) -> Tensor:
    """max_j a_kj, in (0, 1]: 1 for a head that looks at one token."""
    return weights.amax(-1).mean(-3)


def ordinals(weights: Tensor) -> Tensor:
    """k = 1 .. T."""
    return torch.arange(1, weights.shape[-1] + 1, dtype=weights.dtype, device=weights.device)


MEASURES = {
    "entropy": entropy,
    "variability": variability,
    "self": to_itself,
    "previous": to_previous,
    "x": to_x,
    "mean_index": mean_index,
    "hardness": hardness,
}
