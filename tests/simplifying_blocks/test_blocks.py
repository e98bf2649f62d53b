"""The blocks against GPT-2, literal T x T attention and closed forms; what starts where; generation, groups, losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from simplifying_blocks.attention import Cache, explicit_attention, running_mean, running_sum, shape, softmax_attention
from simplifying_blocks.blocks import Place
from simplifying_blocks.losses import IGNORED, cross_entropy
from simplifying_blocks.model import DECAYED, Transformer, choose, generate, parameter_groups, parameters_by_role
from simplifying_blocks.norms import Norm
from simplifying_blocks.positions import alibi_slopes, angles, rotate, sinusoidal
from simplifying_blocks.recipe import BLOCKS, Model

SHAPED = ("vskipinit", "skipless", "sas", "sas_p", "sas_p_nonorm")
VOCABULARY, CONTEXT = 23, 12


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(block: str = "preln", seed: int = 0, moved: bool = False, **settings) -> Transformer:
    """A small model in double precision; moved: every parameter away from where it starts."""
    settings = {"layers": 3, "d": 16, "heads": 4, **settings}
    model = Transformer(Model(block=block, **settings), VOCABULARY, CONTEXT, seeded(seed)).double()
    if moved:
        noise = seeded(seed + 1)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
    return model


def tokens(rows: int = 2, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=seeded(5))


def stream(rows: int = 2, length: int = CONTEXT, d: int = 16) -> torch.Tensor:
    return torch.randn(rows, length, d, generator=seeded(6), dtype=torch.float64)


def values(length: int, heads: int = 4, width: int = 4, dtype=torch.float64) -> list[torch.Tensor]:
    """Queries, keys and values."""
    return [torch.randn(2, heads, length, width, generator=seeded(n), dtype=torch.float64).to(dtype) for n in range(3)]


def assert_close(ours, literal, tolerance=1e-10):
    torch.testing.assert_close(ours, literal, rtol=tolerance, atol=tolerance)


def gains(model: Transformer, layer: int) -> dict:
    return model.blocks[layer].fixed | model.gains()[layer]


def read(model: Transformer, ids: torch.Tensor, site: str) -> list[torch.Tensor]:
    """What passes a site, block by block."""
    seen = []
    model(ids, hook=lambda name, layer, value: seen.append(value) if name == site else None)
    return seen


def next_token_targets(ids):
    """The token that follows; the last position predicts nothing."""
    return F.pad(ids[:, 1:], (0, 1), value=IGNORED)


class Largest(TorchDispatchMode):
    """The most entries that a tensor made inside has."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.entries = max([self.entries, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


# Against the library


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_preln_with_the_weights_of_a_gpt2_gives_its_logits(dtype, tolerance):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT, "vocab_size": VOCABULARY}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3)).to(dtype).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = build(norm="layer", norm_eps=1e-5, biases="all", act="gelu_tanh").to(dtype)
    body = theirs.transformer
    copies = [(ours.token, body.wte), (ours.position, body.wpe), (ours.final_norm, body.ln_f)]
    for block, other in zip(ours.blocks, body.h, strict=True):
        copies += [(block.norms["pre"], other.ln_1), (block.norms["pre_mlp"], other.ln_2)]
        attention, d = block.attention, 16
        for part, rows in ((attention.qk, slice(2 * d)), (attention.value, slice(2 * d, None))):
            part.weight.data.copy_(other.attn.c_attn.weight.mT[rows])
            part.bias.data.copy_(other.attn.c_attn.bias[rows])
        for part, conv in (
            (attention.projection, other.attn.c_proj),
            (block.mlp.w_in, other.mlp.c_fc),
            (block.mlp.w_out, other.mlp.c_proj),
        ):
            part.weight.data.copy_(conv.weight.mT)
            part.bias.data.copy_(conv.bias)
    for part, other in copies:
        part.load_state_dict(other.state_dict())
    ids = tokens()
    assert_close(ours(ids), theirs(ids).logits, tolerance)


# Shaped attention


