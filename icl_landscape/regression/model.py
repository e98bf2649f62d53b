"""The in-context regression transformer L2H4 (Hoogland et al., arXiv 2402.02364): pre-LN, causal, real tokens.

One argument opens the model up: `hook(site, layer, value) -> value` sees, and may replace, what passes these sites:

    embedding   tokens and positions (B, T, d)     layer -1
    attention   softmax weights A (B, H, Q, T)     layer 0 .. L-1
    heads       z = A v, per head (B, H, Q, d/H)   before the output projection
    mlp         output of the MLP (B, Q, d)

T is 2K, or 2K - 1 without the last y; Q is T, or K in the last block where only the x tokens ask. A stack has a leading axis R.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from common.limits import Range
from common.replicas import layer_norm, linear
from icl_landscape.regression.data import Data, tokens

Hook = Callable[[str, int, Tensor], Tensor]


@dataclass
class Model:
    """Sizes and switches of the transformer; the sizes are those of the paper."""

    d: Annotated[int, Range(1, 10**5)] = 64
    """Width of the residual stream."""
    heads: Annotated[int, Range(1, 10**4)] = 4
    """Attention heads; they divide d."""
    layers: Annotated[int, Range(1, 1000)] = 2
    """Blocks."""
    d_mlp: Annotated[int, Range(1, 10**6)] = 64
    """Width of the MLP's hidden layer (ReLU)."""
    layer_norm: bool = True
    """LayerNorms with gain and bias, epsilon 1e-5, before attention, MLP and unembedding; off: none of them."""
    include_output: bool = True
    """A matrix without bias after the heads; off: the heads' results are added to the stream side by side."""
    double_residual: bool = False
    """The authors' code adds a block's input twice, x <- 2x + attention + MLP; off: the usual x + attention + MLP."""
    drop_last_y: bool = True
    """Leave out the last token, which no prediction sees: the same predictions and gradients for less work."""
    last_block_at_x: bool = True
    """Ask the last block at x tokens only, and the unembedding for y only: the same predictions and gradients for less work."""

    def __post_init__(self):
        if self.d % self.heads:
            raise ValueError(f"model.heads {self.heads} does not divide model.d {self.d}")


@functools.cache
def causal_mask(length: int, stride: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 where tokens 0, stride, 2 stride, ... may look, -inf at what comes later: (T, Q). Kept, to launch nothing in a step."""
    with torch.inference_mode(False):
        place = torch.arange(length, device=device)
        later = place[:, None] > place[::stride]
        return torch.zeros(later.shape, device=device, dtype=dtype).masked_fill_(later, -torch.inf)


def project(module: nn.Linear, x: Tensor) -> Tensor:
    """The module, or a stack of it: x (..., n_in) -> (..., n_out)."""
    return linear(x, module.weight, module.bias)


def norm(config: Model) -> nn.LayerNorm | None:
    """A LayerNorm, if the model has any."""
    return nn.LayerNorm(config.d) if config.layer_norm else None


def normalise(module: nn.LayerNorm | None, x: Tensor) -> Tensor:
    """The module, or a stack of it, over the last axis of x; x itself where there is none."""
    return x if module is None else layer_norm(x, module.weight, module.bias, module.eps)


class Attention(nn.Module):
    """Causal attention of H heads; the rows of its packed matrix are [head 0: q, k, v | head 1: q, k, v | ...]."""

    def __init__(self, config: Model):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.d, 3 * config.d, bias=False)
        self.output = nn.Linear(config.d, config.d, bias=False) if config.include_output else None

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The query, key and value matrices, (..., d, d) each, rows head by head."""
        per_head = self.qkv.weight.unflatten(-2, (self.heads, 3, -1))
        return tuple(part.flatten(-3, -2) for part in per_head.unbind(-3))

    def split(self, u: Tensor) -> Tensor:
        """(..., T, d) -> (..., H, T, d/H)."""
        return u.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, u: Tensor, stride: int, layer: int, hook: Hook | None) -> Tensor:
        """u (..., T, d) -> (..., Q, d), at every stride-th token."""
        query, key, value = self.parts()
        q = self.split(linear(u[..., ::stride, :], query))
        k, v = (self.split(linear(u, part)) for part in (key, value))
        mask = causal_mask(u.shape[-2], stride, u.device, u.dtype)
        # Explicit, as the fused form has no second derivative, which the Hessian needs; over the last axis but one, as a
        # softmax over a last axis of 15, not a whole vector, takes a CPU fifteen times as long as over one of 16
        weights = torch.softmax(k @ (q * q.shape[-1] ** -0.5).mT + mask, -2).mT
        weights = weights if hook is None else hook("attention", layer, weights)
        z = weights @ v
        z = z if hook is None else hook("heads", layer, z)
        z = z.transpose(-3, -2).flatten(-2)
        return z if self.output is None else project(self.output, z)


