"""Norms of the stream, of queries and of keys: LayerNorm, RMSNorm, and SRMSNorm, an RMSNorm without weights."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["layer", "rms", "srms"]


class Norm(nn.Module):
    """Over the last axis of x (..., d), with epsilon inside the root.

    layer: w (x - mean x) / sqrt(var x + eps) + b;  rms: w x / sqrt(mean x^2 + eps);  srms: the same with w = 1.
    """

    def __init__(self, kind: Kind, d: int, eps: float):
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = None if kind == "srms" else nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d)) if kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