def literal_attention(q, k, v, alpha, beta, gamma, causal=True, bias=0.0, cap=None):
    """(alpha I + beta A - gamma C) V with every matrix written out; coefficients (H)."""
    length = v.shape[-2]
    seen = torch.ones(length, length, dtype=v.dtype)
    seen = seen.tril() if causal else seen
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    a = (scores + bias).masked_fill(seen == 0, -torch.inf).softmax(-1)
    c = seen / seen.sum(-1, keepdim=True)
    alpha, beta, gamma = (g[:, None, None] for g in (alpha, beta, gamma))
    return (alpha * torch.eye(length, dtype=v.dtype) + beta * a - gamma * c) @ v


def fused(q, k, v, alpha, beta, gamma, causal=True, **options):
    mean = running_mean(running_sum(v)) if causal else v.mean(-2, keepdim=True)
    return shape(v, softmax_attention(q, k, v, causal, **options), mean, alpha, beta, gamma)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("used", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_shaped_attention_is_the_literal_one(used, length, causal):
    q, k, v = values(length)
    coefficients = [u * torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64) for u in used]
    assert_close(fused(q, k, v, *coefficients, causal), literal_attention(q, k, v, *coefficients, causal))


def test_an_absent_coefficient_is_an_absent_term():
    q, k, v = values(9)
    attended, one, zero = softmax_attention(q, k, v), torch.ones(4).double(), torch.zeros(4).double()
    assert_close(shape(v, attended, None, None, 1.0, None), literal_attention(q, k, v, zero, one, zero))
    assert_close(shape(v, None, None, 0.5, None, None), v / 2)
    assert_close(
        shape(v, None, running_mean(running_sum(v)), None, None, 1.0), literal_attention(q, k, v, zero, zero, one)
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_long_sequences_in_low_precision(dtype, tolerance):
    q, k, v = (t[:1, :1].to(dtype) for t in values(4096))
    ones = torch.ones(1)
    literal = literal_attention(*(t.double() for t in (q, k, v)), *[ones.double()] * 3)
    assert (fused(q, k, v, ones, ones, ones).double() - literal).abs().max() < tolerance * literal.abs().max()


@pytest.mark.parametrize("block", ["preln", "sas_p", "skipless"])
def test_nothing_has_the_size_of_an_attention_matrix(block):
    length = 512
    model = Transformer(Model(block=block, layers=2, d=8, heads=2, mlp_ratio=2), 5, length, seeded())
    with Largest() as largest:
        model(torch.zeros(1, length, dtype=torch.long)).sum().backward()
    assert largest.entries < length**2 / 4


@pytest.mark.parametrize("slopes", [None, alibi_slopes(4).double()])
def test_capped_logits_are_capped_before_the_mask(slopes):
    q, k, v = values(17)
    one, zero = torch.ones(4).double(), torch.zeros(4).double()
    distance = torch.arange(17.0).double()[:, None] - torch.arange(17.0)
    bias = 0.0 if slopes is None else -slopes[:, None, None] * distance.abs()
    literal = literal_attention(5 * q, k, v, zero, one, zero, bias=bias, cap=2.0)
    assert_close(softmax_attention(5 * q, k, v, cap=2.0, slopes=slopes), literal)


# What the blocks are at the start


@pytest.mark.parametrize("objective", ["clm", "mlm"])
@pytest.mark.parametrize("block", ["sas", "sas_p", "sas_p_nonorm", "skipless"])
def test_attention_sub_blocks_with_identity_bases_start_as_the_identity(block, objective):
    model, x = build(block, objective=objective), stream()
    for layer, inner in enumerate(model.blocks):
        assert_close(inner.attention(x, x, gains(model, layer), Place(), layer), x)


def test_vskipinit_starts_as_an_orthogonal_map_of_each_token():
    model, x = build("vskipinit"), stream()
    attention = model.blocks[1].attention
    out = attention(x, x, gains(model, 1), Place(), 1)
    assert_close(out, x @ attention.value.weight.mT @ attention.projection.weight.mT)
    assert_close(out @ out.mT, x @ x.mT, 1e-5)


def test_sas_and_sas_p_start_as_one_function():
    sas, sas_p = (build(block, norm_eps=1e-25, layers=5) for block in ("sas", "sas_p"))
    assert_close(sas(tokens()), sas_p(tokens()))


def test_sas_p_block_at_the_start_in_one_line():
    model, x = build("sas_p", layers=18), stream()
    block = model.blocks[4]
    n = x / (x.square().mean(-1, keepdim=True) + 1e-8).sqrt()
    mlp = F.relu(n @ block.mlp.w_in.weight.mT) @ block.mlp.w_out.weight.mT
    assert_close(block(x, model.gains()[4], Place()), n + 0.1 * mlp, 1e-7)


def test_tokens_become_alike_without_a_skip_and_not_with_shaped_attention():
    """Rank collapse (He & Hofmann Sec 4.1): the mean cosine between tokens after 24 blocks."""

    def likeness(block: str) -> float:
        model = Transformer(Model(block=block, layers=24, d=64, heads=4), 500, 32, seeded())
        x = F.normalize(read(model, torch.randint(500, (2, 32), generator=seeded(1)), "output")[-1], dim=-1)
        return float((x @ x.mT).detach().mean())

    assert likeness("naive") > 0.9
    assert all(likeness(block) < 0.2 for block in SHAPED)


# Literal blocks, every parameter away from its start


def literal_branches(model: Transformer, layer: int):
    """Attn(x) and MLP(x) of a block as the equations have them."""
    block, g = model.blocks[layer], gains(model, layer)
    heads = model.config.heads

    def effective(part):
        alpha, beta = g.get(part.alpha, 0.0), g.get(part.beta, 0.0)
        base = torch.eye(16, dtype=torch.float64) if part.base is None else part.base.mT
        return alpha * base + (0.0 if part.weight is None else beta * part.weight.mT)

    def attention(x, x_v):
        q, k = (x @ block.attention.qk.weight.mT + block.attention.qk.bias).chunk(2, -1)
        v = x_v @ effective(block.attention.value)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        if block.attention.qk_norms:
            pairs = zip(block.attention.qk_norms, (q, k), strict=True)
            q, k = (norm.weight * t / (t.square().mean(-1, keepdim=True) + 1e-8).sqrt() for norm, t in pairs)
        coefficients = (torch.zeros(heads).double() + g.get(name, 0.0) for name in ("alpha", "beta", "gamma"))
        out = literal_attention(q, k, v, *coefficients)
        return out.transpose(1, 2).flatten(2) @ effective(block.attention.projection)

    def mlp(x):
        return (x @ block.mlp.w_in.weight.mT).relu() @ block.mlp.w_out.weight.mT

    return attention, mlp


def literal_block(model: Transformer, layer: int, x: torch.Tensor) -> torch.Tensor:
    """The equations of the docstring of blocks.py."""
    name, block, g = model.config.block, model.blocks[layer], gains(model, layer)
    attention, mlp = literal_branches(model, layer)
    n = block.norms
    a_sa, b_sa, a_ff, b_ff = (g.get(part, 0.0) for part in ("alpha_SA", "beta_SA", "alpha_FF", "beta_FF"))
    if name in ("parallel", "sas_p", "sas_p_nonorm"):
        y = n["pre"](x) if n else x
        return a_ff * x + b_sa * attention(y, y) + b_ff * mlp(y)
    if name == "postln":
        x = n["entry"](x)
        x = n["middle"](x + attention(x, x))
        return x + mlp(x)
    if name == "op":
        x = x + b_sa * attention(x, x)
        return x + b_ff * mlp(x)
    y = n["pre"](x)
    x = a_sa * x + b_sa * attention(y, y)
    return a_ff * x + b_ff * mlp(n["pre_mlp"](x))


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_its_equation(block):
    model, x = build(block, moved=True, layers=2), stream()
    for layer in range(2):
        ours = model.blocks[layer](x, model.gains()[layer], Place())
        assert_close(ours, literal_block(model, layer, x), 1e-7)


def test_op_is_preln_without_norms_and_with_fixed_small_branches():
    model = build("op", layers=6)
    assert model.blocks[0].fixed["beta_SA"] == model.blocks[0].fixed["beta_FF"] == pytest.approx(0.3)
    assert model.gains.packed is None and all(len(block.norms) == 0 for block in model.blocks)


@pytest.mark.parametrize(
    "sites, names",
    [
        ([], []),
        (["pre_v"], ["pre"]),
        (["pre_qk"], ["pre"]),
        (["pre_mlp"], ["pre_mlp"]),
        (["entry", "middle"], ["entry", "middle"]),
        (["first"], ["pre"]),
    ],
)
def test_norm_sites_switch_separately(sites, names):
    model, x = build("preln", moved=True, norms=sites), stream()
    assert sorted(model.blocks[0].norms) == sorted(names)
    assert len(model.blocks[1].norms) == (0 if sites == ["first"] else len(names))
    if sites in (["pre_v"], ["pre_qk"]):
        attention, mlp = literal_branches(model, 1)
        y = model.blocks[1].norms["pre"](x)
        middle = x + (attention(x, y) if sites == ["pre_v"] else attention(y, x))
        assert_close(model.blocks[1](x, model.gains()[1], Place()), middle + mlp(middle))


def test_norms_are_their_formulas():
    x = stream(d=16)
    centred = x - x.mean(-1, keepdim=True)
    norms = {kind: Norm(kind, 16, 1e-3).double() for kind in ("layer", "rms", "srms")}
    assert_close(norms["layer"](x), centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt())
    for kind in ("rms", "srms"):
        assert_close(norms[kind](x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt())
    assert [len(list(norm.parameters())) for norm in norms.values()] == [2, 1, 0]


# Counts


def count(model: Transformer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts_of_the_paper():
    """The authors' modules count 40 gains and 7 d biases a block, trained or not; a clean model has those that live."""
    with torch.device("meta"):
        counts = {block: count(Transformer(Model(block=block), 50_000, 1024)) for block in BLOCKS}
    idle_biases = 7 * 768
    assert counts["preln"] == 166_742_736 - 18 * (idle_biases + 40)
    assert counts["parallel"] == counts["preln"] - 18 * 768
    # Live in a SAS block: alpha, beta, gamma of 12 heads, beta_SA, alpha_FF, beta_FF. Idle in the first: the bias of its V.
    assert counts["sas"] == 146_072_018 - 18 * (7 * 768 - 1536 + 1) - 768
    assert counts["sas_p"] == counts["sas"] - 18 * (768 + 1)
    assert counts["sas_p_nonorm"] == counts["sas_p"] - 18 * 768 + 1536
    assert 1 - counts["sas"] / counts["preln"] == pytest.approx(0.124, abs=5e-4)


def test_parameter_counts_of_the_bert():
    """120 and 101 million (He & Hofmann Table 1)."""
    sizes = {"layers": 16, "mlp": "glu", "act": "gelu", "norm": "layer", "objective": "mlm"}
    with torch.device("meta"):
        counts = [count(Transformer(Model(block=block, **sizes), 32_768, 128)) / 1e6 for block in ("preln", "sas")]
    assert counts == pytest.approx([120, 101], abs=0.5)


# Bases


@pytest.mark.parametrize("start", ["normal", "orthogonal", "identity"])
def test_values_are_alpha_base_plus_beta_delta(start):
    model = build("skipless", moved=True, init_V=start, init_P=start, d=64, heads=2)
    part, g, x = model.blocks[1].attention.value, gains(model, 1), stream(d=64)
    base = torch.eye(64, dtype=torch.float64) if start == "identity" else part.base
    if start == "orthogonal":
        assert_close(base @ base.mT, torch.eye(64).double(), 1e-5)
    if start == "normal":
        assert float(base.std()) == pytest.approx(1 / 8, rel=0.05)
    assert_close(part(x, g), x @ (g["alpha_V"] * base + g["beta_V"] * part.weight).mT)
    assert (part.base is None) == (start == "identity")


def test_bases_are_saved_with_the_model():
    first, second = (build("skipless", seed=seed, init_V="orthogonal", init_P="orthogonal") for seed in (0, 1))
    assert (first(tokens()) - second(tokens())).abs().max() > 1e-3
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tokens()), second(tokens()))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("how", ["last_block", "all_blocks"])
def test_tied_bases_undo_each_other(how, layers):
    model = build("skipless", layers=layers, init_V="orthogonal", init_P="orthogonal", tie=how)
    product = torch.eye(16, dtype=torch.float64)
    for block in model.blocks:
        value, projection = block.attention.value.base.mT, block.attention.projection.base.mT
        product = product @ value @ projection
        assert how == "last_block" or torch.equal(projection, value.mT)
    assert_close(product, torch.eye(16).double(), 1e-5)


def test_a_base_alone_has_a_fixed_gain_and_no_matrix():
    model = build("sas")
    roles = parameters_by_role(model)
    assert [*roles["values and projections"]] == ["blocks.0.attention.value.weight"]
    assert {"alpha_V", "beta_V"} <= model.gains()[0].keys() and "alpha_V" not in model.gains()[1]
    assert "base" not in " ".join(model.state_dict())


def test_a_small_beta_is_a_small_learning_rate():
    """He & Hofmann Appendix A: SGD on beta dW moves the matrix as SGD on the matrix at beta^2 times the rate."""
    beta, lr = 0.3, 0.5
    fixed = {"trainable": [], "init_V": "identity", "init_P": "identity"}
    scaled = build("skipless", beta_V=beta, beta_P=beta, **fixed)
    plain = build("skipless", alpha_V="off", alpha_P="off", beta_V=1.0, beta_P=1.0, **fixed)
    plain.load_state_dict(
        scaled.state_dict()
        | {k: v for k, v in plain.state_dict().items() if "attention.value" in k or "projection" in k}
    )
    for model, ratio in ((scaled, 1.0), (plain, beta**2)):
        optimiser = torch.optim.SGD(parameter_groups(model, lr, 0.0, vp_lr_ratio=ratio))
        cross_entropy(model.hidden(tokens()), model.readout, next_token_targets(tokens())).backward()
        optimiser.step()
    assert (plain.blocks[0].attention.value.weight - torch.eye(16)).abs().max() > 1e-4
    assert_close(scaled(tokens()), plain(tokens()))


def test_layer_scale_is_a_gain_per_channel():
    scalar, vector = build("sas_p", moved=False), build("sas_p", layer_scale=True)
    assert_close(scalar(tokens()), vector(tokens()))
    assert vector.gains()[0]["beta_SA"].shape == vector.gains()[0]["beta_FF"].shape == (16,)
    assert scalar.gains()[0]["beta_SA"].shape == (1,)


# Positions


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 8, generator=seeded(), dtype=torch.float64)
    angle = angles(30, 8)
    scores = rotate(q.expand(30, 8), angle) @ rotate(k.expand(30, 8), angle).mT
    for distance in (0, 3, 11):
        diagonal = scores.diagonal(-distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal), 1e-5)
    assert_close(rotate(torch.tensor([[1.0, 0.0]]), angles(4, 2)[3:]), torch.tensor([[math.cos(3), math.sin(3)]]), 1e-6)