class Block(nn.Module):
    """x + attention(LN x), then that + MLP(LN of it); and x once more with the double residual."""

    def __init__(self, config: Model):
        super().__init__()
        self.double = config.double_residual
        self.norm1, self.attention = norm(config), Attention(config)
        self.norm2 = norm(config)
        self.fc1, self.fc2 = nn.Linear(config.d, config.d_mlp), nn.Linear(config.d_mlp, config.d)

    def forward(self, x: Tensor, stride: int, layer: int, hook: Hook | None) -> Tensor:
        """x (..., T, d) -> (..., Q, d), at every stride-th token."""
        attention = self.attention(normalise(self.norm1, x), stride, layer, hook)
        x = x[..., ::stride, :]
        middle = x + attention
        out = project(self.fc2, F.relu(project(self.fc1, normalise(self.norm2, middle))))
        out = middle + (out if hook is None else hook("mlp", layer, out))
        return x + out if self.double else out


class Transformer(nn.Module):
    """Predictions of y at the x tokens. Initial weights are torch's defaults, drawn from `generator` (on the CPU) alone."""

    def __init__(self, config: Model, data: Data, generator: Generator):
        super().__init__()
        self.config = config
        self.token = nn.Linear(data.D + 1, config.d, bias=False)
        self.position = nn.Linear(2 * data.K, config.d, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = norm(config)
        self.unembedding = nn.Linear(config.d, data.D + 1)
        initialise(self, generator)

    def forward(self, x: Tensor, y: Tensor, hook: Hook | None = None) -> Tensor:
        """yhat (..., B, K) for x (..., B, K, D) and y (..., B, K); fewer than the K examples of training will do."""
        stream = self.embed(x, y)
        stream = stream if hook is None else hook("embedding", -1, stream)
        at_x = self.config.last_block_at_x
        for layer, block in enumerate(self.blocks):
            last = block is self.blocks[-1]
            stream = block(stream, 2 if last and at_x else 1, layer, hook)
        z = normalise(self.norm, stream)
        return self.read(z).squeeze(-1) if at_x else project(self.unembedding, z)[..., ::2, 0]

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream before the first block (..., B, T, d)."""
        sequence = tokens(x, y)
        sequence = sequence[..., :-1, :] if self.config.drop_last_y else sequence
        positions = self.position.weight.mT[..., : sequence.shape[-2], :]
        # A stack's positions (R, T, d) are shared by the batch
        return project(self.token, sequence) + (positions if positions.dim() == 2 else positions[:, None])

    def read(self, z: Tensor) -> Tensor:
        """Component 0 of the unembedding, the prediction of y: (..., d) -> (..., 1)."""
        return linear(z, self.unembedding.weight[..., :1, :], self.unembedding.bias[..., :1])


@torch.no_grad()
def initialise(model: nn.Module, generator: Generator) -> None:
    """Weights and biases of every linear map uniform on +-1/sqrt(inputs); LayerNorms stay at gain 1 and bias 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
