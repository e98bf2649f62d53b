"""BERT on matrix cells (paper section 2): a post-LN encoder without token types that predicts a real number per cell.

Parameter names are those of `transformers.BertModel` under `bert.`-less keys, so a stock model and this one exchange weights.
One argument opens the model up: `hook(site, layer, value) -> value` sees, and may replace, what passes these sites:

    embedding   h_0 (B, N, d)                      layer -1
    attention   softmax weights A (B, H, N, N)     layer 0 .. L-1
    heads       z = A v, per head (B, H, N, d/H)   before the output projection
    hidden      h_{l+1} (B, N, d)                  the layer's output
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from abrupt_learning.data import MASK
from common.limits import Range
from common.replicas import embedding, layer_norm, linear

Hook = Callable[[str, int, Tensor], Tensor]
GROUPS = {
    "token": r"embeddings\.word",
    "position": r"embeddings\.position",
    "embedding": r"embeddings\.",
    "attention": r".*\.attention\.",
    "qkv": r".*\.attention\.self\.",
    "mlp": r"encoder\.layer\.\d+\.(intermediate|output)\.",
    "readout": r"read_out\.",
    "all": "",
    "all but attention": r"(?!.*\.attention\.)",
}
"""Parameters that are trained or moved together, by how their names begin (Fig 8; which LayerNorm goes where is ours)."""


@dataclass
class Model:
    """Sizes of BERT or of GPT."""

    kind: Literal["bert", "gpt"] = "bert"
    """Encoder that regresses cells (BERT), or decoder that writes them out token by token (GPT)."""
    hidden_size: Annotated[int, Range(1, 10**5)] = 768
    """Width d."""
    n_layer: Annotated[int, Range(1, 1000)] = 4
    """Number of layers."""
    n_head: Annotated[int, Range(1, 10**4)] = 8
    """Attention heads per layer; they divide hidden_size."""
    mlp_ratio: Annotated[int, Range(1, 100)] = 4
    """Width of the feed-forward layer over hidden_size."""
    init_std: Annotated[float, Range(0, 100, without=(0,))] = 0.02
    """Standard deviation of the normal init of tables and matrices."""
    mask_embedding: Literal["zero", "learned"] = "zero"
    """The mask token's row: the zero vector for ever (the authors' padding index), or trained."""
    attention: Literal["softmax", "linear"] = "softmax"
    """GPT only. linear: scores q k / sqrt(d_head), causal, neither softmax nor division by length."""
    positions: Annotated[int, Range(0, 10**6)] = 0
    """BERT only: rows of the position table; 0: as many as the cells trained on. The authors have 512."""

    def __post_init__(self):
        if self.hidden_size % self.n_head:
            raise ValueError(f"model.n_head {self.n_head} does not divide model.hidden_size {self.hidden_size}")


def project(module: nn.Linear, x: Tensor) -> Tensor:
    """The module, or a stack of it: x (..., n_in) -> (..., n_out)."""
    return linear(x, module.weight, module.bias)


def normalise(module: nn.LayerNorm, x: Tensor) -> Tensor:
    """The module, or a stack of it, over the last axis of x."""
    return layer_norm(x, module.weight, module.bias, module.eps)


def merge_heads(z: Tensor) -> Tensor:
    """(..., H, N, d/H) -> (..., N, d)."""
    return z.transpose(-3, -2).flatten(-2)


class Projections(nn.Module):
    """Query, key and value matrices: three parameters by name, one matrix product."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., N, d) -> q, k, v of (..., H, N, d/H) each."""
        parts = (self.query, self.key, self.value)
        weight, bias = torch.cat([p.weight for p in parts], -2), torch.cat([p.bias for p in parts], -1)
        split = linear(h, weight, bias).unflatten(-1, (3, self.heads, -1))
        return split.movedim(-3, 0).transpose(-3, -2).unbind(0)