def test_sinusoidal_table():
    table = sinusoidal(7, 6)
    assert float(table[5, 2]) == pytest.approx(math.sin(5 / 10_000 ** (2 / 6)), abs=1e-6)
    assert float(table[5, 3]) == pytest.approx(math.cos(5 / 10_000 ** (2 / 6)), abs=1e-6)


def test_alibi_slopes_of_the_paper():
    assert_close(alibi_slopes(8), 0.5 ** torch.arange(1.0, 9.0))
    assert_close(
        alibi_slopes(12), torch.cat([0.5 ** torch.arange(1.0, 9.0), 0.5 ** torch.tensor([0.5, 1.5, 2.5, 3.5])])
    )


@pytest.mark.parametrize("causal", [True, False])
def test_alibi_is_a_bias_of_the_scores(causal):
    q, k, v = values(300)
    slopes, one, zero = alibi_slopes(4).double(), torch.ones(4).double(), torch.zeros(4).double()
    places = torch.arange(300.0).double()
    bias = -slopes[:, None, None] * (places[:, None] - places).abs()
    literal = literal_attention(q, k, v, zero, one, zero, causal, bias)
    assert_close(softmax_attention(q, k, v, causal, slopes=slopes), literal)
    assert_close(explicit_attention(q, k, v, causal, None, slopes), literal)


