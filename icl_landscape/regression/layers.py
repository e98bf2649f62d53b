"""Parts of the default transformer with a forward and a backward pass by hand, for a stack of models on a CPU.

- No graph is kept, and all models go through an operation together.
- A LayerNorm's gain and bias are folded into the matrix behind it.
- A token enters the first block as a linear image of its D + 1 numbers and its position, which LayerNorm only divides by a
  number sigma of that token. So the block's queries, keys and values are an image of the few features (token / sigma,
  position / sigma, 1), forward and backward.
- Attention is products of contiguous matrices, its keys padded to whole vectors, which a CPU's softmax needs.

Rows are (R, N, d), N = B T tokens or B Q of those that ask; the packed axis 3d is [queries of all heads | keys | values].
A part is given its parameters `p` and files their gradients in `g`, both by name, (R, ...).
"""

import functools

import torch
from torch import Tensor

from icl_landscape.regression.model import Model

Weights = dict[str, Tensor]
QKV = "blocks.{}.attention.qkv.weight"
EPS = 1e-5
VECTOR = 16
"""Numbers in a vector of the widest CPUs."""


def packed(matrix: Tensor, heads: int) -> Tensor:
    """View (R, 3, H, d/H, d), so [queries of all heads | keys | values], of (R, 3d, d) with rows [head 0: q, k, v | ...]."""
    return matrix.view(len(matrix), heads, 3, -1, matrix.shape[-1]).transpose(1, 2)


def unpacked(matrix: Tensor, heads: int) -> Tensor:
    """The inverse, as a copy."""
    return matrix.view(len(matrix), 3, heads, -1, matrix.shape[-1]).transpose(1, 2).flatten(1, 3)


def every(rows: Tensor, T: int, stride: int) -> Tensor:
    """Rows (R, B Q, d) of every stride-th token, from (R, B T, d)."""
    return rows if stride == 1 else rows.view(len(rows), -1, T, rows.shape[-1])[:, :, ::stride].flatten(1, 2)


def add_every(rows: Tensor, T: int, stride: int, more: Tensor) -> None:
    """Add (R, B Q, d) to every stride-th token of (R, B T, d)."""
    there = rows.view(len(rows), -1, T, rows.shape[-1])[:, :, ::stride]
    there += more.view(there.shape)


class Normalised:
    """Rows (R, N, d) less their mean, over their standard deviation."""

    def __init__(self, x: Tensor):
        d = x.shape[-1]
        # With a gain, as without one PyTorch takes a slower way
        self.x, self.rows = x, (x.new_ones(d), x.new_zeros(d))
        self.u, self.mean, self.rstd = torch.native_layer_norm(x, (d,), *self.rows, EPS)

    def backward(self, grad: Tensor) -> Tensor:
        """Gradient of x from that of u."""
        back = torch.ops.aten.native_layer_norm_backward
        return back(grad, self.x, self.x.shape[-1:], self.mean, self.rstd, None, None, [True, False, False])[0]


class Folded:
    """A matrix (R, n, d) behind a LayerNorm's gain and bias: W (g u + b) = (W g) u + W b."""

    def __init__(self, p: Weights, g: Weights, norm: str, matrix: Tensor):
        self.g, self.norm, self.matrix = g, norm, matrix
        self.gain, self.shift = p[f"{norm}.weight"][:, None], p[f"{norm}.bias"][:, None]
        self.gained, self.bias = matrix * self.gain, self.shift @ matrix.mT

    def backward(self, gained: Tensor, bias: Tensor) -> Tensor:
        """Gradient of the matrix, from those of the two (R, n, d), (R, 1, n)."""
        self.g[f"{self.norm}.weight"] = (gained * self.matrix).sum(1)
        self.g[f"{self.norm}.bias"] = (bias @ self.matrix)[:, 0]
        return torch.baddbmm(gained.mul_(self.gain), bias.mT, self.shift)


