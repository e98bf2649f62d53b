"""Transformer blocks as equations: one class, whose gains, bases and norms are settings (recipe.py has the named ones).

Symbols: X (B, T, d) the stream; N1, N2 norms (RMSNorm unless set); MLP(x) = act(alpha_MLP x W_in) W_out; and attention

    Attn(x) = concat_h[(alpha_h I + beta_h A_h - gamma_h C) V_h(x)] P,      V_h(x) the columns of x V for head h,
    A_h = softmax(q_h k_h^T / sqrt(d_k)), causal;      C[t, s] = 1/t for s <= t;      V, P = alpha W0 + beta dW  (Eq 6).

Sequential:  X' = alpha_SA X + beta_SA Attn(N1 X);    out = alpha_FF X' + beta_FF MLP(N2 X').
Parallel:    out = alpha_FF X + beta_SA Attn(N1 X) + beta_FF MLP(N1 X).

    preln         alpha_SA = beta_SA = alpha_FF = beta_FF = 1; alpha_h = gamma_h = 0, beta_h = 1; V, P plain matrices
    postln        X <- N1 X at the entry, X' <- N2 X' in the middle, none in the branches; the final norm closes the last block
    parallel      as preln, MLP and attention reading N1 X (Wang & Komatsuzaki 2021)
    naive         preln with alpha_SA = 0: tokens become alike with depth (rank collapse, Sec 4.1)
    vskipinit     alpha_SA = 0, alpha_h = beta_h = gamma_h = 1, W^Q = 0: attention starts as the identity; V, P start orthogonal
    skipless      the same, V = alpha_V W0 + beta_V dW and P alike, W0 = I, dW = 0 at the start (Eq 6)
    sas           the same with V = P = I but for the first block's V; MLP skip and both norms stay (Sec 4.2)
    sas_p         the parallel form, no skip at all: out = beta_SA Attn(N1 X) + beta_FF MLP(N1 X)    (Sec 4.3)
    sas_p_nonorm  sas_p whose only norm in the blocks is a LayerNorm before the first one's branches (Sec 4.4)
    op            X' = X + beta Attn(X); out = X' + beta MLP(X'): no norm but that of queries and keys (He et al. 2024)

Sources: He & Hofmann, "Simplifying Transformer Blocks" (ICLR 2024); He et al., "Understanding and Minimising Outlier Features
in Transformer Training" (NeurIPS 2024) for op.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from simplifying_blocks.attention import (
    Cache,
    Gain,
    running_mean,
    running_sum,
    scaled,
    shape,
    softmax_attention,
    total,
    wide,
)
from simplifying_blocks.norms import Norm
from simplifying_blocks.positions import rotate
from simplifying_blocks.projections import Projection
from simplifying_blocks.recipe import Model, gains_of

Hook = Callable[[str, int, Tensor], None]
"""Reads, during a forward pass, what passes a site of a block:

    stream          X, after the entry norm if there is one (B, T, d)
    query, key      normalised and rotated (B, H, T, d_k)
    output          of the block (B, T, d)
