"""The shortcut against the literal forward, that against torch's own layers, stacks against single models, and the start."""

import math

import pytest
import torch
from torch import nn

from common.replicas import Replicas
from layernorm_grok.data import Data, split, tokens
from layernorm_grok.estimators.trace import trace
from layernorm_grok.losses import cross_entropy
from layernorm_grok.model import Model, Norm, Transformer, truncated_normal
from layernorm_grok.placement import ALIASES, Placement
from tests.layernorm_grok.models import random_model

ALL = torch.arange(25)
PLACEMENTS = [*ALIASES, "post", "qk+mlp+final", "pre+final-center", "off+qk-norm", "pre+qk-norm", "v+mlp+unit"]


def gradients(model: Transformer, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a random linear function of the logits, for every parameter; zeros where it has no part."""
    mix = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=logits.dtype)
    named = dict(model.named_parameters())
    found = torch.autograd.grad((logits * mix).sum(), list(named.values()), materialize_grads=True)
    return dict(zip(named, found, strict=True))


def assert_close(ours, literal, tolerance=1e-10):
    torch.testing.assert_close(ours, literal, rtol=tolerance, atol=tolerance)


def assert_shortcut_is_literal(model: Transformer, rows: torch.Tensor) -> None:
    output = model(rows)
    found = gradients(model, output.logits)
    for literal in (trace(model, rows), trace(model, rows, pruned=True)):
        assert_close(output.logits, literal.logits)
        assert_close(output.prelogits, literal.prelogits)
        assert_close(found, gradients(model, literal.logits))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_shortcut_equals_the_literal_forward_and_all_its_gradients(placement, norm, layers):
    rows = split(Data(P=5, train_fraction=0.6), 0)[0]
    assert_shortcut_is_literal(random_model(placement, norm=norm, layers=layers), rows)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"act": "gelu"},
        {"mlp": "glu"},
        {"unembed": "tied"},
        {"norm_eps": 0.1},
        {"norm_eps": 0.1, "norm": "rms"},
        {"heads": 1},
        {"heads": 8, "mlp_ratio": 1},
        {"init": "default", "mlp": "glu", "unembed": "tied"},
    ],
    ids=str,
)
def test_shortcut_equals_the_literal_forward_under_every_option(options, layers):
    for placement in ("off", "pre", "peri+final"):
        assert_shortcut_is_literal(random_model(placement, layers=layers, **options), ALL)


def stock(model: Transformer, act: str, norm_first: bool) -> nn.TransformerEncoder:
    """torch's own encoder with the parameters of `model`."""
    d, heads = model.c.d, model.c.heads
    layer = nn.TransformerEncoderLayer(
        d, heads, 4 * d, dropout=0.0, activation=act, layer_norm_eps=0.0, batch_first=True, norm_first=norm_first
    )
    encoder = nn.TransformerEncoder(layer, model.c.layers, enable_nested_tensor=False).double()
    for block, theirs in zip(model.layers, encoder.layers, strict=True):
        pairs = {
            "self_attn.in_proj_weight": block.qkv, "self_attn.out_proj.weight": block.out,
            "self_attn.in_proj_bias": torch.zeros(3 * d), "self_attn.out_proj.bias": torch.zeros(d),
            "linear1.weight": block.fc1, "linear1.bias": block.fc1_bias,
            "linear2.weight": block.fc2, "linear2.bias": block.fc2_bias,
            "norm1.weight": block.ln1.weight, "norm1.bias": block.ln1.bias,
            "norm2.weight": block.ln2.weight, "norm2.bias": block.ln2.bias,
        }  # fmt: skip
        theirs.load_state_dict(pairs)
    return encoder


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("layers, act", [(1, "relu"), (3, "gelu")])
def test_literal_forward_is_torchs_encoder(placement, layers, act):
    model = random_model(placement, layers=layers, act=act)
    x = model.embed[tokens(ALL, 5)] + model.position
    expected = stock(model, act, placement == "pre")(x)[:, -1]
    assert_close(trace(model, ALL).prelogits, expected)
    assert_close(trace(model, ALL).logits, expected @ model.unembed.T)


def test_norms_are_torchs():
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for kind, theirs in (("layer", nn.LayerNorm(8, eps=1e-2).double()), ("rms", nn.RMSNorm(8, eps=1e-2).double())):
        ours = Norm(8, kind, 1e-2).double()
        nn.init.normal_(ours.weight, generator=torch.Generator().manual_seed(1))
        theirs.weight = ours.weight
        assert_close(ours(x), theirs(x))


def test_gated_mlp_is_silu_of_the_gate_times_the_rest():
    model = random_model(mlp="glu")
    block, layer = model.layers[0], trace(model, ALL).layers[0]
    gate = layer.y @ block.gate.T + block.gate_bias
    assert_close(layer.hidden, gate * gate.sigmoid() * (layer.y @ block.fc1.T + block.fc1_bias))


def test_rows_are_computed_one_by_one():
    model = random_model("pre", layers=2)
    rows = torch.tensor([7, 3, 3, 24])
    assert_close(model(rows).logits, model(ALL).logits[rows])


MIXED = ["off", "pre", "mlp-pre", "attn-pre-v", "attn-pre-q", "attn-pre-k", "pre-qk"]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("norm, layers, ends", [("layer", 1, ""), ("layer", 2, "+final"), ("rms", 2, "+qk-norm")])
def test_a_stack_with_choices_is_its_single_models(norm, layers, ends, batched):
    places = [Placement.parse(text + ends) for text in MIXED]
    singles = [
        random_model(text + ends, seed=s, norms={"ln1", "ln2"}, norm=norm, layers=layers)
        for s, text in enumerate(MIXED)
    ]
    stack = Replicas(singles, batched=batched)
    rows = torch.stack([split(Data(P=5, train_fraction=0.6), seed)[0] for seed in range(len(MIXED))])
    choice = torch.tensor([place.switches for place in places])
    mix = torch.randn(*rows.shape, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def function(model, rows, choice, mix):
        output = model(rows, choice)
        return (output.logits * mix).sum((-2, -1)), output.logits, output.prelogits

    gradient, _, logits, prelogits = stack.differentiate(function, rows, choice, mix)
    for number, model in enumerate(singles):
        literal = trace(model, rows[number])
        loss = (literal.logits * mix[number]).sum()
        found = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        assert_close(logits[number], literal.logits)
        assert_close(logits[number], model(rows[number]).logits)
        assert_close(prelogits[number], literal.prelogits)
        assert_close(gradient[number], torch.cat([g.flatten() for g in found]))


def test_norms_that_a_placement_does_not_use_have_no_gradient():
    model = random_model("mlp-pre", norms={"ln1", "ln2"})
    found = gradients(model, model(ALL).logits)
    assert not found["layers.0.ln1.weight"].any()
    assert found["layers.0.ln2.weight"].all()


def fresh(placement: str = "off", seed: int = 0, **options) -> Transformer:
    return Transformer(Model(**options), 113, Placement.parse(placement), torch.Generator().manual_seed(seed))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def weight_norm(model: nn.Module) -> float:
    return math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()))


