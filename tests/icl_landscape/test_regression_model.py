"""The shortcut model against the literal one and torch's own encoder, stacks against single models, causality, the start."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.replicas import Replicas
from icl_landscape.regression.data import TRUE, Data, sample, sample_stack, tokens
from icl_landscape.regression.losses import objective
from icl_landscape.regression.model import Model, Transformer

DATA = Data()
PAPER = Model(double_residual=True)
SWITCHES = [Model(layer_norm=n, include_output=o, double_residual=r) for n, o, r in product([True, False], repeat=3)]
SHAPES = [Model(layers=1), Model(layers=3, d=24, heads=3, d_mlp=40), Model(heads=1)]


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(config: Model = PAPER, data: Data = DATA, seed: int = 0) -> Transformer:
    return Transformer(config, data, stream(seed))


def trained(config: Model = PAPER, data: Data = DATA, seed: int = 0) -> Transformer:
    """A model in double precision of which no part is at its special initial value."""
    model, source = fresh(config, data, seed).double(), stream(100 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source, dtype=torch.double), alpha=0.1)
    return model


def batch_of(data: Data = DATA, size: int = 16, dtype=torch.double, seed: int = 1):
    batch = sample(data, TRUE, size, stream(seed))
    return batch.x.to(dtype), batch.y.to(dtype)


def literal_attention(module: nn.Module, u: torch.Tensor) -> torch.Tensor:
    """Head by head and token by token, from the packed matrix's rows."""
    width = u.shape[-1] // module.heads
    heads = []
    for head in range(module.heads):
        rows = module.qkv.weight[3 * width * head : 3 * width * (head + 1)]
        q, k, v = (u @ rows[width * part : width * (part + 1)].T for part in range(3))
        mixed = []
        for i in range(u.shape[1]):
            scores = (k[:, : i + 1] @ q[:, i, :, None]).squeeze(-1) / math.sqrt(width)
            mixed.append((scores.softmax(-1)[..., None] * v[:, : i + 1]).sum(1))
        heads.append(torch.stack(mixed, 1))
    z = torch.cat(heads, -1)
    return z if module.output is None else z @ module.output.weight.T


