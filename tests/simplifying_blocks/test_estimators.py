"""Estimators against closed forms, literal slow versions and numbers of the papers; the probe that reads them all."""

import math
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from simplifying_blocks.estimators import attention_entropy as entropies
from simplifying_blocks.estimators.attention_entropy import attention_entropy, softmax_entropy, uniform_entropy
from simplifying_blocks.estimators.correlations import (
    cosine,
    eq5_sides,
    feature_correlation,
    input_correlation,
    kurtosis,
    rms,
)
from simplifying_blocks.estimators.flops import forward_flops
from simplifying_blocks.estimators.gains import gains_at, on_host
from simplifying_blocks.estimators.precision import single_precision
from simplifying_blocks.losses import cross_entropy
from simplifying_blocks.model import Transformer
from simplifying_blocks.positions import alibi_slopes
from simplifying_blocks.probe import probe
from simplifying_blocks.recipe import BLOCKS, Model

VOCABULARY, CONTEXT = 23, 12
STREAM = ("kurtosis", "feature_correlation", "input_correlation", "input_correlation_rms", "rms")
ESTIMATORS = (kurtosis, feature_correlation, input_correlation, cosine, rms)
PAPER = {"layers": 18, "d": 768, "heads": 12}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(block: str = "preln", moved: bool = False, **settings) -> Transformer:
    """A small model; moved: every parameter away from where it starts."""
    settings = {"layers": 3, "d": 16, "heads": 4, **settings}
    model = Transformer(Model(block=block, **settings), VOCABULARY, CONTEXT, seeded())
    if moved:
        noise = seeded(1)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=noise)
    return model


def tokens(rows: int = 3) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, CONTEXT), generator=seeded(5))


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def uneven(*shape: int, dtype=torch.float64) -> torch.Tensor:
    """Activations with rows and columns of unequal size, and a mean: nothing in them is symmetric."""
    columns = torch.linspace(0.1, 3, shape[-1], dtype=dtype)
    return (normal(*shape, dtype=dtype) + 0.3) * columns * normal(*shape[:-1], 1, seed=1, dtype=dtype).exp()


