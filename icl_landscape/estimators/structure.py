"""Structure of a transformer's weights: spectra of its embeddings, what its unembedding reads, the gains of its LayerNorms
(Hoogland et al., arXiv 2402.02364, appendix D.3). Every function serves one model, or a stack with leading axes."""

import torch
from torch import Tensor

COLLAPSED = 0.1
"""A LayerNorm's gain below this in size counts as collapsed."""


def normalised_squares(matrix: Tensor) -> Tensor:
    """S_i^2 / sum_j S_j^2 of the singular values, largest first: (..., m, n) -> (..., min(m, n)), in double."""
    squares = torch.linalg.svdvals(matrix.double()).square()
    return squares / squares.sum(-1, keepdim=True)


def overlap(token: Tensor, position: Tensor, rank: int) -> Tensor:
    """Share of each column of a token embedding that the main directions of the positions hold, in [0, 1].

    |U_r^T e_i|^2 / |e_i|^2 with U_r the first `rank` left singular vectors of position (..., d, P), e_i the columns of
    token (..., d, n): (..., n), in double; rank / d for columns without any relation to positions. A projection: all d left
    singular vectors together would only rotate a column, and give 1 whatever it is.
    """
    left = torch.linalg.svd(position.double(), full_matrices=False).U[..., :rank]
    inside = (left.mT @ token.double()).square().sum(-2)
    return inside / token.double().square().sum(-2)


def effective_unembedding(
    weight: Tensor, bias: Tensor, gain: Tensor | float = 1.0, shift: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """w_eff = W_U[0] * gamma (..., d) and b_eff = W_U[0] . beta + b_U[0] (...): yhat = w_eff . z + b_eff of the normalised z.

    weight (..., D + 1, d), bias (..., D + 1) of the unembedding; gain, shift (..., d) of the LayerNorm before it, 1 and 0
    where there is none.
    """
    row = weight[..., 0, :]
    return row * gain, (row * shift).sum(-1) + bias[..., 0]


def participation_ratio(values: Tensor) -> Tensor:
    """(sum v^2)^2 / sum v^4 over the last axis, how many of its numbers matter: 1 for one, n for n alike; in double."""
    squares = values.double().square()
    return squares.sum(-1).square() / squares.square().sum(-1)


def layer_norm_statistics(values: Tensor) -> dict[str, Tensor]:
    """Of a LayerNorm's gains or biases (..., d), each (...): norm, abs_std (of their sizes), std, mean, max, min.

    Standard deviations are those of a sample (d - 1), as in the authors' files.
    """
    return {
        "norm": values.norm(dim=-1),
        "abs_std": values.abs().std(-1),
        "std": values.std(-1),
        "mean": values.mean(-1),
        "max": values.amax(-1),
        "min": values.amin(-1),
    }


def collapsed(gain: Tensor, below: float = COLLAPSED) -> Tensor:
    """Fraction of a LayerNorm's gains (..., d) with |gamma| < below: (...)."""
    return (gain.abs() < below).to(gain.dtype).mean(-1)
