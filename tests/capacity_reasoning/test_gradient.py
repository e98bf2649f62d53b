"""The gradient by hand is autograd's, of every size, switch and kind of row; other settings are left to autograd."""

from dataclasses import replace

import pytest
import torch

from capacity_reasoning.facts.questions import IGNORED, Rows, rows, written
from capacity_reasoning.facts.text import Form
from capacity_reasoning.gradient import by_hand, fits
from capacity_reasoning.losses import objective
from capacity_reasoning.model import Llama, Model
from capacity_reasoning.train import State, differentiate
from common.replicas import Replicas
from tests.capacity_reasoning.tiny import questions_of, settings_of, stream, tables_of, tokenizer_of

CONFIG = Model(d=16, layers=2, base_d=8, head_dim=8)
FORMS = [Form("paper", True), Form("compact", False, True)]
V = max(tokenizer_of(form).get_vocab_size() for form in FORMS)


def stack(config: Model, count: int = 2, dtype: torch.dtype = torch.float64) -> Replicas:
    """With all weights moved from where they start, gains too."""
    models = [Llama(config, V, stream(seed)).to(dtype) for seed in range(count)]
    noise = stream(9)
    with torch.no_grad():
        for parameter in (p for model in models for p in model.parameters()):
            parameter += 0.2 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64).to(dtype)
    return Replicas(models)


def questions(form: Form, count: int = 2, batch: int = 12, dtype: torch.dtype = torch.float64) -> Rows:
    """Questions of one and two hops for every model, answers of different lengths and so padding of both kinds."""
    people, pieces, facts = tables_of(form)
    noise = stream(4)
    p, s, r = (torch.randint(most, (count * batch,), generator=noise) for most in (people.N, people.S, people.R))
    r[torch.arange(count * batch) % 3 == 0] = -1
    told = rows(written(pieces, facts, p, r[:, None], s))
    parts = (part.unflatten(0, (count, batch)) for part in told[:3])
    return Rows(*parts, torch.full((count,), float(batch), dtype=dtype))


def assert_by_hand_is_autograd(config: Model, told: Rows, replicas: Replicas, rtol: float = 1e-9) -> None:
    ours, theirs = by_hand(config, replicas.leaves, told), replicas.differentiate(objective, *told)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < rtol * other.abs().max()


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("mup", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_by_hand_is_autograd(layers, mup, tie, form, monkeypatch):
    in_double(monkeypatch)
    config = replace(CONFIG, layers=layers, mup=mup, tie=tie)
    assert_by_hand_is_autograd(config, questions(form), stack(config))


def in_double(monkeypatch) -> None:
    """The reference loss in double: in training its logits are put into single precision."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.parametrize(("d", "head_dim"), [(8, 2), (8, 8), (16, 16), (24, 4)])
def test_heads_of_any_width(d, head_dim, monkeypatch):
    in_double(monkeypatch)
    config = replace(CONFIG, d=d, head_dim=head_dim)
    assert_by_hand_is_autograd(config, questions(FORMS[0]), stack(config))


def test_rows_of_one_length_and_answers_of_one_token(monkeypatch):
    in_double(monkeypatch)
    noise = stream(5)
    tokens, targets = torch.randint(V, (2, 6, 5), generator=noise), torch.randint(V, (2, 6, 1), generator=noise)
    told = Rows(tokens, torch.full((2, 6, 1), 4), targets, torch.full((2,), 6.0, dtype=torch.float64))
    assert_by_hand_is_autograd(CONFIG, told, stack(CONFIG))


def test_a_row_in_which_nothing_is_asked(monkeypatch):
    in_double(monkeypatch)
    told = questions(FORMS[0])
    told.targets[:, 3] = IGNORED
    assert_by_hand_is_autograd(CONFIG, told, stack(CONFIG))


def test_in_single_precision_too():
    replicas = stack(CONFIG, dtype=torch.float32)
    assert_by_hand_is_autograd(CONFIG, questions(FORMS[0], dtype=torch.float32), replicas, 1e-5)


def test_the_gradient_is_that_of_differences():
    """The loss itself, by central differences along random directions."""
    replicas, told = stack(CONFIG, 1), questions(FORMS[1], 1)
    (gradient,), _ = by_hand(CONFIG, replicas.leaves, told)
    for seed in range(3):
        direction = torch.randn(gradient.shape, generator=stream(seed), dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                replicas.flat[0] += sign * 1e-6 * direction
                values.append(float(by_hand(CONFIG, replicas.leaves, told)[1]))
                replicas.flat[0] -= sign * 1e-6 * direction
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_a_lost_model_leaves_the_others_as_they_were():
    replicas, told = stack(CONFIG, 3), questions(FORMS[0], 3)
    wanted = by_hand(CONFIG, replicas.leaves, told)
    with torch.no_grad():
        replicas.flat[1] = torch.nan
    for ours, theirs in zip(by_hand(CONFIG, replicas.leaves, told), wanted, strict=True):
        assert ours[1].isnan().any()
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"data.packing": "causal", "data.context": 64}, False), ({"precision": "bf16"}, False)],
    ids=str,
)
def test_which_settings_are_done_by_hand(changes, expected):
    told = settings_of(changes)
    assert fits(told, stack(CONFIG)) == expected
    batched = stack(CONFIG)
    batched.batched = True
    assert not fits(told, batched)


def test_training_goes_the_same_way_either_way(monkeypatch):
    changes = {"mix.orders": [1, 2]}
    settings, made = settings_of(changes), questions_of(changes)
    state = State.start(settings, made, torch.device("cpu"))
    told = questions(FORMS[1], dtype=torch.float32)
    state.show(told._replace(tokens=told.tokens % made[0].vocabulary, targets=torch.where(
        told.targets == IGNORED, IGNORED, told.targets % made[0].vocabulary)))  # fmt: skip
    ours = differentiate(settings, state)
    monkeypatch.setattr("capacity_reasoning.train.fits", lambda *_: False)
    for one, other in zip(ours, differentiate(settings, state), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