def trained(block: str, steps: int = 20) -> Transformer:
    model = build(block)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = cross_entropy(model.hidden(tokens()[:, :-1]), model.readout, tokens()[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def read(model: Transformer, *sites: str) -> dict:
    """(site, layer) -> what passes it, of sites or of all."""
    seen = {}
    with torch.no_grad():
        model(tokens(), hook=lambda site, layer, x: seen.update({(site, layer): x} if site in sites else {}))
    return seen


# Attention entropy


@pytest.mark.parametrize("T, told", [(1, 0), (64, 3.2058), (128, 3.8782)])
def test_zero_queries_look_at_all_positions_alike(T, told):
    q, k = torch.zeros(2, 3, T, 4), normal(2, 3, T, 4, dtype=torch.float32)
    assert uniform_entropy(T) == pytest.approx(told, abs=5e-5)
    assert attention_entropy(q, k).item() == pytest.approx(uniform_entropy(T), rel=1e-6)
    assert attention_entropy(q, k, causal=False).item() == pytest.approx(math.log(T), rel=1e-6)


def literal_entropy(q, k, causal, cap, slopes):
    """The whole softmax, and xlogy."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    steps = torch.arange(q.shape[-2])
    distance = steps[:, None] - steps
    scores = scores if slopes is None else scores - slopes[:, None, None] * distance.abs()
    scores = scores.masked_fill(distance < 0, -torch.inf) if causal else scores
    weights = scores.softmax(-1)
    return -torch.xlogy(weights, weights).sum(-1).mean()


@pytest.mark.parametrize("chunk", [1, 500, 2**22])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cap, slopes", [(None, None), (2.0, None), (None, alibi_slopes(4)), (2.0, alibi_slopes(4))])
def test_attention_entropy_is_the_literal_one(chunk, causal, cap, slopes, monkeypatch):
    monkeypatch.setattr(entropies, "CHUNK", chunk)
    q, k = normal(2, 4, 19, 8), 2 * normal(2, 4, 19, 8, seed=1)
    expected = literal_entropy(q, k, causal, cap, slopes)
    torch.testing.assert_close(attention_entropy(q, k, causal, cap, slopes), expected, rtol=1e-12, atol=0)
    single = attention_entropy(q.float(), k.float(), causal, cap, slopes)
    torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=0)


class Largest(TorchDispatchMode):
    """The most entries that a tensor made inside has."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.entries = max([self.entries, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


def test_long_sequences_are_taken_in_chunks(monkeypatch):
    monkeypatch.setattr(entropies, "CHUNK", 4096)
    q = normal(1, 2, 512, 4)
    with Largest() as largest:
        attention_entropy(q, q)
    assert largest.entries <= q.numel() == 4096


def test_certain_attention_has_no_entropy():
    scores = torch.tensor([[1e4, 0.0, -torch.inf], [0.0, 1e30, 0.0]])
    assert softmax_entropy(scores).tolist() == [0, 0]


def test_large_scores_do_not_cancel():
    """Two keys at ln 2, whatever stands before them."""
    scores = torch.tensor([[1e4, 1e4, 0.0]])
    assert softmax_entropy(scores).item() == pytest.approx(math.log(2), rel=1e-6)


# Kurtosis and correlations


def test_kurtosis_is_1_for_like_features_and_d_for_a_single_one():
    alike = torch.tensor([[1.0, -1, 1, -1], [-2, 2, 2, -2]])
    assert kurtosis(alike).item() == pytest.approx(1)
    assert kurtosis(alike * torch.tensor([1.0, 0, 0, 0])).item() == pytest.approx(4)


def test_kurtosis_is_the_literal_loop():
    x = uneven(2, 5, 6)
    sizes = [sum(v**2 for v in column) / 10 for column in x.flatten(0, 1).T.tolist()]
    expected = (sum(s**2 for s in sizes) / 6) / (sum(sizes) / 6) ** 2
    assert kurtosis(x).item() == pytest.approx(expected, rel=1e-12)


def test_correlations_are_those_of_the_whole_gram_matrices():
    x = uneven(3, 8, 6)
    rows = x.flatten(0, 1) / x.square().mean().sqrt()
    n, d = rows.shape
    features = (rows.T @ rows / n)[~torch.eye(d, dtype=torch.bool)]
    inputs = (rows @ rows.T / d)[~torch.eye(n, dtype=torch.bool)]
    assert feature_correlation(x).item() == pytest.approx(features.square().mean().sqrt().item(), rel=1e-12)
    mean, root_mean_square = (value.item() for value in input_correlation(x))
    assert mean == pytest.approx(inputs.mean().item(), rel=1e-12)
    assert root_mean_square == pytest.approx(inputs.square().mean().sqrt().item(), rel=1e-12)


def test_like_inputs_correlate_fully_and_orthogonal_ones_not_at_all():
    alike = normal(1, 8, dtype=torch.float32).expand(5, 8)
    assert [v.item() for v in input_correlation(alike)] == pytest.approx([1, 1], rel=1e-5)
    assert [v.item() for v in input_correlation(7 * torch.eye(8))] == pytest.approx([0, 0], abs=1e-3)
    assert feature_correlation(7 * torch.eye(8)).item() == 0


def test_input_correlation_makes_no_matrix_of_tokens():
    x = normal(600, 4)
    with Largest() as largest:
        input_correlation(x)
    assert largest.entries == x.numel()


def test_cosine_is_the_literal_loop_within_sequences():
    x = uneven(2, 5, 6)
    pairs = [(b, s, t) for b in range(2) for s in range(5) for t in range(5) if s != t]
    cosines = [torch.cosine_similarity(x[b, s], x[b, t], dim=0).item() for b, s, t in pairs]
    assert cosine(x).item() == pytest.approx(sum(cosines) / len(cosines), rel=1e-12)


@pytest.mark.parametrize("estimator", [kurtosis, feature_correlation, input_correlation, cosine])
def test_the_scale_does_not_matter(estimator):
    x = uneven(2, 5, 6)
    torch.testing.assert_close(estimator(1e-3 * x), estimator(x), rtol=1e-10, atol=0)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, lambda x: attention_entropy(x, x)])
def test_half_precision_around_or_inside_is_left(estimator):
    x = uneven(2, 2, 16, 8, dtype=torch.float32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half, single = estimator(x), estimator(x.float())
    torch.testing.assert_close(half, single, rtol=0, atol=0)
    torch.testing.assert_close(single, estimator(x.float()), rtol=0, atol=0)


def test_tf32_is_off_inside_and_as_before_after(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=True))
    with pytest.raises(KeyError), single_precision(torch.device("cpu")):
        assert not torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("rho", [0, 0.5, 0.9])