class Normed:
    """LayerNorm, then a matrix."""

    def __init__(self, p: Weights, g: Weights, norm: str, matrix: Tensor, x: Tensor):
        self.normal, self.map = Normalised(x), Folded(p, g, norm, matrix)

    def forward(self, bias: Tensor) -> Tensor:
        """(R, N, n), from a bias (R, 1, n)."""
        return torch.baddbmm(self.map.bias + bias, self.normal.u, self.map.gained.mT)

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the matrix."""
        matrix = self.map.backward(grad.mT @ self.normal.u, grad.sum(1, keepdim=True))
        return self.normal.backward(grad @ self.map.gained), matrix


class First:
    """The embedding, and queries, keys and values of the first block as images of the features (R, N, D + 1 + T + 1)."""

    def __init__(self, model: Model, p: Weights, g: Weights, sequence: Tensor):
        """sequence: tokens (R, B, T, D + 1)."""
        self.p, self.g, self.heads = p, g, model.heads
        B, T = sequence.shape[1:3]
        token, place = p["token.weight"], p["position.weight"][..., :T]
        self.sequence, places = sequence.flatten(1, 2), torch.eye(T).to(place).repeat(B, 1)
        stream = (self.sequence @ token.mT).view(len(token), B, T, -1).add_(place.mT[:, None])
        self.stream = stream.flatten(1, 2)
        self.normal = Normalised(self.stream)
        ones = 1 / self.normal.rstd
        self.features = torch.cat([self.sequence, places.expand(len(token), -1, -1), ones], -1).mul_(self.normal.rstd)
        image = torch.cat([token, place], -1)
        self.image = image - image.mean(1, keepdim=True)
        self.map = Folded(p, g, "blocks.0.norm1", packed(p[QKV.format(0)], model.heads).flatten(1, 3))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Queries (R, N, d), keys and values (R, N, 2d)."""
        self.out = self.features @ torch.cat([self.map.gained @ self.image, self.map.bias.mT], -1).mT
        return self.out.tensor_split([self.image.shape[1]], -1)

    def backward(self, dq: Tensor, dkv: Tensor, back: Tensor) -> None:
        """back: gradient of the stream (R, N, d) by other ways."""
        grad = torch.cat([dq, dkv], -1)
        maps, bias = (self.features.mT @ grad).mT.tensor_split([self.image.shape[2]], -1)
        matrix = self.map.backward(maps @ self.image.mT, bias.mT)
        self.g[QKV.format(0)] = unpacked(matrix, self.heads)
        # Through sigma, which divides all but the bias
        scale = grad.mul_(self.out.sub_(self.map.bias)).sum(-1, keepdim=True) * self.normal.rstd
        back.addcmul_(self.normal.u, scale, value=-1 / back.shape[-1])
        image = self.map.gained.mT @ maps
        self._embedding(image - image.mean(1, keepdim=True), back)

    def _embedding(self, image: Tensor, back: Tensor) -> None:
        """From the gradients of the centred weights (R, d, D + 1 + T), and of the stream."""
        token, place = image.tensor_split([self.sequence.shape[-1]], -1)
        self.g["token.weight"] = token + (self.sequence.mT @ back).mT
        own = back.view(len(back), -1, place.shape[-1], back.shape[-1]).sum(1).mT
        self.g["position.weight"] = torch.zeros_like(self.p["position.weight"])
        self.g["position.weight"][..., : place.shape[-1]] = own + place