class Dense(nn.Module):
    """The residual half of a block: LN(residual + W x)."""

    def __init__(self, n_in: int, width: int):
        super().__init__()
        self.dense = nn.Linear(n_in, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return normalise(self.LayerNorm, residual + project(self.dense, x))


class Attention(nn.Module):
    """LN(h + W_o concat_h(A v)): (..., N, d) -> (..., N, d), A = softmax(q k^T / sqrt(d/H))."""

    def __init__(self, config: Model):
        super().__init__()
        self.self = Projections(config.hidden_size, config.n_head)
        self.output = Dense(config.hidden_size, config.hidden_size)

    def forward(self, h: Tensor, layer: int, hook: Hook | None) -> Tensor:
        q, k, v = self.self(h)
        if hook is None and h.is_cuda:
            fused = F.scaled_dot_product_attention(*(t.flatten(0, -4) for t in (q, k, v)))
            z = fused.view(q.shape)
        else:  # on a CPU the explicit form is the faster one at these lengths (see bench.py)
            weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, -1)
            weights = weights if hook is None else hook("attention", layer, weights)
            z = weights @ v
        z = z if hook is None else hook("heads", layer, z)
        return self.output(merge_heads(z), h)


class Layer(nn.Module):
    """Attention, then LN(h + W_2 gelu(W_1 h)): (..., N, d) -> (..., N, d)."""

    def __init__(self, config: Model):
        super().__init__()
        width, inner = config.hidden_size, config.mlp_ratio * config.hidden_size
        self.attention = Attention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Dense(inner, width)

    def forward(self, h: Tensor, layer: int, hook: Hook | None) -> Tensor:
        h = self.attention(h, layer, hook)
        h = self.output(F.gelu(project(self.intermediate["dense"], h)), h)
        return h if hook is None else hook("hidden", layer, h)


class Embeddings(nn.Module):
    """LN(token + position): ids (..., N) -> h_0 (..., N, d)."""

    def __init__(self, config: Model, vocabulary: int, cells: int):
        super().__init__()
        self.padding = MASK if config.mask_embedding == "zero" else None
        self.word_embeddings = nn.Embedding(vocabulary, config.hidden_size, self.padding)
        self.position_embeddings = nn.Embedding(config.positions or cells, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=1e-12)

    def forward(self, ids: Tensor, hook: Hook | None) -> Tensor:
        positions = self.position_embeddings.weight[..., : ids.shape[-1], :]
        positions = positions if positions.dim() == 2 else positions[:, None]
        h = normalise(self.LayerNorm, embedding(ids, self.word_embeddings.weight, self.padding) + positions)
        return h if hook is None else hook("embedding", -1, h)


class Bert(nn.Module):
    """ids (B, N) -> predictions (B, N). Weights drawn from N(0, init_std^2), zero biases, torch's own read-out."""

    def __init__(self, config: Model, vocabulary: int, cells: int, generator: Generator | None = None):
        super().__init__()
        self.embeddings = Embeddings(config, vocabulary, cells)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.n_layer))})
        self.read_out = nn.Linear(config.hidden_size, 1)
        initialise(self, config.init_std, generator)

    def forward(self, ids: Tensor, hook: Hook | None = None) -> Tensor:
        h = self.embeddings(ids, hook)
        for number, layer in enumerate(self.encoder["layer"]):
            h = layer(h, number, hook)
        with torch.autocast(h.device.type, enabled=False):  # in fp32 whatever the rest is in
            return project(self.read_out, h.to(self.read_out.weight.dtype)).squeeze(-1)


@torch.no_grad()
def initialise(model: nn.Module, std: float, generator: Generator | None) -> None:
    """Normal matrices and tables, zero biases, the mask row 0, the read-out uniform on +-1/sqrt(d) (torch's default)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0, std, generator=generator)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
    if isinstance(model, Bert):
        bound = 1 / math.sqrt(model.read_out.in_features)
        for parameter in (model.read_out.weight, model.read_out.bias):
            parameter.uniform_(-bound, bound, generator=generator)


def component(model: nn.Module, group: str) -> set[str]:
    """Names of the parameters of one group."""
    return {name for name, _ in model.named_parameters() if re.match(GROUPS[group], name)}