def test_correlated_gaussian_inputs_have_kurtosis_1_plus_2_rho_squared(rho):
    """Prop G.1 of the second paper, E (X^T X / n)_11^2 = 1 + 2 rho^2 for many inputs; (1 - rho^2) 2 / n more for n of them."""
    n, d = 64, 20_000
    x = rho**0.5 * normal(1, d) + (1 - rho) ** 0.5 * normal(n, d, seed=1)
    expected = 1 + 2 * rho**2 + (1 - rho**2) * 2 / n
    assert x.square().mean(0).square().mean().item() == pytest.approx(expected, rel=0.05)
    assert kurtosis(x).item() == pytest.approx(expected, rel=0.05)


def test_correlated_gaussian_inputs_have_their_correlation():
    x = 0.3**0.5 * normal(1, 2_000) + 0.7**0.5 * normal(8, 2_000, seed=1)
    mean, root_mean_square = (value.item() for value in input_correlation(x))
    assert [mean, root_mean_square] == pytest.approx([0.3, 0.3], abs=0.03)


@pytest.mark.parametrize("block", ["preln", "postln", "sas_p", "op"])
def test_both_sides_of_equation_5_agree_on_trained_activations(block):
    seen = read(trained(block), "stream", "output", "unembed")
    assert len(seen) == 7
    for x in seen.values():
        features, inputs = eq5_sides(x)
        assert features.item() == pytest.approx(inputs.item(), rel=1e-4)


# Gains


def literal_gains(model: Transformer, layer: int) -> dict[str, float]:
    """Mean of every gain of a block."""
    gains = model.blocks[layer].fixed | model.gains()[layer]
    return {name: torch.as_tensor(value).mean().item() for name, value in gains.items()}


def gains_by_layer(model) -> dict:
    """Name -> value per layer, None where a layer has none."""
    found = on_host(gains_at(model))
    names = dict.fromkeys(name for name, _ in found)
    return {name: [found.get((name, layer)) for layer in range(len(model.blocks))] for name in names}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_tells_its_gains_and_no_others(block, moved):
    model = build(block, moved=moved)
    found = gains_by_layer(model)
    own = {name: values for name, values in found.items() if name.partition("_")[0] in ("alpha", "beta", "gamma")}
    for layer in range(3):
        told = {name: values[layer] for name, values in own.items() if not name.endswith("_std")}
        assert {n: v for n, v in told.items() if v is not None} == pytest.approx(literal_gains(model, layer))
    assert {name for name in own if name.endswith("_std")} == (
        {"alpha_std", "beta_std", "gamma_std"} if "alpha" in model.config.trainable else set()
    )
    assert all(len(values) == 3 for values in found.values())


def test_gains_keep_their_sign():
    model = build("sas", beta_FF=-0.4, trainable=["beta_FF"], beta_SA=-0.5)
    found = gains_by_layer(model)
    assert found["beta_FF"] == pytest.approx([-0.4] * 3)
    assert found["beta_SA"] == [-0.5] * 3


def test_heads_and_channels_are_averaged():
    model = build("sas", layer_scale=True)
    first = model.gains()[0]
    first["alpha"].data.copy_(torch.tensor([1.0, -2, 3, 4]))
    first["beta_FF"].data.copy_(torch.arange(16))
    found = gains_by_layer(model)
    assert found["alpha"] == pytest.approx([1.5, 1, 1])
    assert found["alpha_std"] == pytest.approx([7**0.5, 0, 0])
    assert found["beta_FF"][0] == pytest.approx(7.5)


def test_one_head_has_no_deviation():
    assert "alpha_std" not in gains_by_layer(build("sas", heads=1))


def test_ratios_and_distances_are_those_of_the_effective_matrices():
    model = build("skipless", moved=True, init_V="orthogonal")
    found = gains_by_layer(model)
    for layer, (block, gains) in enumerate(zip(model.blocks, model.gains(), strict=True)):
        for part, module in (("V", block.attention.value), ("P", block.attention.projection)):
            alpha, beta = (gains[f"{name}_{part}"].item() for name in ("alpha", "beta"))
            base = torch.eye(16) if module.base is None else module.base
            away = alpha * base + beta * module.weight - torch.eye(16)
            assert found[f"ratio_{part}"][layer] == pytest.approx(beta / alpha, rel=1e-5)
            assert found[f"distance_{part}"][layer] == pytest.approx(away.square().mean().item() ** 0.5 * 4, rel=1e-5)


def test_identity_values_have_no_matrix_but_in_the_first_block():
    found = gains_by_layer(build("sas"))
    assert found["distance_V"] == [pytest.approx(0, abs=1e-6), None, None]
    assert found["ratio_V"] == [pytest.approx(1), None, None]
    assert not {"distance_P", "ratio_P"} & found.keys()


