"""The autoregressive variant (paper appendix G): a pre-LN decoder that writes the matrix out after seeing it masked.

A sequence is the N masked cells, a separator, and the N true cells: 2N + 1 tokens, of which all but the first are targets.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from abrupt_learning.data import Batch, Data, from_values
from abrupt_learning.model import Hook, Model, initialise, merge_heads, normalise, project
from common.replicas import embedding

SPARE = 3
"""Ids above the values': two unused ones and the separator, which is the last (405 ids in all for [-2, 2])."""


def separator(data: Data) -> int:
    """Id of [SEP]: the last of the vocabulary."""
    return data.vocabulary + SPARE - 1


def sequence(batch: Batch, data: Data) -> Tensor:
    """Masked cells, separator, true cells: (..., 2N + 1) ids."""
    truth = from_values(batch.target, torch.ones_like(batch.observed), data).ids
    middle = torch.full_like(batch.ids[..., :1], separator(data))
    return torch.cat([batch.ids, middle, truth], -1)


def next_token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy in nats of every next token: logits (..., 2N, V) of the first 2N tokens, ids (..., 2N + 1) -> (..., 2N)."""
    targets = ids[..., 1:]
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


class Block(nn.Module):
    """x + attention(LN x), then x + MLP(LN x); the attention is causal, softmax or linear."""

    def __init__(self, config: Model):
        super().__init__()
        width = config.hidden_size
        self.heads, self.linear_attention = config.n_head, config.attention == "linear"
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        inner = config.mlp_ratio * width
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)})

    def forward(self, x: Tensor, layer: int, hook: Hook | None, cache: "Cache | None") -> Tensor:
        attended = self._attend(normalise(self.ln_1, x), layer, hook, cache)
        x = x + project(self.attn["c_proj"], merge_heads(attended))
        inner = F.gelu(project(self.mlp["c_fc"], normalise(self.ln_2, x)), approximate="tanh")
        return x + project(self.mlp["c_proj"], inner)

    def _attend(self, x: Tensor, layer: int, hook: Hook | None, cache: "Cache | None") -> Tensor:
        split = project(self.attn["c_attn"], x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0)
        q, k, v = split.transpose(-3, -2).unbind(0)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        scores = q @ k.mT * q.shape[-1] ** -0.5
        length, keys = scores.shape[-2:]
        future = torch.ones(length, keys, dtype=torch.bool, device=x.device).triu(1 + keys - length)
        if self.linear_attention:
            weights = scores.masked_fill(future, 0.0)
        else:
            weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        weights = weights if hook is None else hook("attention", layer, weights)
        return weights @ v


class Cache:
    """Keys and values of the tokens seen so far, per layer: (B, H, room, d/H), filled from the left."""

    def __init__(self, room: int):
        self.room, self.seen, self.store = room, 0, {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, H, new, d/H) of a layer; all of that layer's so far."""
        if layer not in self.store:
            self.store[layer] = [t.new_empty(*t.shape[:-2], self.room, t.shape[-1]) for t in (k, v)]
        end = self.seen + k.shape[-2]
        for held, new in zip(self.store[layer], (k, v), strict=True):
            held[..., self.seen : end, :] = new
        return tuple(held[..., :end, :] for held in self.store[layer])


class Gpt(nn.Module):
    """ids (B, 2N + 1) -> logits (B, 2N, V + 3) of the next tokens.

    N(0, init_std^2) weights, residual projections scaled by 1/sqrt(2 n_layer), zero biases, untied head without bias.
    """

    def __init__(self, config: Model, vocabulary: int, cells: int, generator: Generator | None = None):
        super().__init__()
        self.cells = cells
        self.wte = nn.Embedding(vocabulary + SPARE, config.hidden_size)
        self.wpe = nn.Embedding(2 * cells + 1, config.hidden_size)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, vocabulary + SPARE, bias=False)
        initialise(self, config.init_std, generator)
        with torch.no_grad():
            for block in self.h:
                for projection in (block.attn["c_proj"], block.mlp["c_proj"]):
                    projection.weight.mul_((2 * config.n_layer) ** -0.5)

    def forward(self, ids: Tensor, hook: Hook | None = None) -> Tensor:
        return self.logits(ids[..., :-1], hook)

    def logits(self, ids: Tensor, hook: Hook | None = None, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V + 3) after every one of ids (B, T); with a cache, ids follow those it has seen."""
        start = 0 if cache is None else cache.seen
        positions = self.wpe.weight[..., start : start + ids.shape[-1], :]
        x = embedding(ids, self.wte.weight) + (positions if positions.dim() == 2 else positions[:, None])
        for layer, block in enumerate(self.h):
            x = block(x, layer, hook, cache)
        if cache is not None:
            cache.seen += ids.shape[-1]
        with torch.autocast(x.device.type, enabled=False):  # in fp32 whatever the rest is in
            return project(self.lm_head, normalise(self.ln_f, x.to(self.lm_head.weight.dtype)))


@torch.no_grad()
def generate(model: Gpt, prompt: Tensor, length: int, cached: bool = True) -> Tensor:
    """Greedy continuation (B, length) of a prompt (B, T). cached=False recomputes the whole sequence for every token."""
    cache, fresh, made = Cache(prompt.shape[-1] + length) if cached else None, prompt, []
    for _ in range(length):
        made.append(model.logits(fresh, cache=cache)[:, -1].argmax(-1, keepdim=True))
        fresh = made[-1] if cached else torch.cat([prompt, *made], -1)
    return torch.cat(made, -1)


def accuracy(model: Gpt, batch: Batch, data: Data) -> dict[str, float]:
    """Free-running greedy accuracy (share of equal tokens) over all, observed and masked cells, and the decoded values' MSE.

    A generated id that is no value (mask, separator) counts as value 0 in the MSE.
    """
    ids = sequence(batch, data)
    cells = batch.target.shape[-1]
    written = generate(model, ids[:, : cells + 1], cells)
    right = (written == ids[:, cells + 1 :]).double()
    is_value = (written > 0) & (written < data.vocabulary)
    values = torch.where(is_value, (written - data.half - 1) / 10**data.precision, 0.0)
    error = (values - batch.target).double().square()
    shown = batch.observed.double()
    kinds = {"all": torch.ones_like(shown), "observed": shown, "masked": 1 - shown}
    means = {kind: ((right * w).sum() / w.sum(), (error * w).sum() / w.sum()) for kind, w in kinds.items()}
    rows = {f"accuracy_{kind}": float(a) for kind, (a, _) in means.items()}
    return rows | {f"mse_{kind}": float(e) for kind, (_, e) in means.items()}
