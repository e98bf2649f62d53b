"""The transformer, computed by the exact shortcut for two-operand inputs (paper section 2.1, appendix C).

Only the last query reaches the logits, and it is the same vector for every pair; keys and values depend on the token and its
position alone. So one layer needs 2P + 1 key and value rows instead of 3N, and with the output projection folded into
the values a pair costs h + h + h numbers and one weighted sum. estimators/trace.py has the literal form from the same
parameters.

Parameters may carry a leading replica axis (R, ...), as in common.replicas.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.limits import Range, Share
from common.replicas import layer_norm, linear
from layernorm_grok.placement import Placement

FINAL_EPS = 1e-5
POSITION_STD = 0.02


@dataclass
class Model:
    d: Annotated[int, Range(1, 10**5)] = 128
    """Width."""
    heads: Annotated[int, Range(1, 10**4)] = 4
    """Attention heads; they divide d."""
    layers: Annotated[int, Range(1, 1000)] = 1
    """Blocks."""
    mlp_ratio: Annotated[int, Range(1, 100)] = 4
    """MLP width over d."""
    act: Literal["relu", "gelu"] = "relu"
    """The released default is relu; the runs behind the paper's figures used gelu, as the norms of their first updates tell."""
    mlp: Literal["ff", "glu"] = "ff"
    """Two linear maps, or three with a SiLU gate, which leaves `act` unused."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm, or RMSNorm (a gain, no bias)."""
    norm_eps: Share = 0.0
    """Epsilon of the norms inside the blocks; in peri, as the authors have it, at least 1e-5 before and after the MLP."""
    init: Literal["lecun", "kaiming", "default"] = "lecun"
    """Weights of the output projection and the MLP; default is that of torch.nn.Linear. Biases start at 0."""
    unembed: Literal["separate", "tied"] = "separate"
    """Own unembedding, or the embedding again."""
    frozen_norms: bool = False
    """Leave gains and biases of the norms as they start."""

    def __post_init__(self):
        if self.d % self.heads:
            raise ValueError(f"model.d {self.d} is not a multiple of model.heads {self.heads}")


class Output(NamedTuple):
    """What the model gives for N pairs; a stack has a leading axis R."""

    logits: Tensor
    """(..., N, P + 1), before the readout scale alpha."""
    prelogits: Tensor
    """(..., N, d), what the unembedding reads."""


def choose(switch, yes: Callable[[], Tensor], no: Tensor) -> Tensor:
    """yes() or no, by a bool; or row by row of a stack, by a tensor (R,) of bools."""
    if isinstance(switch, Tensor):
        return torch.where(switch.view(-1, *[1] * (no.dim() - 1)), yes(), no)
    return yes() if switch else no


