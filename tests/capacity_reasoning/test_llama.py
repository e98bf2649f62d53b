"""The model against transformers, its sizes against the paper's, muP against its definition and its promise."""

import math
from dataclasses import replace

import pytest
import torch

from capacity_reasoning.losses import objective
from capacity_reasoning.model import Llama, Model, to_llama, width_of
from capacity_reasoning.optim import Learner, Optim, groups
from common.config import UserError
from common.replicas import Replicas
from tests.capacity_reasoning.tiny import settings_of, stream

SIZES = [Model(d=16, layers=1), Model(d=48, layers=2, base_d=16), Model(d=32, layers=4, base_d=64, head_dim=8)]
SWITCHES = [{"mup": True}, {"mup": False}, {"tie": True}, {"tie": True, "mup": False}]
V = 50
PAPER = {
    4: {32: 257_824, 48: 435_888, 64: 646_720, 80: 890_320, 96: 1_166_688, 112: 1_475_824, 144: 2_192_400, 176: 3_040_048,
        224: 4_557_280, 240: 5_128_560, 272: 6_369_424, 320: 8_476_480, 416: 13_575_328, 448: 15_537_088},
    12: {32: 389_408, 48: 731_568, 64: 1_172_032, 96: 2_347_872, 128: 3_916_928, 160: 5_879_200, 176: 7_007_792,
         224: 10_983_392, 272: 15_843_728},
}  # fmt: skip
"""Parameters of the paper's models, by layers and width, at its vocabulary of 3000."""


def model_of(config: Model, seed: int = 0, vocabulary: int = V) -> Llama:
    """With gains moved from where they start."""
    model = Llama(config, vocabulary, stream(seed))
    with torch.no_grad():
        model.gains += 0.3 * torch.randn(model.gains.shape, generator=stream(1))
    return model