def test_a_masked_model_sees_both_ways_and_a_causal_one_does_not():
    for block in BLOCKS:
        for objective, sees in (("clm", False), ("mlm", True)):
            model, ids = build(block, moved=True, objective=objective), tokens()
            changed = ids.clone()
            changed[:, -1] = (ids[:, -1] + 1) % VOCABULARY
            moved = (model(ids) - model(changed))[:, :-1].abs().max()
            assert moved > 1e-6 if sees else moved == 0


# Generation


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "alibi", "rope"])
def test_cached_logits_are_those_of_the_whole_sequence(block, positions):
    model, ids = build(block, moved=True, positions=positions), tokens()
    cache, parts = Cache(CONTEXT), []
    for piece in ids.split([4, 1, 1, 3, 3], 1):
        parts.append(model(piece, cache=cache))
    assert_close(torch.cat(parts, 1), model(ids))


@pytest.mark.parametrize("block", BLOCKS)
def test_cached_generation_writes_the_same_text(block):
    model, prompt = build(block, moved=True), tokens(length=4)
    assert torch.equal(generate(model, prompt, 8), generate(model, prompt, 8, cached=False))
    one, other = (generate(model, prompt, 8, temperature=1.0, generator=seeded(3)) for _ in range(2))
    assert torch.equal(one, other)