def literal_outputs(model: Transformer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """All 2K outputs of width D + 1, every token going through every block: (B, 2K, D + 1)."""
    plain = lambda module, u: u if module is None else F.layer_norm(u, u.shape[-1:], module.weight, module.bias, 1e-5)  # noqa: E731
    stream = tokens(x, y) @ model.token.weight.T + model.position.weight.T[: 2 * x.shape[1]]
    for block in model.blocks:
        inner = stream + literal_attention(block.attention, plain(block.norm1, stream))
        inner = inner + block.fc2(block.fc1(plain(block.norm2, inner)).relu())
        stream = stream + inner if model.config.double_residual else inner
    return model.unembedding(plain(model.norm, stream))


def gradients(model: nn.Module, predictions: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad((predictions - y).square().mean(), list(named.values()), materialize_grads=True)
    return dict(zip(named, found, strict=True))


def assert_close(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shortcuts", [*product([True, False], repeat=2)], ids=str)
@pytest.mark.parametrize("config", SWITCHES + SHAPES, ids=str)
def test_equals_the_literal_model_and_all_its_gradients(config, shortcuts):
    model = trained(replace(config, drop_last_y=shortcuts[0], last_block_at_x=shortcuts[1]))
    x, y = batch_of()
    ours, literal = model(x, y), literal_outputs(model, x, y)[:, ::2, 0]
    assert_close(ours, literal)
    assert_close(gradients(model, ours, y), gradients(model, literal, y))


@pytest.mark.parametrize("K", [1, 16])
def test_shortcuts_hold_in_single_precision_for_any_number_of_examples(K):
    data = Data(K=K)
    model, (x, y) = fresh(data=data), batch_of(data, dtype=torch.float32)
    plain = fresh(replace(PAPER, drop_last_y=False, last_block_at_x=False), data)
    assert_close(model(x, y), plain(x, y), 1e-5)
    assert_close(gradients(model, model(x, y), y), gradients(plain, plain(x, y), y), 1e-5)


def test_usual_residual_is_torchs_encoder():
    model = trained(Model())
    layer = nn.TransformerEncoderLayer(64, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(64), enable_nested_tensor=False).double()
    for block, theirs in zip(model.blocks, encoder.layers, strict=True):
        pairs = {
            "self_attn.in_proj_weight": torch.cat(block.attention.parts()),
            "self_attn.in_proj_bias": torch.zeros(192),
        }
        pairs |= {
            "self_attn.out_proj.weight": block.attention.output.weight,
            "self_attn.out_proj.bias": torch.zeros(64),
        }
        for name, module in {
            "linear1": block.fc1,
            "linear2": block.fc2,
            "norm1": block.norm1,
            "norm2": block.norm2,
        }.items():
            pairs |= {f"{name}.{part}": value for part, value in module.state_dict().items()}
        theirs.load_state_dict(pairs)
    encoder.norm.load_state_dict(model.norm.state_dict())
    x, y = batch_of()
    start = model.token(tokens(x, y)) + model.position.weight.T
    mask = nn.Transformer.generate_square_subsequent_mask(16, dtype=torch.double)
    assert_close(model(x, y), model.unembedding(encoder(start, mask=mask))[:, ::2, 0])


def test_double_residual_is_the_usual_one_with_fading_additions():
    """s <- s + 2^-(l+1) (a + m) where the MLP reads LN(s + 2^-l a): LayerNorm takes the doubling away, but for its epsilon."""
    model, (x, y) = trained(PAPER), batch_of()
    modules = [model.norm, *(norm for block in model.blocks for norm in (block.norm1, block.norm2))]
    for module in modules:
        module.eps = 0.0
    stream = model.embed(x, y)
    for level, block in enumerate(model.blocks):
        attention = block.attention(block.norm1(stream), 1, level, None)
        mlp = block.fc2(block.fc1(block.norm2(stream + attention / 2**level)).relu())
        stream = stream + (attention + mlp) / 2 ** (level + 1)
    assert_close(model(x, y), model.read(model.norm(stream))[:, ::2, 0])


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("config", SWITCHES + SHAPES[:2], ids=str)
def test_a_stack_is_its_models(config, batched):
    models = [fresh(config, seed=seed) for seed in range(3)]
    x, y, _ = sample_stack(DATA, [TRUE] * 3, 16, [stream(seed) for seed in range(3)])
    gradient, loss, losses = Replicas(models, batched=batched).differentiate(objective, x, y)
    for model, *ours in zip(models, x, y, gradient, loss, losses, strict=True):
        total, per_token = objective(model, *ours[:2])
        flat = torch.cat([part.flatten() for part in gradients(model, model(*ours[:2]), ours[1]).values()])
        assert_close(tuple(ours[2:]), (flat, total, per_token), 1e-5)


@pytest.mark.parametrize("data, config, count", [
    (Data(), Model(), 51_717),
    (Data(K=16), Model(), 52_741),
    (Data(), Model(include_output=False), 51_717 - 2 * 64 * 64),
    (Data(), Model(layer_norm=False), 51_717 - 5 * 2 * 64),
])  # fmt: skip
def test_parameter_counts(data, config, count):
    assert sum(p.numel() for p in fresh(config, data).parameters()) == count


def test_initial_weights_are_torchs_and_depend_on_the_generator_alone():
    """Every linear map has variance 1 / (3 inputs), so |w|^2 = 622: the norm of 24.9 that the authors' models start from."""
    torch.manual_seed(1)
    first = fresh(seed=7)
    torch.manual_seed(2)
    assert all(map(torch.equal, first.parameters(), fresh(seed=7).parameters()))
    assert not torch.equal(first.token.weight, fresh(seed=8).token.weight)
    assert float(sum(p.square().sum() for p in first.requires_grad_(False).parameters()).sqrt()) == pytest.approx(
        24.93, abs=0.1
    )
    for module in (m for m in first.modules() if isinstance(m, nn.Linear)):
        for parameter in module.parameters():
            assert parameter.abs().max() <= module.in_features**-0.5
            assert parameter.std() == pytest.approx((3 * module.in_features) ** -0.5, rel=0.35)


def test_switches_share_the_initial_weights_that_they_have_in_common():
    assert torch.equal(fresh(Model()).unembedding.weight, fresh(Model(layer_norm=False)).unembedding.weight)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_no_prediction_sees_its_own_y_or_later_examples(shortcuts):
    model, (x, y) = trained(replace(PAPER, drop_last_y=shortcuts, last_block_at_x=shortcuts)), batch_of()
    before = model(x, y)
    for k in range(DATA.K):
        other_y, other_x = y.clone(), x.clone()
        other_y[:, k] += 1
        other_x[:, k + 1 :] += 1
        after = model(other_x, other_y)
        assert torch.equal(after[:, : k + 1], before[:, : k + 1])
        assert k == DATA.K - 1 or not torch.isclose(after[:, k + 1], before[:, k + 1]).any()


def test_fewer_examples_give_the_first_predictions():
    model, (x, y) = trained(), batch_of()
    assert_close(model(x[:, :3], y[:, :3]), model(x, y)[:, :3])
    with pytest.raises(RuntimeError):
        model(*batch_of(Data(K=9)))


@pytest.mark.parametrize("shortcuts", [True, False])
def test_only_what_cannot_reach_a_prediction_has_no_gradient(shortcuts):
    """Rows 1..D of the unembedding, and the position of the last y: they still wander under Langevin noise."""
    model, (x, y) = trained(replace(PAPER, drop_last_y=shortcuts, last_block_at_x=shortcuts)), batch_of(size=256)
    found = gradients(model, model(x, y), y)
    dead = {name: (value == 0) for name, value in found.items() if (value == 0).any()}
    assert set(dead) == {"unembedding.weight", "unembedding.bias", "position.weight"}
    assert dead["unembedding.weight"].all(1).tolist() == dead["unembedding.bias"].tolist() == [False] + [True] * 4
    assert dead["position.weight"].all(0).tolist() == [False] * 15 + [True]
    assert sum(int(mask.sum()) for mask in dead.values()) == 4 * 65 + 64


def test_hook_sees_every_site_and_an_idle_one_changes_nothing():
    model, (x, y), seen = fresh(), batch_of(dtype=torch.float32), []

    def idle(site, layer, value):
        seen.append((site, layer, tuple(value.shape)))
        return value

    assert torch.equal(model(x, y, idle), model(x, y))
    rows = {0: 15, 1: 8}
    sites = [("attention", (4, "Q", 15)), ("heads", (4, "Q", 16)), ("mlp", ("Q", 64))]
    inside = [(site, l, (16, *(q if s == "Q" else s for s in shape))) for l, q in rows.items() for site, shape in sites]  # noqa: E741
    assert seen == [("embedding", -1, (16, 15, 64)), *inside]


def test_what_a_hook_gives_replaces_what_was_there():
    """Without heads and MLPs nothing reaches an x token but itself."""
    model, (x, y) = trained(Model()), batch_of()
    alone = model(x, y, lambda site, layer, value: value * (site in ("embedding", "attention")))
    direct = model.read(model.norm(model.embed(x, y)[:, ::2])).squeeze(-1)
    assert_close(alone, direct)


def test_second_derivatives_exist():
    model, (x, y) = trained(), batch_of(size=4)
    parameters = list(model.parameters())
    first = torch.autograd.grad(objective(model, x, y)[0], parameters, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum(part.square().sum() for part in first), parameters, materialize_grads=True)
    assert all(part.isfinite().all() for part in second)


def test_masks_made_while_evaluating_serve_training():
    data = Data(K=5)  # a length that no other test has met
    model, (x, y) = fresh(data=data), batch_of(data, dtype=torch.float32)
    with torch.inference_mode():
        model(x, y)
    objective(model, x, y)[0].backward()
    assert model.blocks[0].attention.qkv.weight.grad.any()


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads 5 does not divide model.d 64"):
        Model(heads=5)