def batch(B: int = 5, T: int = 9, A: int = 3, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens (B, T), places (B, A) and targets (B, A)."""
    noise = stream(seed)
    tokens, targets = (torch.randint(V, (B, n), generator=noise) for n in (T, A))
    return tokens, torch.randint(T, (B, A), generator=noise), targets


# The function


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
@pytest.mark.parametrize("config", SIZES, ids=str)
@pytest.mark.parametrize("T", [9, 70])
def test_logits_are_those_of_transformers(config, switch, T):
    model = model_of(replace(config, init=0.2, **switch))
    tokens, where, _ = batch(T=T)
    with torch.no_grad():
        ours, theirs = model(tokens, where), to_llama(model)(tokens).logits
    theirs = theirs.gather(1, where[..., None].expand(-1, -1, V))
    assert theirs.std() > 0.05
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_gradients_too_are_those_of_transformers():
    model = model_of(replace(SIZES[1], init=0.2))
    twin, (tokens, where, targets) = to_llama(model), batch()
    where = where.sort(1).values
    objective(model, tokens, where, targets, torch.tensor(1.0))[0].backward()
    logits = twin(tokens).logits.gather(1, where[..., None].expand(-1, -1, V))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    theirs = dict(twin.named_parameters())
    torch.testing.assert_close(model.embedding.weight.grad, theirs["model.embed_tokens.weight"].grad)
    torch.testing.assert_close(model.gains.grad[-1], theirs["model.norm.weight"].grad)
    torch.testing.assert_close(
        model.blocks[0].down.weight.grad, theirs["model.layers.0.mlp.down_proj.weight"].grad, rtol=1e-4, atol=1e-6
    )


def test_padding_and_later_tokens_change_nothing():
    model, (tokens, where, _) = model_of(SIZES[1]), batch()
    longer = torch.cat([tokens, torch.zeros(5, 4, dtype=torch.long)], 1)
    torch.testing.assert_close(model(tokens, where), model(longer, where), rtol=1e-5, atol=1e-6)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    before, after = (model(each, torch.arange(9).expand(5, -1)) for each in (tokens, changed))
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=1e-5, atol=1e-6)
    assert ((before - after)[:, 5:].abs().amax(-1) > 1e-5).all()


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_a_stack_is_its_models_one_by_one(switch, batched):
    models = [model_of(replace(SIZES[1], **switch), seed) for seed in range(3)]
    inputs = [torch.stack(parts) for parts in zip(*(batch(seed=seed) for seed in range(3)), strict=True)]
    inputs.append(torch.tensor([5.0, 4.0, 3.0]))
    gradient, losses = Replicas(models, batched=batched).differentiate(objective, *inputs)
    for number, model in enumerate(models):
        (loss,) = objective(model, *(part[number] for part in inputs))
        loss.backward()
        alone = torch.cat([p.grad.flatten() for p in model.parameters()])
        torch.testing.assert_close(losses[number], loss.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient[number], alone, rtol=1e-4, atol=1e-5)


# Sizes


@pytest.mark.parametrize(("layers", "d", "P"), [(L, d, P) for L, sizes in PAPER.items() for d, P in sizes.items()])
def test_the_paper_s_models_have_its_number_of_parameters(layers, d, P):
    config = Model(d=d, layers=layers)
    assert config.parameters(3000) == P
    if P < 10**6:
        assert sum(p.numel() for p in Llama(config, 3000, stream()).parameters()) == P


def test_a_tied_model_has_one_matrix_less():
    config = Model(d=48, layers=2, tie=True)
    assert sum(p.numel() for p in Llama(config, V, stream()).parameters()) == config.parameters(V)
    assert Model(d=48, layers=2).parameters(V) - config.parameters(V) == V * 48


@pytest.mark.parametrize(
    ("asked", "layers", "P"),
    [(500_000, 4, 435_888), (2_000_000, 12, 2_347_872), (7_000_000, 4, 10_878_448)],
)
def test_a_requested_count_gives_the_authors_model(asked, layers, P):
    config = Model(num_params=asked, layers=layers)
    assert config.d == width_of(asked, layers)
    assert config.parameters(3000) == P


def test_width_is_the_formula_and_never_below_16():
    for asked in range(320_000, 3_000_000, 71_234):
        for layers in (1, 2, 4, 12):
            d = 16 * math.floor(math.floor(math.sqrt((asked - 320_000) / (12 * layers))) / 16)
            assert width_of(asked, layers) == max(16, d)
    assert width_of(1000, 4) == 16


def test_base_widths_of_mup():
    assert [Model(d=192, layers=layers).m for layers in (2, 4, 12)] == [192 / 64, 192 / 96, 192 / 128]
    assert Model(d=192, base_d=48).m == 4 and Model(d=192, base_d=48, mup=False).m == 1


def test_a_head_that_does_not_divide_the_width_is_refused():
    for mistake in ({"d": 40}, {"d": 45, "head_dim": 15}):
        with pytest.raises(ValueError, match="expected an even divisor of it: --model.d 48 --model.head_dim 16"):
            Model(**mistake)
    with pytest.raises((ValueError, UserError)):
        settings_of({"model.d": 40})


# muP


def test_at_base_width_mup_differs_from_standard_in_the_attention_alone():
    c = Model(d=32, layers=2, base_d=32, init=0.2)
    mup, standard = Llama(c, V, stream()), Llama(replace(c, mup=False), V, stream())
    for (name, ours), theirs in zip(mup.named_parameters(), standard.parameters(), strict=True):
        scale = (2 * c.layers) ** -0.5 if "attention.out" in name else 1.0
        torch.testing.assert_close(ours, theirs * scale)
    parts = [
        groups(Optim(), config, Replicas([model])) for config, model in ((c, mup), (replace(c, mup=False), standard))
    ]
    ours, theirs = ([(part["lr"], part["weight_decay"]) for part in each] for each in parts)
    assert ours == theirs
    standard.load_state_dict(mup.state_dict())
    tokens, where, _ = batch()
    assert (mup(tokens, where) - standard(tokens, where)).abs().max() > 1e-4
    with torch.no_grad():
        for block in standard.blocks:
            # Scores over 16 in place of 4.
            block.attention.qkv.weight[:32] *= 16**-0.5
    torch.testing.assert_close(mup(tokens, where), standard(tokens, where))


def test_initial_weights_have_the_spread_that_is_told():
    c = Model(d=128, layers=4, base_d=32)
    model = Llama(c, 2000, stream())
    assert torch.equal(model.gains, torch.ones(9, 128))
    expected = {
        "embedding": 0.02,
        "readout": 0.02,
        "qkv": 0.01,
        "attention.out": 0.01 / 8**0.5,
        "up": 0.01,
        "down": 0.01,
    }
    seen = set()
    for name, weight in model.named_parameters():
        for kind in [kind for kind in expected if f"{kind}.weight" in name]:
            assert weight.std().item() == pytest.approx(expected[kind], rel=0.03)
            assert abs(weight.mean()) < 5 * expected[kind] / weight.numel() ** 0.5
            seen.add(kind)
    assert seen == set(expected)
    assert Llama(replace(c, mup=False), 9, stream()).blocks[0].up.weight.std().item() == pytest.approx(0.02, rel=0.03)


def states(replicas: Replicas, tokens: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the last block puts out, and the logits, of a stack."""
    seen = []
    hook = replicas.skeleton.blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out))
    logits = replicas.each(lambda model, *inputs: (model(*inputs).detach(),), tokens, where)[0]
    hook.remove()
    return torch.stack(seen).detach(), logits


def changes(d: int, mup: bool) -> list[float]:
    """Size of the change of hidden states and of logits by five steps of AdamW on one batch."""
    c = Model(d=d, layers=2, base_d=32, mup=mup)
    replicas = Replicas([Llama(c, V, stream(seed)) for seed in range(2)])
    inputs = [part.expand(2, *part.shape) for part in batch(B=8)] + [torch.full((2,), 8.0)]
    learner = Learner(Optim("adamw_linear", lr=5e-3, beta1=0.9, weight_decay=0.0, warmup=0), c, replicas, 10**6)
    before = states(replicas, *inputs[:2])
    for now in range(1, 6):
        learner.update(replicas.differentiate(objective, *inputs)[0], now)
    after = states(replicas, *inputs[:2])
    return [float((new - old).square().mean().sqrt()) for new, old in zip(after, before, strict=True)]


def test_changes_keep_their_size_with_width_under_mup_and_grow_without():
    """The coordinate check of Yang et al. 2022: hidden states and logits move as far in a model of any width."""
    widths = torch.tensor([32.0, 64.0, 128.0, 256.0])
    x = widths.log() - widths.log().mean()
    with_mup, without = (
        (x @ torch.tensor([changes(int(d), mup) for d in widths]).log() / (x @ x)).tolist() for mup in (True, False)
    )
    assert max(map(abs, with_mup)) < 0.25
    assert min(without) > 0.5