"""


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, d) -> (B, H, T, d_k)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


class Attention(nn.Module):
    """(B, T, d) twice, what queries and keys read and what values read -> (B, T, d)."""

    def __init__(self, config: Model, gains: dict):
        super().__init__()
        d, everywhere = config.d, config.biases == "all"
        self.config, self.heads, self.causal = config, config.heads, config.objective == "clm"
        self.qk = nn.Linear(d, 2 * d, bias=config.biases != "none") if "beta" in gains else None
        normed = config.qk_norm != "none" and self.qk is not None
        self.qk_norms = nn.ModuleList(Norm(config.qk_norm, d // self.heads, config.norm_eps) for _ in range(2 * normed))
        std = config.std_of("VP")
        self.value = Projection(d, config.init_V, std, gains, everywhere, "V")
        self.projection = Projection(d, config.init_P, std, gains, everywhere, "P")

    def reset(self, generator: Generator | None) -> None:
        """Draw queries and keys; the bias starts at 0."""
        if self.qk is not None:
            for rows, part in zip(self.qk.weight.data.chunk(2), "QK", strict=True):
                rows.normal_(0, self.config.std_of(part), generator=generator)
            if self.qk.bias is not None:
                self.qk.bias.data.zero_()

    def queries_keys(self, x: Tensor, angle: Tensor | None) -> list[Tensor]:
        """(B, T, d) -> q and k, normalised and rotated, (B, H, T, d_k) each."""
        pair = [split_heads(part, self.heads) for part in self.qk(x).chunk(2, -1)]
        if self.qk_norms:
            pair = [norm(part) for norm, part in zip(self.qk_norms, pair, strict=True)]
        return pair if angle is None else [rotate(part, angle) for part in pair]

    def forward(self, x: Tensor, x_v: Tensor, gains: dict[str, Gain], place: "Place", layer: int) -> Tensor:
        v = split_heads(self.value(x_v, gains), self.heads)
        alpha, beta, gamma = (gains.get(name) for name in ("alpha", "beta", "gamma"))
        attended = None if beta is None else self.attend(x, v, place, layer)
        mean = None if gamma is None else self.centre(v, place, layer)
        mixed = shape(v, attended, mean, alpha, beta, gamma)
        return self.projection(mixed.transpose(-3, -2).flatten(-2), gains)

    def attend(self, x: Tensor, v: Tensor, place: "Place", layer: int) -> Tensor:
        """A V, (B, H, T, d_k)."""
        q, k = self.queries_keys(x, place.angle)
        place.show("query", layer, q)
        place.show("key", layer, k)
        q, k = q.to(v.dtype), k.to(v.dtype)
        k, v = (k, v) if place.cache is None else place.cache.extend(layer, k, v)
        return softmax_attention(q, k, v, self.causal, self.config.logit_cap, place.slopes)

    def centre(self, v: Tensor, place: "Place", layer: int) -> Tensor:
        """C V, (B, H, T, d_k), or (B, H, 1, d_k) where attention looks both ways."""
        if not self.causal:
            return v.mean(-2, keepdim=True, dtype=wide(v))
        return running_mean(running_sum(v)) if place.cache is None else place.cache.mean(layer, v)


class Place:
    """What the blocks of one forward pass share: rotations, biases, the cache, the hook."""

    def __init__(
        self,
        angle: Tensor | None = None,
        slopes: Tensor | None = None,
        cache: Cache | None = None,
        hook: Hook | None = None,
    ):
        self.angle, self.slopes, self.cache, self.hook = angle, slopes, cache, hook

    def show(self, site: str, layer: int, value: Tensor) -> None:
        """Let the hook read a value."""
        if self.hook is not None:
            self.hook(site, layer, value)


class Mlp(nn.Module):
    """act(alpha_MLP x W_in) W_out, or with a gate (act(x W_1) * (x W_2)) W_out: (B, T, d) -> (B, T, d)."""

    def __init__(self, config: Model):
        super().__init__()
        self.config, inner, biased = config, config.mlp_ratio * config.d, config.biases == "all"
        self.w_in = nn.Linear(config.d, inner, bias=biased)
        self.w_out = nn.Linear(inner // 2 if config.mlp == "glu" else inner, config.d, bias=biased)

    def reset(self, generator: Generator | None) -> None:
        """Draw both matrices; biases start at 0."""
        for layer, std in ((self.w_in, self.config.std), (self.w_out, self.config.std_of("out"))):
            layer.weight.data.normal_(0, std, generator=generator)
            if layer.bias is not None:
                layer.bias.data.zero_()

    def act(self, x: Tensor) -> Tensor:
        """The activation."""
        if self.config.act == "relu":
            return F.leaky_relu(x, self.config.slope) if self.config.slope else F.relu(x)
        return F.gelu(x, approximate="tanh" if self.config.act == "gelu_tanh" else "none")

    def forward(self, x: Tensor) -> Tensor:
        x = self.w_in(scaled(x, self.config.alpha_MLP))
        if self.config.mlp == "glu":
            gate, value = x.chunk(2, -1)
            return self.w_out(self.act(gate) * value)
        return self.w_out(self.act(x))


class Block(nn.Module):
    """One block: X (B, T, d) -> (B, T, d). config is resolved; trained gains come with the call, fixed ones are kept here."""

    def __init__(self, config: Model, layer: int):
        super().__init__()
        gains = gains_of(config, layer)
        self.layer, self.parallel = layer, config.parallel
        self.fixed = {name: value for name, (value, trained) in gains.items() if not trained}
        shared = {"pre_qk", "pre_v", *(["pre_mlp"] if self.parallel else [])}
        self.sites, kinds = set(config.norms), {}
        if self.sites & shared:
            kinds["pre"] = config.norm
        elif layer == 0 and "first" in self.sites:
            kinds["pre"] = "layer"
            self.sites |= shared
        kinds |= dict.fromkeys(sorted((self.sites - shared) & {"entry", "middle", "pre_mlp"}), config.norm)
        self.norms = nn.ModuleDict({name: Norm(kind, config.d, config.norm_eps) for name, kind in kinds.items()})
        self.attention = Attention(config, gains)
        self.mlp = Mlp(config)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """The norm of that name, if there is one."""
        return self.norms[name](x) if name in self.norms else x

    def forward(self, x: Tensor, gains: dict[str, Tensor], place: Place) -> Tensor:
        gains = self.fixed | gains
        x = self.norm("entry", x)
        place.show("stream", self.layer, x)
        normed = self.norm("pre", x)
        x_qk, x_v, x_mlp = (normed if f"pre_{site}" in self.sites else x for site in ("qk", "v", "mlp"))
        attended = scaled(self.attention(x_qk, x_v, gains, place, self.layer), gains.get("beta_SA"))
        if self.parallel:
            skip = scaled(x, gains.get("alpha_FF"))
        else:
            x = self.norm("middle", total(scaled(x, gains.get("alpha_SA")), attended))
            skip, attended, x_mlp = scaled(x, gains.get("alpha_FF")), None, self.norm("pre_mlp", x)
        out = total(skip, attended, scaled(self.mlp(x_mlp), gains.get("beta_FF")))
        place.show("output", self.layer, out)
        return out
