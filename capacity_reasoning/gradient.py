"""The gradient of `losses.objective` by hand, for rows of a dozen tokens on a CPU, where autograd takes half as long again.

Exact, and tested against autograd in double. What it saves: gains go into the weights; rotary positions are one complex
product; the last block asks at the asked positions alone, its MLP and the readout at those with a target.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from capacity_reasoning.facts.questions import IGNORED, Rows
from capacity_reasoning.model import EPS, THETA, Model
from common.replicas import Replicas

SHORT = 0.6
"""Part of the longest row's tokens under which rows are taken apart from longer ones."""


class Normed(NamedTuple):
    """x / root and 1 / root of rows x (n, d)."""

    unit: Tensor
    rate: Tensor


def normed(x: Tensor) -> Normed:
    """RMSNorm without its gain."""
    rate = torch.linalg.vecdot(x, x).mul_(1 / x.shape[1]).add_(EPS).rsqrt_()[:, None]
    return Normed(x * rate, rate)


def back(norm: Normed, gradient: Tensor) -> Tensor:
    """Gradient of x, from that of its unit."""
    along = torch.linalg.vecdot(gradient, norm.unit).mul_(1 / gradient.shape[1])[:, None]
    return torch.addcmul(gradient, norm.unit, along, value=-1).mul_(norm.rate)


@functools.cache
def turns(length: int, head_dim: int, dtype: torch.dtype) -> Tensor:
    """Rotary positions as complex numbers (T, head_dim / 2)."""
    rates = THETA ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), rates)
    return torch.complex(angles.cos().to(dtype), angles.sin().to(dtype))


@functools.cache
def pairs(d: int, head_dim: int) -> Tensor:
    """Order (3d,) of the rows of qkv in which the two halves of each query and key head alternate."""
    half = torch.arange(head_dim).view(2, -1).T.flatten()
    heads = (torch.arange(0, d, head_dim)[:, None] + half).flatten()
    return torch.cat([heads, d + heads, 2 * d + torch.arange(d)])


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """x (B, T, k, H, head_dim) of alternating halves, times complex (..., T, head_dim / 2)."""
    number = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(number * turn[..., None, None, :]).flatten(-2)


class Asks(NamedTuple):
    """Where the last block and the readout look."""

    places: Tensor
    """(B A,) rows of the stream."""
    chosen: Tensor
    """(n,) those of them with a target."""
    targets: Tensor
    """(n,)."""
    where: Tensor
    """(B, A) positions."""


class Seen(NamedTuple):
    """What the backward pass of a block needs of its forward pass."""

    first: Normed
    qkv_weight: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    turn: Tensor
    weights: Tensor
    z: Tensor
    second: Normed
    up_weight: Tensor
    gate: Tensor
    value: Tensor
    silu: Tensor
    middle: Tensor