class Later:
    """Queries, keys and values of a later block, whose every stride-th token asks."""

    def __init__(self, model: Model, p: Weights, g: Weights, layer: int, stream: Tensor, T: int, stride: int):
        self.g, self.heads, self.T, self.stride, self.name = g, model.heads, T, stride, QKV.format(layer)
        self.normal = Normalised(stream)
        self.asking = every(self.normal.u, T, stride)
        self.map = Folded(p, g, f"blocks.{layer}.norm1", packed(p[self.name], model.heads).flatten(1, 3))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Queries (R, B Q, d), keys and values (R, B T, 2d)."""
        d = self.asking.shape[-1]
        (q, kv), (b, c) = (part.tensor_split([d], dim) for part, dim in ((self.map.gained, 1), (self.map.bias, 2)))
        return torch.baddbmm(b, self.asking, q.mT), torch.baddbmm(c, self.normal.u, kv.mT)

    def backward(self, dq: Tensor, dkv: Tensor, back: Tensor) -> Tensor:
        """Gradient of the stream (R, B T, d); back: what of it came by other ways (R, B Q, d)."""
        sides, d = ((dq, self.asking), (dkv, self.normal.u)), back.shape[-1]
        bias = torch.cat([grad.sum(1, keepdim=True) for grad, _ in sides], -1)
        matrix = self.map.backward(torch.cat([grad.mT @ u for grad, u in sides], 1), bias)
        self.g[self.name] = unpacked(matrix, self.heads)
        du = dkv @ self.map.gained[:, d:]
        add_every(du, self.T, self.stride, dq @ self.map.gained[:, :d])
        grad = self.normal.backward(du)
        add_every(grad, self.T, self.stride, back)
        return grad


@functools.cache
def mask(T: int, Q: int, dtype: torch.dtype) -> Tensor:
    """0 where the queries, all tokens or every second, may look; -inf at later and padded keys: (Q, T + padding)."""
    with torch.inference_mode(False):
        later = torch.arange(-(-T // VECTOR) * VECTOR) > torch.arange(0, T, 1 if Q == T else 2)[:, None]
        return torch.zeros(later.shape, dtype=dtype).masked_fill_(later, -torch.inf)


def by_head(rows: Tensor, B: int, width: int, length: int = 0) -> Tensor:
    """(R, B T, n width) -> (n R B, T, width), or longer by zeros up to `length`."""
    parts = rows.view(len(rows), B, -1, rows.shape[-1] // width, width).permute(3, 0, 1, 2, 4)
    n, R, _, T, _ = parts.shape
    made = rows.new_empty(n, R, B, max(T, length), width)
    made[..., :T, :] = parts
    made[..., T:, :] = 0
    return made.flatten(0, 2)


def by_token(parts: Tensor, R: int, B: int, T: int) -> Tensor:
    """(n R B, length, width) -> (R, B T, n width)."""
    by_model = parts.view(-1, R, B, *parts.shape[1:])[..., :T, :].permute(1, 2, 3, 0, 4)
    return by_model.reshape(R, B * T, -1)


class Block:
    """A block from its queries, keys and values on."""

    def __init__(self, model: Model, p: Weights, g: Weights, layer: int, B: int):
        self.p, self.g, self.name, self.B = p, g, f"blocks.{layer}.", B
        self.c, self.double = model.d // model.heads, model.double_residual

    def forward(self, x: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """The stream (R, B Q, d) before -> behind the block; queries (R, B Q, d), keys and values (R, B T, 2d)."""
        p, name, (self.R, N, _) = self.p, self.name, q.shape
        self.T, self.Q = kv.shape[1] // self.B, N // self.B
        self.z = by_token(self._attend(q, kv, mask(self.T, self.Q, x.dtype)), self.R, self.B, self.Q)
        middle = torch.baddbmm(x, self.z, p[f"{name}attention.output.weight"].mT)
        self.fc1 = Normed(p, self.g, f"{name}norm2", p[f"{name}fc1.weight"], middle)
        self.hidden = self.fc1.forward(p[f"{name}fc1.bias"][:, None]).clamp_(min=0)
        out = torch.baddbmm(middle, self.hidden, p[f"{name}fc2.weight"].mT).add_(p[f"{name}fc2.bias"][:, None])
        return out.add_(x) if self.double else out

    def _attend(self, q: Tensor, kv: Tensor, seen: Tensor) -> Tensor:
        """z = A v: (H R B, Q, c)."""
        self.q = by_head(q, self.B, self.c)
        self.k, self.v = by_head(kv, self.B, self.c, seen.shape[1]).chunk(2)
        scores = self.q @ self.k.mT
        self.A = torch.add(seen, scores, alpha=self.c**-0.5, out=scores).softmax(-1)
        return self.A @ self.v

    def backward(self, back: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, keys and values, and of the stream (R, B Q, d), from that of what `forward` gave."""
        g, name = self.g, self.name
        g[f"{name}fc2.bias"] = back.sum(1)
        grad = torch.ops.aten.threshold_backward(self._linear(f"{name}fc2", back, self.hidden), self.hidden, 0)
        g[f"{name}fc1.bias"] = grad.sum(1)
        middle, g[f"{name}fc1.weight"] = self.fc1.backward(grad)
        middle += back
        dq, dkv = self._attend_back(self._linear(f"{name}attention.output", middle, self.z))
        return dq, dkv, middle.add_(back) if self.double else middle

    def _linear(self, name: str, grad: Tensor, x: Tensor) -> Tensor:
        """Gradient of x, after that of the matrix."""
        self.g[f"{name}.weight"] = grad.mT @ x
        return grad @ self.p[f"{name}.weight"]

    def _attend_back(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        dz = by_head(grad, self.B, self.c)
        dkv = grad.new_empty(2 * len(self.k), *self.k.shape[1:])
        dk, dv = dkv.chunk(2)
        torch.bmm(self.A.mT, dz, out=dv)
        dS = torch.ops.aten._softmax_backward_data(dz @ self.v.mT, self.A, -1, dz.dtype).mul_(self.c**-0.5)
        torch.bmm(dS.mT, self.q, out=dk)
        return by_token(dS @ self.k, self.R, self.B, self.Q), by_token(dkv, self.R, self.B, self.T)
