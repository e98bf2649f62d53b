"""A Llama decoder of the paper's sizes, with muP by scaling (Johnston & Belrose, arXiv 2502.03490; Yang et al. 2022).

RMSNorm, rotary positions, SwiGLU of width 4d, no biases, heads of 16 dimensions, logits at the asked positions only. A stack
has a leading axis R. `to_llama` gives the same function as a `transformers.LlamaForCausalLM`.
"""

import functools
import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from common.limits import Count, Positive, Range
from common.replicas import embedding, linear

INIT, THETA, EPS = 0.02, 10_000.0, 1e-6


def width_of(num_params: float, layers: int) -> int:
    """The authors' width for a requested count: 16 floor(floor(sqrt((n - 320000) / (12 L))) / 16), at least 16.

    Their constants are guesses, so that the real count differs by -30% to +55%.
    """
    return max(16, math.isqrt(max(int((num_params - 320_000) / (12 * layers)), 0)) // 16 * 16)


@dataclass
class Model:
    """Sizes and switches; those of the paper's smallest two-hop model by default."""

    d: Annotated[int, Range(1, 10**5)] = 64
    """Width of the residual stream."""
    num_params: Count | None = None
    """The authors' requested count, in place of d: d = 16 floor(floor(sqrt((n - 320000) / (12 layers))) / 16)."""
    layers: Annotated[int, Range(1, 1000)] = 4
    """Blocks."""
    head_dim: Annotated[int, Range(2, 1024)] = 16
    """Width of a head, even; it divides d."""
    mup: bool = True
    """Attention scores over head_dim in place of its root; logits, initial weights and learning rates by m = d / base_d."""
    base_d: Annotated[int, Range(1, 10**5)] | None = None
    """Width at which m is 1; null: the authors' width for 225,000 layers parameters (64, 96, 128 for 2, 4, 12 layers)."""
    tie: bool = False
    """The readout is the embedding."""
    init: Positive = INIT
    """Standard deviation of initial weights at base_d."""

    def __post_init__(self):
        if self.num_params is not None:
            self.d = width_of(self.num_params, self.layers)
        if self.d % self.head_dim or self.head_dim % 2:
            raise ValueError(
                f"found model.head_dim {self.head_dim} for model.d {self.d}, expected an even divisor of it: "
                f"--model.d {math.ceil(self.d / 16) * 16} --model.head_dim 16"
            )

    @property
    def m(self) -> float:
        """Width over base width; 1 without muP."""
        return self.d / (self.base_d or width_of(225_000 * self.layers, self.layers)) if self.mup else 1.0

    def parameters(self, vocabulary: int) -> int:
        """Trained parameters: 2 V d + L (16 d^2 + 2 d) + d, embedding and readout included."""
        return (1 if self.tie else 2) * vocabulary * self.d + self.layers * (16 * self.d**2 + 2 * self.d) + self.d


@functools.cache
def rotations(length: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, (T, head_dim) each, the second half as the first."""
    with torch.inference_mode(False):
        rates = THETA ** -(torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
        angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), rates).repeat(1, 2)
        return angles.cos().to(dtype), angles.sin().to(dtype)


@functools.cache
def causal_mask(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 where a key (rows) is seen by a query (columns), -inf where it comes later: (T, T)."""
    with torch.inference_mode(False):
        return torch.full((length, length), -torch.inf, device=device, dtype=dtype).tril_(-1)


def rotate(x: Tensor) -> Tensor:
    """x (..., T, head_dim) by rotary positions 0 .. T - 1, halves paired as in Llama."""
    cos, sin = rotations(x.shape[-2], x.shape[-1], x.device, x.dtype)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """x / sqrt(mean x^2 + eps) * gain; gain (d,), or stacked (R, d) for x (R, ..., d)."""
    if gain.dim() == 1:
        return F.rms_norm(x, gain.shape, gain, EPS)
    return F.rms_norm(x, x.shape[-1:], eps=EPS) * gain.view(len(gain), *[1] * (x.dim() - 2), -1)


class Attention(nn.Module):
    """Causal attention with rotary positions; the rows of `qkv` are the queries', keys' and values'."""

    def __init__(self, config: Model):
        super().__init__()
        self.head_dim = config.head_dim
        self.scale = 1 / config.head_dim if config.mup else config.head_dim**-0.5
        self.qkv = nn.Linear(config.d, 3 * config.d, bias=False)
        self.out = nn.Linear(config.d, config.d, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """u (..., T, d) -> (..., T, d)."""
        q, k, v = linear(u, self.qkv.weight).unflatten(-1, (3, -1, self.head_dim)).unbind(-3)
        q, k, v = rotate(q.transpose(-3, -2)), rotate(k.transpose(-3, -2)), v.transpose(-3, -2)
        return linear(self.attend(q, k, v).transpose(-3, -2).flatten(-2), self.out.weight)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(scale q k^T) v under the causal mask, all (..., H, T, head_dim)."""
        if fused_is_faster(q):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        # Over the last axis but one: a softmax over a last axis of 7, no whole vector, is slow on a CPU.
        return torch.softmax(k @ (q * self.scale).mT + causal_mask(q.shape[-2], q.device, q.dtype), -2).mT @ v


def fused_is_faster(q: Tensor) -> bool:
    """Whether the fused kernel is the faster one."""
    return q.is_cuda or q.shape[-2] > 64


class Block(nn.Module):
    """x + attention(norm x), then that + SwiGLU(norm of it); the rows of `up` are those of the gate, then of the value."""

    def __init__(self, config: Model):
        super().__init__()
        self.attention = Attention(config)
        self.up = nn.Linear(config.d, 8 * config.d, bias=False)
        self.down = nn.Linear(4 * config.d, config.d, bias=False)

    def forward(self, x: Tensor, gains: tuple[Tensor, Tensor]) -> Tensor:
        """x (..., T, d) -> (..., T, d); gains of the two norms."""
        x = x + self.attention(rms_norm(x, gains[0]))
        gate, value = linear(rms_norm(x, gains[1]), self.up.weight).chunk(2, -1)
        return x + linear(F.silu(gate) * value, self.down.weight)


class Llama(nn.Module):
    """Logits of the next token at asked positions. Initial weights are drawn from `generator` (on the CPU) alone.

    The hidden matrices come last among the parameters: they have a learning rate of their own.
    """

    def __init__(self, config: Model, vocabulary: int, generator: Generator):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocabulary, config.d)
        self.gains = nn.Parameter(torch.ones(2 * config.layers + 1, config.d))
        self.readout = None if config.tie else nn.Linear(config.d, vocabulary, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        initialise(self, generator)

    def forward(self, tokens: Tensor, where: Tensor) -> Tensor:
        """tokens (..., B, T), where (..., B, A) positions -> logits (..., B, A, V)."""
        x, gains = embedding(tokens, self.embedding.weight), self.gains.unbind(-2)
        for layer, block in enumerate(self.blocks):
            x = block(x, gains[2 * layer : 2 * layer + 2])
        asked = x.gather(-2, where[..., None].expand(*where.shape, x.shape[-1]))
        readout = self.embedding if self.readout is None else self.readout
        return linear(rms_norm(asked, gains[-1]) / self.config.m, readout.weight)


@torch.no_grad()
def initialise(model: Llama, generator: Generator) -> None:
    """Normal weights: std `init` for embedding and readout; with muP init / sqrt(m) for hidden matrices, and that over
    sqrt(2L) for the attention's output."""
    c = model.config
    model.embedding.weight.normal_(0, c.init, generator=generator)
    if model.readout is not None:
        model.readout.weight.normal_(0, c.init, generator=generator)
    for block in model.blocks:
        for linear_map in (block.attention.qkv, block.attention.out, block.up, block.down):
            last = (2 * c.layers) ** -0.5 if c.mup and linear_map is block.attention.out else 1.0
            linear_map.weight.normal_(0, c.init * c.m**-0.5 * last, generator=generator)


def to_llama(model: Llama):
    """The same function as a `transformers.LlamaForCausalLM`: queries and readout take up muP's factors (fp32, eager).

    A tied model with m other than 1 has no such twin: its readout is given as a matrix of its own.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    c, vocabulary = model.config, model.embedding.num_embeddings
    twin = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=c.d, intermediate_size=4 * c.d, num_hidden_layers=c.layers,
            num_attention_heads=c.d // c.head_dim, head_dim=c.head_dim, rms_norm_eps=EPS, rope_theta=THETA,
            max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    readout = model.embedding if model.readout is None else model.readout
    weights = {
        "model.embed_tokens.weight": model.embedding.weight,
        "lm_head.weight": readout.weight / c.m,
        "model.norm.weight": model.gains[-1],
    }
    for number, block in enumerate(model.blocks):
        q, k, v = block.attention.qkv.weight.chunk(3)
        gate, up = block.up.weight.chunk(2)
        own = {
            "input_layernorm": model.gains[2 * number],
            "post_attention_layernorm": model.gains[2 * number + 1],
            "self_attn.q_proj": q * block.attention.scale * c.head_dim**0.5,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.down.weight,
        }
        weights |= {f"model.layers.{number}.{name}.weight": value for name, value in own.items()}
    twin.load_state_dict(weights)
    return twin
