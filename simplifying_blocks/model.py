"""The language model around the blocks: embeddings, positions, final norm, unembedding, generation and groups of parameters."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from simplifying_blocks.attention import Cache
from simplifying_blocks.blocks import Block, Hook, Place
from simplifying_blocks.norms import Norm
from simplifying_blocks.positions import alibi_slopes, angles, sinusoidal
from simplifying_blocks.projections import Gains, Projection, tie
from simplifying_blocks.recipe import Model, gains_of

FINAL_EPS = 1e-5
DECAYED = ("matrices", "values and projections", "embeddings")
"""Roles with weight decay; norms, biases and gains have none."""


def gain_sizes(config: Model, layer: int) -> dict[str, tuple[float, int]]:
    """name -> (start, entries) of a block's trained gains: H in the attention matrix, d for LayerScale, otherwise 1."""
    sizes = dict.fromkeys(("alpha", "beta", "gamma"), config.heads)
    if config.layer_scale:
        sizes |= dict.fromkeys(("beta_SA", "beta_FF"), config.d)
    return {name: (value, sizes.get(name, 1)) for name, (value, trained) in gains_of(config, layer).items() if trained}


class Transformer(nn.Module):
    """ids (B, T) -> logits (B, T, vocabulary); T is at most `context` where positions have a table.

    All matrices start as N(0, std^2) but for what the block sets; norms at 1, biases at 0.
    """

    def __init__(self, config: Model, vocabulary: int, context: int, generator: Generator | None = None):
        super().__init__()
        self.config = config = config.resolved()
        self.context = context if config.positions in ("learned", "sinusoidal", "rope") else None
        self.token = nn.Embedding(vocabulary, config.d)
        self.position = nn.Embedding(context, config.d) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.gains = Gains([gain_sizes(config, layer) for layer in range(config.layers)])
        self.final_norm = nn.Identity()
        if config.final_norm != "none":
            self.final_norm = Norm(config.final_norm, config.d, FINAL_EPS)
        self.unembedding = None if config.tied else nn.Linear(config.d, vocabulary, bias=False)
        self._tabulate(context)
        self._initialise(generator)

    def _tabulate(self, context: int) -> None:
        """Tables of fixed positions; recomputed, never saved."""
        config, table, angle, slopes = self.config, None, None, None
        if config.positions == "sinusoidal":
            table = sinusoidal(context, config.d)
        if config.positions == "rope":
            angle = angles(context, config.d // config.heads)
        if config.positions == "alibi":
            slopes = alibi_slopes(config.heads)
        for name, value in (("table", table), ("angle", angle), ("slopes", slopes)):
            self.register_buffer(name, value, persistent=False)

    def _initialise(self, generator: Generator | None) -> None:
        for module in (self.token, self.position, self.unembedding):
            if module is not None:
                module.weight.data.normal_(0, self.config.std, generator=generator)
        for block in self.blocks:
            for module in (block.attention, block.attention.value, block.attention.projection, block.mlp):
                module.reset(generator)
        if self.config.tie != "none":
            tie([(block.attention.value, block.attention.projection) for block in self.blocks], self.config.tie)

    def _check(self, end: int) -> None:
        if self.context is not None and end > self.context:
            raise ValueError(f"{end} tokens are more than the context of the model, {self.context}")

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Embeddings (B, T, d) of ids (B, T), the first of which stands at position `start`."""
        x = self.token(ids)
        x = x if self.config.embed_scale == 1 else x * self.config.embed_scale
        table = self.table if self.position is None else self.position.weight
        return x if table is None else x + table[start : start + ids.shape[1]]

    def hidden(self, ids: Tensor, hook: Hook | None = None, cache: Cache | None = None) -> Tensor:
        """What the unembedding reads, (B, T, d). With a cache, ids follow those that it has seen.

        Raises ValueError beyond the context.
        """
        start = 0 if cache is None else cache.seen
        end = start + ids.shape[1]
        self._check(end)
        place = Place(None if self.angle is None else self.angle[start:end], self.slopes, cache, hook)
        x = self.embed(ids, start)
        for block, gains in zip(self.blocks, self.gains(), strict=True):
            x = block(x, gains, place)
        if cache is not None:
            cache.seen = end
        x = self.final_norm(x)
        place.show("unembed", len(self.blocks), x)
        return x

    @property
    def readout(self) -> Tensor:
        """Matrix (vocabulary, d) of the unembedding."""
        return self.token.weight if self.unembedding is None else self.unembedding.weight

    def forward(self, ids: Tensor, hook: Hook | None = None, cache: Cache | None = None) -> Tensor:
        return F.linear(self.hidden(ids, hook, cache), self.readout)


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: Tensor,
    length: int,
    temperature: float = 0.0,
    generator: Generator | None = None,
    cached: bool = True,
) -> Tensor:
    """Continuation (B, length) of a prompt (B, T): greedy at temperature 0, sampled above.

    cached=False recomputes the whole sequence for every token. Raises ValueError where prompt and continuation exceed the
    context, or for a model whose attention looks both ways.
    """
    if model.config.objective != "clm":
        raise ValueError("a masked language model does not continue a prompt: model.objective is mlm")
    end = prompt.shape[1] + length
    model._check(end)
    cache, fresh, made = Cache(end) if cached else None, prompt, []
    for _ in range(length):
        logits = model(fresh, cache=cache)[:, -1]
        made.append(choose(logits, temperature, generator))
        fresh = made[-1] if cached else torch.cat([prompt, *made], 1)
    return torch.cat(made, 1)


def choose(logits: Tensor, temperature: float, generator: Generator | None) -> Tensor:
    """logits (B, V) -> ids (B, 1)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # From the largest one on: the quotient of a tiny temperature must not overflow.
    below = logits.float() - logits.float().amax(-1, keepdim=True)
    return torch.multinomial((below / temperature).softmax(-1), 1, generator=generator)


def role(module: nn.Module, name: str, model: Transformer) -> str:
    """What a parameter of that name in a module is to the optimiser."""
    if isinstance(module, Norm):
        return "norms"
    if isinstance(module, Gains):
        return "gains"
    if name == "bias":
        return "biases"
    if isinstance(module, nn.Embedding) or module is model.unembedding:
        return "embeddings"
    return "values and projections" if isinstance(module, Projection) else "matrices"


def parameters_by_role(model: Transformer) -> dict[str, dict[str, nn.Parameter]]:
    """Role -> name -> parameter; every parameter stands once."""
    roles = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            roles.setdefault(role(module, name.rpartition(".")[2], model), {})[name] = parameter
    return roles


def parameter_groups(
    model: Transformer, lr: float, weight_decay: float, decay_embeddings: bool = True, vp_lr_ratio: float = 1.0
) -> list[dict]:
    """Groups for an optimiser, one per role: name, params, lr, weight_decay.

    vp_lr_ratio scales the rate of the trained value and projection matrices (He & Hofmann, Appendix A).
    """
    groups = []
    for name, parameters in parameters_by_role(model).items():
        decays = name in DECAYED and (decay_embeddings or name != "embeddings")
        rate = lr * vp_lr_ratio if name == "values and projections" else lr
        groups.append(
            {
                "name": name,
                "params": [*parameters.values()],
                "lr": rate,
                "weight_decay": weight_decay if decays else 0.0,
            }
        )
    return groups
