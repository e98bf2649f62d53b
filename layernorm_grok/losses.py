"""Losses and what is read off logits, accurate in float32; leading replica axes pass through.

Cross-entropy in margin form: softplus(logsumexp of the other logits minus the target's), which keeps its digits where
log-softmax in float32 ends at 1.2e-7.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats per example: logits (..., N, C), targets (..., N) -> (..., N)."""
    column = targets[..., None]
    own = logits.gather(-1, column).squeeze(-1)
    return F.softplus(logits.scatter(-1, column, -math.inf).logsumexp(-1) - own)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of examples whose largest logit is the target's: (..., N, C) -> (...)."""
    return (logits.argmax(-1) == targets).to(logits.dtype).mean(-1)


def margin(logits: Tensor) -> Tensor:
    """Mean gap between the two largest logits: (..., N, C) -> (...)."""
    top = logits.detach().topk(2, dim=-1).values
    return (top[..., 0] - top[..., 1]).mean(-1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance to the one-hot target, summed over classes: (..., N, C) -> (..., N)."""
    return (logits - F.one_hot(targets, logits.shape[-1])).square().sum(-1) / 2


def effective_rank_penalty(prelogits: Tensor) -> Tensor:
    """exp(entropy of the normalised eigenvalues of z^T z), z (..., N, d) -> (...), differentiable, in float64.

    NaN where z is not finite, or 0 throughout.
    """
    z = prelogits.double()
    gram = z.mT @ z
    # eigvalsh raises on what is not finite, and one lost replica must not end the others.
    lost = ~gram.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(gram.masked_fill(lost, 0))
    share = (eigenvalues / eigenvalues.sum(-1, keepdim=True)).clamp_min(1e-12)
    return torch.exp(-(share * share.log()).sum(-1)).to(prelogits.dtype)