NORMS = {"off": 0, "attn-pre": 1, "attn-pre-qk": 1, "attn-pre-v": 1, "mlp-pre": 1, "pre": 2, "pre-v": 2, "peri": 4}
"""Norms in use per placement."""


@pytest.mark.parametrize("placement", NORMS)
def test_parameter_counts_of_the_paper_with_the_norms_in_use(placement):
    used = NORMS[placement]
    assert count(fresh(placement)) == 226_816 + used * 256
    assert count(fresh(placement, norm="rms")) == 226_816 + used * 128
    assert count(fresh(placement, unembed="tied")) == 226_816 + used * 256 - 114 * 128


@pytest.mark.parametrize("placement", NORMS)
def test_initial_weight_norm_of_the_paper_with_the_norms_in_use(placement):
    """31.84 without norms in the authors' runs, 35.63 with the two that they always made; a gain of 1 adds d to the square."""
    assert weight_norm(fresh(placement)) == pytest.approx(math.sqrt(31.84**2 + NORMS[placement] * 128), abs=0.1)


def test_initial_weight_norm_with_kaiming():
    assert weight_norm(fresh(init="kaiming")) == pytest.approx(44.2, abs=0.15)


@pytest.mark.parametrize("act", ["relu", "gelu"])
@pytest.mark.parametrize("placement, expected", [("off", 4.74), ("attn-pre", 4.83), ("pre", 4.94), ("mlp-pre", 4.87)])
def test_initial_loss_of_the_paper(placement, expected, act):
    """ln 114 = 4.74 without norms; the others are of the authors' runs, mean over five seeds."""
    targets, losses = Data().targets(), []
    for seed in range(3):
        rows = split(Data(), seed)[0]
        with torch.no_grad():
            losses.append(cross_entropy(fresh(placement, seed, act=act)(rows).logits, targets[rows]).mean())
    assert torch.stack(losses).mean() == pytest.approx(expected, abs=0.05)