def test_plain_matrices_have_a_distance_and_no_ratio():
    found = gains_by_layer(build("preln"))
    assert not {"ratio_V", "ratio_P", "alpha"} & found.keys()
    assert all(value == pytest.approx(1, abs=0.1) for value in found["distance_V"])


# Operations


@pytest.mark.parametrize(
    "settings, total",
    [
        ({"block": "preln", **PAPER}, 338.7),
        ({"block": "parallel", **PAPER}, 338.7),
        ({"block": "sas", **PAPER}, 297.4),
        ({"block": "sas_p", **PAPER}, 297.4),
        ({"block": "sas_p_nonorm", **PAPER}, 297.4),
        ({"block": "preln", **PAPER, "layers": 72, "mlp_ratio": 2}, 784.6),
    ],
)
def test_operations_at_the_papers_size(settings, total):
    assert forward_flops(Model(**settings), 50_000, 128)["total"] / 1e6 == pytest.approx(total, abs=0.05)


def test_operations_of_pre_ln_by_part():
    parts = {name: round(value / 1e6, 1) for name, value in forward_flops(Model(**PAPER), 50_000, 128).items()}
    assert parts == {"blocks": 254.8, "attention": 7.1, "head": 76.8, "total": 338.7}


VARIANTS = [
    *({"block": block} for block in BLOCKS),
    {"mlp": "glu"},
    {"block": "sas", "beta": "off"},
    {"block": "skipless", "beta_V": "off", "init_V": "orthogonal"},
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_operations_are_those_that_torch_counts(settings):
    # A cap makes attention two plain products, which the counter knows on every machine.
    model = build(**settings, logit_cap=30.0).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(tokens())
    assert counter.get_total_flops() == tokens().numel() * forward_flops(model.config, VOCABULARY, CONTEXT)["total"]


# The probe


@pytest.mark.parametrize("block", BLOCKS)
def test_the_probe_tells_the_estimators_of_what_passes(block):
    model = build(block, moved=True)
    found, seen = probe(model, tokens()), read(model, "query", "key", "stream", "unembed")
    expected = {f"{name}/{layer}": float(value) for (name, layer), value in gains_at(model).items()}
    for layer in range(4):
        x = seen["stream" if layer < 3 else "unembed", layer]
        values = (kurtosis(x), feature_correlation(x), *input_correlation(x), x.square().mean().sqrt())
        expected |= {f"{name}/{layer}": value.item() for name, value in zip(STREAM, values, strict=True)}
        if layer < 3:
            pair = (seen[site, layer] for site in ("query", "key"))
            expected[f"attention_entropy/{layer}"] = attention_entropy(*pair).item()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("settings", [{"positions": "alibi"}, {"objective": "mlm"}, {"logit_cap": 0.5}])
def test_the_probe_reads_attention_as_the_model_has_it(settings):
    model = build(moved=True, **settings)
    seen = read(model, "query", "key")
    pair, config = (seen["query", 2], seen["key", 2]), model.config
    expected = literal_entropy(*pair, config.objective == "clm", config.logit_cap, model.slopes)
    plain = literal_entropy(*pair, True, None, None)
    assert probe(model, tokens())["attention_entropy/2"] == pytest.approx(expected.item(), rel=1e-5)
    assert abs(expected - plain) > 1e-3


def test_attention_without_queries_has_no_entropy():
    found = probe(build("sas", beta="off"), tokens())
    assert not [name for name in found if name.startswith(("attention_entropy", "beta/"))]
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("block", ["vskipinit", "sas_p"])
def test_shaped_attention_starts_uniform(block):
    assert probe(build(block), tokens())["attention_entropy/1"] == pytest.approx(uniform_entropy(CONTEXT), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_probe_leaves_no_trace(training):
    model = build("sas", moved=True).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        found = probe(model, tokens())
        assert torch.is_autocast_enabled("cpu")
    assert found == probe(model, tokens())
    assert model.training == training and torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_probe_keeps_no_activation():
    model, outputs, alive = build(layers=5), [], []

    def after(block, args, out):
        outputs.append(weakref.ref(out))
        alive.append(sum(ref() is not None for ref in outputs))

    for block in model.blocks:
        block.register_forward_hook(after)
    probe(model, tokens())
    # What the block has read, which its caller still holds, and what it has made.
    assert max(alive) <= 2