def test_a_tiny_temperature_takes_the_likeliest_token():
    logits = torch.randn(5, 50, generator=seeded())
    for temperature in (1e-6, 1e-40):
        assert torch.equal(choose(logits, temperature, seeded(1))[:, 0], logits.argmax(-1))


def test_a_cap_is_kept_in_generation():
    model, ids = build(moved=True, logit_cap=0.5), tokens()
    assert torch.equal(generate(model, ids[:, :4], 8), generate(model, ids[:, :4], 8, cached=False))
    assert (model(ids) - build(moved=True)(ids)).abs().max() > 1e-4


# Parameters


def test_the_unembedding_is_the_embedding_or_its_own():
    tied, own = build(tied=True), build(tied=False)
    assert tied.readout is tied.token.weight and own.readout is not own.token.weight
    assert count(own) - count(tied) == VOCABULARY * 16


def test_the_embedding_scale_gives_inputs_of_mean_square_one():
    model = Transformer(Model(d=64, heads=4, layers=1, embed_scale=50.0, positions="none"), 5000, 8, seeded())
    assert float(model.embed(torch.arange(5000)[None]).detach().square().mean()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("kind", ["none", "layer", "rms", "srms"])
def test_the_final_norm_can_be_left_out(kind):
    x = build(final_norm=kind, moved=False)
    last, final = read(x, tokens(), "output")[-1], read(x, tokens(), "unembed")[0]
    assert_close(final, last) if kind == "none" else assert_close(
        final.square().mean(-1), torch.ones(2, CONTEXT).double(), 0.1
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_groups_hold_every_parameter_once_and_decay_matrices_alone(block):
    model = build(block, biases="all", tied=False)
    groups = parameter_groups(model, 1e-3, 0.1, vp_lr_ratio=0.5)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in model.parameters() if p.dim() == 2}
    assert {group["name"] for group in groups if group["weight_decay"]} <= set(DECAYED)
    assert {group["name"] for group in groups if group["lr"] == 5e-4} <= {"values and projections"}
    assert not any(g["weight_decay"] for g in parameter_groups(model, 1e-3, 0.1, False) if g["name"] == "embeddings")


@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_learns_and_all_gains_are_one(block):
    model = build(block, moved=True)
    cross_entropy(model.hidden(tokens()), model.readout, next_token_targets(tokens())).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert sum("gains" in name for name, _ in model.named_parameters()) == (block in SHAPED)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_step_waits_for_no_number_and_compiles_whole(block):
    """Tensors without values cannot be read by the host; one graph holds the forward pass."""
    with torch.device("meta"):
        model = Transformer(Model(block=block, layers=2, d=16, heads=4), VOCABULARY, CONTEXT)
        model(torch.zeros(2, CONTEXT, dtype=torch.long)).sum().backward()
    torch.compiler.reset()
    whole = torch.compile(build(block, layers=1), backend="eager", fullgraph=True)
    assert_close(whole(tokens()), build(block, layers=1)(tokens()))


def test_the_same_seed_gives_the_same_model():
    first, second = (build("vskipinit", seed=7) for _ in range(2))
    assert torch.equal(first(tokens()), second(tokens()))


# Settings


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"heads": 5}, "does not divide"),
        ({"heads": 16, "positions": "rope"}, "not even"),
        ({"d": 15, "heads": 3, "positions": "sinusoidal"}, "even d"),
        ({"d": 15, "heads": 3, "mlp": "glu", "mlp_ratio": 1}, "even d"),
        ({"block": "sas", "qk_norm": "rms"}, "zero queries"),
        ({"beta": "off"}, "no term"),
        ({"block": "sas", "alpha_V": "off"}, "no matrix"),
        ({"block": "sas", "alpha_P": 0.0}, "no matrix"),
        ({"block": "skipless", "beta_V": 0.0}, "never leaves 0"),
        ({"block": "sas", "beta_V_first": 0.0}, "never leaves 0"),
        ({"block": "preln", "tie": "all_blocks"}, "fixed bases"),
        ({"block": "skipless", "tie": "all_blocks", "init_V": "normal"}, "same init"),
        ({"beta_SA": 0.0}, "never used"),
        ({"parallel": True, "norms": ["middle"]}, "no place"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Model(**{"d": 16, "heads": 4, **settings})


def test_a_fixed_zero_is_no_term_at_all():
    model = build("skipless", beta_V=0.0, beta_P=0.0, trainable=["alpha", "beta", "gamma"], layers=2)
    assert "values and projections" not in parameters_by_role(model)


def test_equation_4_keeps_a_trained_zero():
    model = build("sas", beta=0.0, gamma="off")
    assert model.gains()[0]["beta"].eq(0).all() and "gamma" not in model.gains()[0]


def test_longer_than_the_context_is_refused_where_positions_have_a_table():
    for positions in ("learned", "sinusoidal", "rope"):
        with pytest.raises(ValueError, match="13 tokens are more than the context of the model, 12"):
            build(positions=positions)(tokens(length=13))
    assert build(positions="alibi")(tokens(length=13)).shape == (2, 13, VOCABULARY)
    with pytest.raises(ValueError, match="context"):
        generate(build(), tokens(length=4), 9)
    with pytest.raises(ValueError, match="does not continue"):
        generate(build(objective="mlm"), tokens(length=4), 2)


# Losses


@pytest.mark.parametrize("chunk", [5, 1000])
def test_chunked_cross_entropy_is_the_whole_one(chunk):
    hidden = stream().requires_grad_()
    readout = torch.randn(VOCABULARY, 16, generator=seeded(), dtype=torch.float64).requires_grad_()
    targets = next_token_targets(tokens())
    assert targets[:, -1].eq(IGNORED).all()
    whole = F.cross_entropy((hidden @ readout.mT).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    ours = cross_entropy(hidden, readout, targets, chunk=chunk)
    assert_close(ours, whole)
    assert_close(torch.autograd.grad(3 * ours, (hidden, readout)), torch.autograd.grad(3 * whole, (hidden, readout)))