def test_truncated_normal_is_cut_at_two_deviations_and_narrower_for_it():
    draw = truncated_normal((1000, 1000), 0.25, torch.Generator().manual_seed(0))
    assert draw.std() == pytest.approx(0.880 * 0.25, rel=2e-3)
    assert 0.4999 < draw.abs().max() <= 0.5


@pytest.mark.parametrize(
    "init, out, fc2", [("lecun", 0.880, 0.880), ("kaiming", 2**0.5, 2**0.5), ("default", 3**-0.5, 3**-0.5)]
)
def test_initial_deviations_times_root_of_fan_in(init, out, fc2):
    model = fresh(init=init)
    model.requires_grad_(False)
    block = model.layers[0]
    assert block.out.std() * 128**0.5 == pytest.approx(out, rel=0.02)
    assert block.fc1.std() * 128**0.5 == pytest.approx(out, rel=0.02)
    assert block.fc2.std() * 512**0.5 == pytest.approx(fc2, rel=0.02)
    assert block.qkv.std() * 256**0.5 == pytest.approx(1, rel=0.02)
    assert block.qkv.abs().max() <= (6 / 512) ** 0.5
    assert model.embed.std() * 128**0.5 == pytest.approx(1, rel=0.03)
    assert model.unembed.std() * 128**0.5 == pytest.approx(1, rel=0.03)
    assert model.position.std() == pytest.approx(0.02, rel=0.15)
    assert not block.fc1_bias.any() and not block.fc2_bias.any()


@pytest.mark.parametrize("layers", [1, 2])
def test_norms_draw_nothing_so_placements_of_a_seed_share_every_other_weight(layers):
    plain = fresh("off", 3, layers=layers).state_dict()
    for placement in [*PLACEMENTS, "pre+final"]:
        weights = fresh(placement, 3, layers=layers).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in plain.items())
        assert all(".ln" in n or n.startswith("final_norm") for n in weights.keys() - plain.keys())
    assert not torch.equal(plain["embed"], fresh("off", 4, layers=layers).state_dict()["embed"])


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = fresh(seed=7).state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(first[name], value) for name, value in fresh(seed=7).state_dict().items())