def gather(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of table (V, w) at ids (...); or of a stack (R, V, w) at ids (R, ...)."""
    if table.dim() == 2:
        return F.embedding(ids, table)
    offsets = torch.arange(len(table), device=ids.device) * table.shape[1]
    return F.embedding(ids + offsets.view(-1, *[1] * (ids.dim() - 1)), table.flatten(0, 1))


def truncated_normal(shape, std: float, generator) -> Tensor:
    """N(0, std^2) cut at two std, without correcting the variance: the result has 0.880 std."""
    return nn.init.trunc_normal_(torch.empty(shape), 0.0, std, -2 * std, 2 * std, generator=generator)


class Norm(nn.Module):
    """Gain and bias of a norm; without a bias it is an RMSNorm."""

    def __init__(self, d: int, kind: str, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d)) if kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return layer_norm(x, self.weight, self.bias, self.eps)
        weight = self.weight if self.weight.dim() == 1 else self.weight.view(len(x), *[1] * (x.dim() - 2), -1)
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * weight


class Block(nn.Module):
    """Parameters of one block: packed qkv and output projection without biases, MLP with. norms: epsilon by name."""

    def __init__(self, c: Model, norms: dict[str, float], generator):
        super().__init__()
        d, m = c.d, c.mlp_ratio * c.d
        bound = math.sqrt(6 / (4 * d))
        self.qkv = nn.Parameter(torch.empty(3 * d, d).uniform_(-bound, bound, generator=generator))
        self.out = nn.Parameter(self._matrix(c, d, d, generator))
        for name, rows, columns in [("fc1", m, d), ("fc2", d, m), *([("gate", m, d)] if c.mlp == "glu" else [])]:
            self.register_parameter(name, nn.Parameter(self._matrix(c, rows, columns, generator)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(rows)))
        for name, eps in sorted(norms.items()):
            self.add_module(name, Norm(d, c.norm, eps))

    @staticmethod
    def _matrix(c: Model, rows: int, columns: int, generator) -> Tensor:
        if c.init == "lecun":
            return truncated_normal((rows, columns), columns**-0.5, generator)
        weight = torch.empty(rows, columns)
        if c.init == "kaiming":
            return weight.normal_(0, math.sqrt(2 / columns), generator=generator)
        return weight.uniform_(-(columns**-0.5), columns**-0.5, generator=generator)


class Transformer(nn.Module):
    """Logits of pairs. The initial weights depend on the generator alone: a norm draws nothing.

    norms: LayerNorms of a block that exist; by default those that the placement uses. Replicas of one stack have the
    same ones, and those that a replica's placement leaves unused stay at gain 1 and bias 0.
    """

    def __init__(self, model: Model, P: int, placement: Placement, generator, norms: set[str] | None = None):
        super().__init__()
        self.c, self.P, self.placement = model, P, placement
        normal = lambda rows, std: nn.Parameter(torch.empty(rows, model.d).normal_(0, std, generator=generator))  # noqa: E731
        self.embed = normal(P + 1, model.d**-0.5)
        self.position = normal(3, POSITION_STD)
        floor = dict.fromkeys(("ln2", "ln4"), FINAL_EPS if placement.peri else 0.0)
        epsilons = {n: max(model.norm_eps, floor.get(n, 0.0)) for n in (placement.norms if norms is None else norms)}
        self.layers = nn.ModuleList(Block(model, epsilons, generator) for _ in range(model.layers))
        if model.unembed == "separate":
            self.unembed = normal(P + 1, model.d**-0.5)
        if placement.final:
            self.final_norm = Norm(model.d, model.norm, FINAL_EPS)

    def switches(self, choice: Tensor | None):
        """(q, k, v, mlp) as bools of this model, or, for a stack, columns of `choice` (R, 4)."""
        if choice is None:
            return self.placement.switches
        return choice.unbind(1) if choice.dim() == 2 else choice.tolist()

    def forward(self, rows: Tensor, choice: Tensor | None = None) -> Output:
        """Output for pair indices rows (N,); of a stack for rows (R, N), with `choice` (R, 4) in the place of `placement`."""
        switches = self.switches(choice)
        x = self.table()
        if self.c.layers == 1:
            z = self.finish(self.layers[0], x[..., -1:, :], gather(self.mix_pairs(x, switches), rows), switches)
        else:
            z = self.deep(x, rows, switches)
        z = self.normalised(z)
        return Output(linear(z, self.embed if self.c.unembed == "tied" else self.unembed), z)

    def normalised(self, z: Tensor) -> Tensor:
        """z (..., d), after the final norm where there is one."""
        if self.placement.final_center:
            plain = F.layer_norm if self.c.norm == "layer" else F.rms_norm
            return plain(z, z.shape[-1:], eps=FINAL_EPS)
        return self.final_norm(z) if self.placement.final else z

    def table(self) -> Tensor:
        """The distinct inputs of layer 1: a at position 0, b at 1, = at 2; (..., 2P + 1, d)."""
        operands, equals = self.embed[..., : self.P, :], self.embed[..., self.P :, :]
        first, second, third = self.position.split(1, -2)
        return torch.cat([operands + first, operands + second, equals + third], -2)

    def project(self, block: Block, x: Tensor, switches) -> list[Tensor]:
        """Queries, keys and values of x (..., T, d), each (..., T, h, d/h)."""
        normed = block.ln1(x) if hasattr(block, "ln1") and not self.placement.post else x
        inputs = [choose(switch, lambda: normed, x) for switch in switches[:3]]
        parts = zip(inputs, block.qkv.chunk(3, -2), strict=True)
        q, k, v = (linear(u, w).unflatten(-1, (self.c.heads, -1)) for u, w in parts)
        return [unit_rms(q), unit_rms(k), v] if self.placement.qk_norm else [q, k, v]

    def mix_pairs(self, x: Tensor, switches) -> Tensor:
        """Attention output at the last position for all pairs (..., P^2, d), from the rows x of `table`.

        exp(score) of a, b and = add up to a softmax per head; the sums over heads of weight times folded value are
        one small product for each a, one for each b and one for =.
        """
        block, P = self.layers[0], self.P
        q, k, v = self.project(block, x, switches)
        score = (k * q[..., -1:, :, :]).sum(-1) * q.shape[-1] ** -0.5
        folded = torch.einsum("...rhe,...dhe->...rhd", v, block.out.unflatten(-1, (self.c.heads, -1)))
        scores = score[..., :P, None, :], score[..., None, P:-1, :], score[..., -1:, None, :]
        weights = torch.stack(torch.broadcast_tensors(*scores)).softmax(0)
        by_a = weights[0] @ folded[..., :P, :, :]
        by_b = weights[1].transpose(-3, -2) @ folded[..., P:-1, :, :]
        equals = weights[2] @ folded[..., -1:, :, :]
        return (by_a + by_b.transpose(-3, -2) + equals).flatten(-3, -2)

    def deep(self, x: Tensor, rows: Tensor, switches) -> Tensor:
        """Prelogits (..., N, d) of several layers: tables in the first, the last query alone in the last."""
        P, first = self.P, self.layers[0]
        ids = torch.stack([rows // P, P + rows % P, torch.full_like(rows, 2 * P)], -1)
        q, k, v = (
            gather(t.flatten(-2), ids).unflatten(-1, (self.c.heads, -1)) for t in self.project(first, x, switches)
        )
        stream = self.finish(first, gather(x, ids), attend(q, k, v, first.out), switches)
        for block in self.layers[1:]:
            last = block is self.layers[-1]
            q, k, v = self.project(block, stream, switches)
            kept = slice(-1, None) if last else slice(None)
            stream = self.finish(block, stream[..., kept, :], attend(q[..., kept, :, :], k, v, block.out), switches)
        return stream.squeeze(-2)

    def finish(self, block: Block, x: Tensor, attention: Tensor, switches) -> Tensor:
        """The rest of a block after its attention output: residual sums, norms and MLP."""
        p = self.placement
        y = x + (block.ln3(attention) if p.peri else attention)
        y = block.ln1(y) if p.post else y
        inner = y if p.post or not hasattr(block, "ln2") else choose(switches[3], lambda: block.ln2(y), y)
        inner = F.normalize(inner, dim=-1, eps=0.0) if p.unit else inner
        out = self.mlp(block, inner)
        z = y + (block.ln4(out) if p.peri else out)
        return block.ln2(z) if p.post else z

    def mlp(self, block: Block, u: Tensor) -> Tensor:
        """The MLP's output (..., d) for its input u (..., d)."""
        inner = linear(u, block.fc1, block.fc1_bias)
        if self.c.mlp == "glu":
            inner = F.silu(linear(u, block.gate, block.gate_bias)) * inner
        else:
            inner = F.relu(inner) if self.c.act == "relu" else F.gelu(inner)
        return linear(inner, block.fc2, block.fc2_bias)


def unit_rms(x: Tensor) -> Tensor:
    """Every head's vector over its root mean square."""
    return F.normalize(x, dim=-1, eps=0.0) * math.sqrt(x.shape[-1])


def attend(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    """Bidirectional attention over three positions: q (..., Q, h, e), k and v (..., 3, h, e) -> (..., Q, d)."""
    weights = (torch.einsum("...qhe,...khe->...hqk", q, k) * q.shape[-1] ** -0.5).softmax(-1)
    return linear(torch.einsum("...hqk,...khe->...qhe", weights, v).flatten(-2), out)