class Hand:
    """Loss and gradient of one model on rows; `weights` are its parameters by name."""

    def __init__(self, config: Model, weights: dict[str, Tensor]):
        self.config, self.w = config, {name: value.detach() for name, value in weights.items()}
        self.gradient = {}
        self.gains = torch.zeros_like(self.w["gains"])

    def __call__(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(gradient (P,), loss ()) in the order of the weights."""
        B, T = rows.tokens.shape
        flat = rows.where + torch.arange(0, B * T, T)[:, None]
        chosen = (rows.targets.flatten() != IGNORED).nonzero()[:, 0]
        asks = Asks(flat.flatten(), chosen, rows.targets.flatten()[chosen], rows.where)
        tokens = rows.tokens.flatten()
        x, seen = self.w["embedding.weight"][tokens], []
        for layer in range(self.config.layers):
            x, kept = self.block(layer, x, (B, T), asks if layer == self.config.layers - 1 else None)
            seen.append(kept)
        loss, dx = self.head(x, asks, rows.questions)
        for layer in reversed(range(self.config.layers)):
            dx = self.block_back(layer, dx, seen.pop(), (B, T), asks if layer == self.config.layers - 1 else None)
        embedding = self.gradient.get("embedding.weight", torch.zeros_like(self.w["embedding.weight"]))
        self.gradient["embedding.weight"] = embedding.index_add_(0, tokens, dx)
        self.gradient["gains"] = self.gains
        return torch.cat([self.gradient[name].flatten() for name in self.w]), loss

    def block(self, layer: int, x: Tensor, shape: tuple[int, int], asks: Asks | None) -> tuple[Tensor, Seen]:
        """Stream x (B T, d) after a block; of the last one only rows with a target (n, d)."""
        (B, T), c, name = shape, self.config, f"blocks.{layer}."
        first = normed(x)
        matrix = (self.w[name + "attention.qkv.weight"] * self.w["gains"][2 * layer])[pairs(c.d, c.head_dim)]
        turn = turns(T, c.head_dim, x.dtype)
        heads = (B, -1, c.d // c.head_dim, c.head_dim)
        if asks is None:
            qkv = (first.unit @ matrix.T).view(B, T, 3, *heads[2:])
            q, k = turned(qkv[:, :, :2], turn).unbind(2)
            v, rotation, later = qkv[:, :, 2], turn, self.later(T, x.dtype)
        else:
            kv = (first.unit @ matrix[c.d :].T).view(B, T, 2, *heads[2:])
            rotation = turn[asks.where]
            q = turned((first.unit[asks.places] @ matrix[: c.d].T).view(B, -1, 1, *heads[2:]), rotation)[:, :, 0]
            k, v = turned(kv[:, :, :1], turn)[:, :, 0], kv[:, :, 1]
            later = torch.where(torch.arange(T)[:, None] > asks.where[:, None, None, :], -torch.inf, 0.0).to(x.dtype)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        scale = 1 / c.head_dim if c.mup else c.head_dim**-0.5
        weights = torch.softmax((k @ (q * scale).mT).add_(later), -2)
        z = (weights.mT @ v).transpose(1, 2).reshape(-1, c.d)
        if asks is not None:
            z, x = z[asks.chosen], x[asks.places[asks.chosen]]
        y = torch.addmm(x, z, self.w[name + "attention.out.weight"].T)
        second = normed(y)
        up = self.w[name + "up.weight"] * self.w["gains"][2 * layer + 1]
        gate, value = (second.unit @ up.T).chunk(2, 1)
        silu = F.silu(gate)
        middle = silu * value
        out = torch.addmm(y, middle, self.w[name + "down.weight"].T)
        return out, Seen(first, matrix, q, k, v, rotation, weights, z, second, up, gate, value, silu, middle)

    @staticmethod
    @functools.cache
    def later(T: int, dtype: torch.dtype) -> Tensor:
        """-inf where a key (rows) comes after a query (columns)."""
        return torch.full((T, T), -torch.inf, dtype=dtype).tril_(-1)

    def folded(self, name: str, gain: int, gradient: Tensor) -> Tensor:
        """Gradient of a matrix, from that of matrix times gain; the gain's is added up."""
        self.gains[gain] += torch.linalg.vecdot(gradient, self.w[name], dim=0)
        return gradient * self.w["gains"][gain]

    def head(self, x: Tensor, asks: Asks, questions: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the gradient of the stream's rows with a target (n, d)."""
        c, last = self.config, normed(x)
        name = "embedding.weight" if c.tie else "readout.weight"
        matrix = self.w[name] * (self.w["gains"][-1] / c.m)
        error = torch.softmax(last.unit @ matrix.T, 1)
        places = torch.arange(len(x))
        loss = -error[places, asks.targets].log().sum() / questions
        error[places, asks.targets] -= 1
        error.div_(questions)
        self.gradient[name] = self.folded(name, -1, (error.T @ last.unit) / c.m)
        return loss, back(last, error @ matrix)

    def block_back(self, layer: int, dx: Tensor, s: Seen, shape: tuple[int, int], asks: Asks | None) -> Tensor:
        """Gradient of the block's input (B T, d), from that of its output; its weights' is kept."""
        (B, T), c, name = shape, self.config, f"blocks.{layer}."
        self.gradient[name + "down.weight"] = dx.T @ s.middle
        d_middle = dx @ self.w[name + "down.weight"]
        d_up = torch.empty(len(dx), 8 * c.d, dtype=dx.dtype)
        torch.mul(d_middle, s.silu, out=d_up[:, 4 * c.d :])
        d_up[:, : 4 * c.d] = torch.ops.aten.silu_backward(d_middle.mul_(s.value), s.gate)
        self.gradient[name + "up.weight"] = self.folded(name + "up.weight", 2 * layer + 1, d_up.T @ s.second.unit)
        dy = dx + back(s.second, d_up @ s.up_weight)
        self.gradient[name + "attention.out.weight"] = dy.T @ s.z
        dz = dy @ self.w[name + "attention.out.weight"]
        if asks is not None:
            dz = torch.zeros(asks.where.numel(), c.d, dtype=dx.dtype).index_copy_(0, asks.chosen, dz)
            dy = torch.zeros(B * T, c.d, dtype=dx.dtype).index_add_(0, asks.places[asks.chosen], dy)
        dz = dz.view(B, -1, c.d // c.head_dim, c.head_dim).transpose(1, 2)
        scale = 1 / c.head_dim if c.mup else c.head_dim**-0.5
        dv = s.weights @ dz
        ds = torch._softmax_backward_data(s.v @ dz.mT, s.weights, -2, dx.dtype).mul_(scale)
        dq, dk, dv = (part.transpose(1, 2) for part in (ds.mT @ s.k, ds @ s.q, dv))
        turn = turns(T, c.head_dim, dx.dtype)
        if asks is None:
            dqkv = torch.empty(B, T, 3, *dq.shape[2:], dtype=dx.dtype)
            dqkv[:, :, :2] = turned(torch.stack([dq, dk], 2), turn.conj())
            dqkv[:, :, 2] = dv
            dqkv = dqkv.view(B * T, -1)
            matrix = dqkv.T @ s.first.unit
            unit = dqkv @ s.qkv_weight
        else:
            dkv = torch.stack([turned(dk[:, :, None].contiguous(), turn.conj())[:, :, 0], dv], 2).view(B * T, -1)
            dq = turned(dq[:, :, None].contiguous(), s.turn.conj()).view(-1, c.d)
            matrix = torch.cat([dq.T @ s.first.unit[asks.places], dkv.T @ s.first.unit])
            unit = (dkv @ s.qkv_weight[c.d :]).index_add_(0, asks.places, dq @ s.qkv_weight[: c.d])
        whole = torch.empty_like(matrix).index_copy_(0, pairs(c.d, c.head_dim), matrix)
        self.gradient[name + "attention.qkv.weight"] = self.folded(name + "attention.qkv.weight", 2 * layer, whole)
        return dy + back(s.first, unit)


def fits(settings, replicas: Replicas) -> bool:
    """Whether the way by hand is the faster one: rows of single questions, on a CPU, in fp32."""
    on_cpu = replicas.flat.device.type == "cpu" and settings.precision == "fp32"
    return on_cpu and settings.data.packing == "rows" and not replicas.batched


def by_length(rows: Rows) -> list[Rows]:
    """The rows of one model, or the short ones and the long ones apart where that saves much padding."""
    told = rows.targets != IGNORED
    last, length = torch.where(told, rows.where, -1).amax(1), rows.tokens.shape[1]
    short = last < SHORT * length
    if not short.any() or short.all():
        return [rows]
    return [_trimmed(rows, mine, int(last[mine].max()) + 1, int(told[mine].sum(1).max())) for mine in (short, ~short)]


def _trimmed(rows: Rows, mine: Tensor, length: int, asks: int) -> Rows:
    """Some rows, with so many tokens and asked positions."""
    where = rows.where[mine, :asks].clamp(max=length - 1)
    return Rows(rows.tokens[mine, :length], where, rows.targets[mine, :asks], rows.questions)


def by_hand(config: Model, leaves: list[dict[str, Tensor]], rows: Rows) -> tuple[Tensor, Tensor]:
    """Gradient (R, P) and loss (R,) of a stack, model by model, each on its own rows (R, B, ...)."""
    gradients, losses = [], []
    for weights, *mine in zip(leaves, *rows, strict=True):
        each = [Hand(config, weights)(part) for part in by_length(Rows(*mine))]
        gradient, loss = (sum(parts) for parts in zip(*each, strict=True))
        gradients.append(gradient)
        losses.append(loss)
    return torch.stack(gradients), torch.stack(losses)