@pytest.mark.parametrize("placement", ["mlp-pre", "pre", "pre-v", "pre-qk", "mlp-inpnorm"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_norm_before_the_mlp_takes_away_the_scale_of_its_input(placement, layers):
    model = random_model(placement, layers=layers)
    scaled = trace(model, ALL, mlp_input=lambda y: 3.7 * y)
    assert_close(scaled.logits, trace(model, ALL).logits)


@pytest.mark.parametrize("placement", ["off", "attn-pre", "attn-pre-v"])
def test_without_it_the_mlp_sees_the_scale(placement):
    model = random_model(placement)
    difference = trace(model, ALL, mlp_input=lambda y: 3.7 * y).logits - trace(model, ALL).logits
    assert difference.abs().max() > 0.1


@pytest.mark.parametrize("norm, parameters", [("layer", 16), ("rms", 8)])
def test_final_center_is_the_final_norm_at_its_start_and_has_no_parameters(norm, parameters):
    generator = torch.Generator().manual_seed(0)
    settings = Model(d=8, heads=2, norm=norm)
    plain, center, final = (
        Transformer(settings, 5, Placement.parse(f"pre{end}"), generator.manual_seed(0)).double()
        for end in ("", "+final-center", "+final")
    )
    z = plain(ALL).prelogits
    z = z - z.mean(1, keepdim=True) if norm == "layer" else z
    assert_close(center(ALL).prelogits, z / (z.square().mean(1, keepdim=True) + 1e-5).sqrt())
    assert_close(final(ALL).logits, center(ALL).logits)
    assert (count(center) - count(plain), count(final) - count(plain)) == (0, parameters)


@pytest.mark.parametrize("given, expected", [(0.0, [0.0, 1e-5, 0.0, 1e-5]), (0.1, [0.1] * 4)])
def test_peri_has_the_authors_epsilon_at_the_mlp(given, expected):
    """1e-5 before the MLP (ln2) and after it (ln4), 0 before attention (ln1) and after it (ln3)."""
    block = random_model("peri", norm_eps=given).layers[0]
    assert [getattr(block, f"ln{number}").eps for number in (1, 2, 3, 4)] == expected
    assert random_model("pre").layers[0].ln2.eps == 0.0


def test_qk_norm_takes_away_the_scale_of_queries_and_keys():
    for placement, same in (("off+qk-norm", True), ("off", False)):
        model = random_model(placement)
        before = model(ALL).logits
        with torch.no_grad():
            model.layers[0].qkv[:16] *= 5
        assert torch.allclose(model(ALL).logits, before, rtol=0, atol=1e-10) == same


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_readout_scale_is_a_larger_unembedding_with_a_larger_learning_rate(alpha):
    """Training on alpha z U is training U' = alpha U at rate alpha eta and decay lambda / alpha (AdamW, epsilon 0)."""
    rows, eta, decay = split(Data(P=5, train_fraction=0.8), 0)[0], 1e-3, 1.0
    targets = Data(P=5).targets()[rows]
    scaled, larger = random_model("pre", act="gelu"), random_model("pre", act="gelu")
    with torch.no_grad():
        larger.unembed *= alpha
    others = [p for n, p in larger.named_parameters() if n != "unembed"]
    own = {"params": [larger.unembed], "lr": alpha * eta, "weight_decay": decay / alpha}
    shared = {"lr": eta, "weight_decay": decay, "betas": (0.9, 0.98), "eps": 0.0}
    optimizers = (
        torch.optim.AdamW(scaled.parameters(), **shared),
        torch.optim.AdamW([{"params": others}, own], **shared),
    )
    for _ in range(30):
        for model, optimizer, factor in zip((scaled, larger), optimizers, (alpha, 1.0), strict=True):
            optimizer.zero_grad()
            cross_entropy(factor * model(rows).logits, targets).mean().backward()
            optimizer.step()
    assert_close(alpha * scaled(ALL).logits, larger(ALL).logits)


def test_two_layers_are_not_one():
    """A deep model is more than its last block, so that equality at depth says something."""
    deep = random_model(layers=2)
    shallow = random_model(layers=1)
    shallow.load_state_dict(
        {n.replace("layers.1.", "layers.0."): p for n, p in deep.state_dict().items() if "layers.0." not in n}
    )
    assert (deep(ALL).logits - shallow(ALL).logits).abs().max() > 0.1


@pytest.mark.parametrize("norm_eps", [0.0, 1e-5])
def test_a_constant_row_needs_an_epsilon(norm_eps):
    model = random_model("attn-pre", norm_eps=norm_eps)
    with torch.no_grad():
        model.embed[5], model.position[2] = 1.0, 0.5
    logits = model(ALL).logits
    assert bool(logits.isfinite().all()) == (norm_eps > 0)
    assert torch.equal(logits.isnan(), trace(model, ALL).logits.isnan())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="d 10 is not a multiple of model.heads 4"):
        Model(d=10, heads=4)
