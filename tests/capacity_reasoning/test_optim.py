"""Optimisers of a stack against their packages on separate parameters, and against their published formulas."""

import math
from dataclasses import replace

import pytest
import torch
from schedulefree import AdamWScheduleFree

from capacity_reasoning.model import Llama, Model
from capacity_reasoning.optim import Learner, Optim, groups
from common.replicas import Replicas
from tests.capacity_reasoning.tiny import stream

CONFIG = Model(d=32, layers=2, base_d=8)
"""m = 4."""
FREE = Optim(lr=0.01, beta1=0.9, beta2=0.95, weight_decay=0.3, warmup=3)
COSINE = replace(FREE, name="adamw_cosine")
LINEAR = replace(FREE, name="adamw_linear")
V, STEPS = 20, 10


def models(count: int = 2) -> list[Llama]:
    return [Llama(CONFIG, V, stream(seed)) for seed in range(count)]


def learner_of(c: Optim, count: int = 2, config: Model = CONFIG) -> Learner:
    return Learner(c, config, Replicas(models(count)), STEPS)


def gradients(learner: Learner, steps: int = STEPS) -> list[torch.Tensor]:
    noise = stream(7)
    return [torch.randn(learner.replicas.flat.shape, generator=noise) for _ in range(steps)]


def run(learner: Learner, given: list[torch.Tensor], first: int = 1) -> torch.Tensor:
    """The weights after steps with gradients that are given; schedule-free's are those to train with."""
    with learner.averaged():
        pass
    for now, gradient in enumerate(given, first):
        learner.update(gradient.clone(), now)
    return learner.replicas.flat.clone()


def separate(model: Llama, c: Optim) -> tuple[list[dict], list[torch.nn.Parameter]]:
    """Groups of every parameter by its own, as muP says, and the parameters in order."""
    parts = []
    for name, parameter in model.named_parameters():
        m = CONFIG.m if "blocks" in name else 1.0
        parts.append({"params": [parameter], "lr": c.lr / m, "weight_decay": c.weight_decay * m})
    return parts, [part["params"][0] for part in parts]


def flat(parameters) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


def give(parameters, gradient: torch.Tensor) -> None:
    parts = gradient.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view(parameter.shape).clone()


# Schedule-free


def test_flat_groups_are_the_package_on_separate_parameters():
    learner = learner_of(FREE)
    given = gradients(learner)
    ours = run(learner, given)
    with learner.averaged():
        averages = learner.replicas.flat.clone()
    for number, model in enumerate(models()):
        parts, parameters = separate(model, FREE)
        optimizer = AdamWScheduleFree(parts, lr=FREE.lr, betas=(0.9, 0.95), eps=FREE.eps, warmup_steps=3)
        optimizer.train()
        for gradient in given:
            give(parameters, gradient[number])
            optimizer.step()
        torch.testing.assert_close(ours[number], flat(parameters), rtol=1e-5, atol=1e-7)
        optimizer.eval()
        torch.testing.assert_close(averages[number], flat(parameters), rtol=1e-5, atol=1e-7)


def test_schedule_free_is_its_published_update():
    """Defazio et al. 2024, algorithm 1 with AdamW's step; x is kept beside y and z, as it is defined."""
    learner = learner_of(FREE)
    given = gradients(learner)
    y = learner.replicas.flat.clone().double()
    sizes = [part["params"][0].shape[1] for part in groups(FREE, CONFIG, learner.replicas)]
    m = torch.cat([torch.ones(sizes[0]), torch.full((sizes[1],), CONFIG.m)]).double()
    x, z, v, total = y.clone(), y.clone(), torch.zeros_like(y), 0.0
    for k, gradient in enumerate(given):
        g, rate = gradient.double(), FREE.lr * min((k + 1) / FREE.warmup, 1.0)
        v = FREE.beta2 * v + (1 - FREE.beta2) * g**2
        d = g / ((v / (1 - FREE.beta2 ** (k + 1))).sqrt() + FREE.eps) + FREE.weight_decay * m * y
        # Weights of the average: the square of the largest rate so far.
        total += rate**2
        c = rate**2 / total
        z = z - rate / m * d
        x = (1 - c) * x + c * z
        y = (1 - FREE.beta1) * z + FREE.beta1 * x
    ours = run(learner, given)
    torch.testing.assert_close(ours.double(), y, rtol=1e-4, atol=1e-6)
    with learner.averaged():
        torch.testing.assert_close(learner.replicas.flat.double(), x, rtol=1e-4, atol=1e-6)
    assert (x - y).abs().max() > 1e-3


def test_the_first_step_of_the_warm_up_is_a_part_of_the_rate_and_none_is_none():
    for warmup, share in ((4, 0.25), (0, 1.0)):
        learner = learner_of(replace(FREE, warmup=warmup, weight_decay=0.0, beta1=0.0))
        before = learner.replicas.flat.clone()
        after = run(learner, gradients(learner, 1))
        # All in z after a first step, whose Adam step has size 1.
        moved = (after - before).abs()[:, : V * CONFIG.d]
        torch.testing.assert_close(moved, torch.full_like(moved, FREE.lr * share), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("c", [FREE, COSINE], ids=lambda c: c.name)
def test_looking_at_the_average_leaves_every_bit(c):
    looks, blind = learner_of(c), learner_of(c)
    given = gradients(looks)
    run(blind, [])
    for now, gradient in enumerate(given, 1):
        with looks.averaged():
            pass
        before = looks.replicas.flat.clone()
        with pytest.raises(KeyError), looks.averaged():
            # After a first step y, z and x are one.
            assert torch.equal(looks.replicas.flat, before) == (c.name != "schedulefree" or now <= 2)
            raise KeyError
        assert torch.equal(looks.replicas.flat, before)
        looks.update(gradient.clone(), now)
        blind.update(gradient.clone(), now)
    assert torch.equal(looks.replicas.flat, blind.replicas.flat)


def test_every_process_can_step_without_a_look_before():
    """Of several processes only the first looks at the weights before the first step."""
    learner, other = learner_of(FREE), learner_of(FREE)
    given = gradients(learner, 3)
    for now, gradient in enumerate(given, 1):
        learner.update(gradient.clone(), now)
    assert torch.equal(learner.replicas.flat, run(other, given))


@pytest.mark.parametrize("c", [FREE, COSINE, LINEAR], ids=lambda c: c.name)
@pytest.mark.parametrize("at", [0, 1, 6])
def test_a_restored_learner_goes_on_as_if_never_stopped(c, at, tmp_path):
    whole, first, second = (learner_of(c) for _ in range(3))
    given = gradients(whole)
    expected = run(whole, given)
    run(first, given[:at])
    torch.save({"learner": first.state(), "stack": first.replicas.state()}, tmp_path / "state")
    saved = torch.load(tmp_path / "state", weights_only=True)
    second.replicas.restore(saved["stack"])
    second.restore(saved["learner"])
    assert torch.equal(run(second, given[at:], at + 1), expected)
    with whole.averaged(), second.averaged():
        assert torch.equal(whole.replicas.flat, second.replicas.flat)


# AdamW


def literal_rate(c: Optim, now: int) -> float:
    """Over its largest, of step `now`: a line up, then down to what is one step before 0."""
    if now <= c.warmup:
        return now / c.warmup
    done = (now - 1 - c.warmup) / (STEPS - c.warmup)
    return 1 - done if c.name == "adamw_linear" else (1 + math.cos(math.pi * done)) / 2


@pytest.mark.parametrize("c", [COSINE, LINEAR], ids=lambda c: c.name)
def test_adamw_is_torch_s_on_separate_parameters(c):
    learner = learner_of(c)
    given = gradients(learner)
    ours = run(learner, given)
    for number, model in enumerate(models()):
        parts, parameters = separate(model, c)
        largest = [part["lr"] for part in parts]
        optimizer = torch.optim.AdamW(parts, betas=(0.9, 0.95), eps=c.eps)
        for now, gradient in enumerate(given, 1):
            give(parameters, gradient[number])
            for group, rate in zip(optimizer.param_groups, largest, strict=True):
                group["lr"] = rate * literal_rate(c, now)
            optimizer.step()
        torch.testing.assert_close(ours[number], flat(parameters), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("c", [COSINE, LINEAR], ids=lambda c: c.name)
@pytest.mark.parametrize("warmup", [0, 1, 3, 10])
def test_rates_rise_to_1_and_fall_towards_0(c, warmup):
    learner = learner_of(replace(c, warmup=warmup))
    rates = [learner.rate(now) for now in range(1, STEPS + 1)]
    top = max(warmup, 1) - 1
    assert rates[top] == max(rates) == 1 and min(rates) > 0
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    if warmup < STEPS:
        assert learner.rate(STEPS + 1) == pytest.approx(0, abs=1e-12)


# muP and decay


def test_mup_divides_the_rate_of_hidden_matrices_and_keeps_rate_times_decay():
    replicas = Replicas(models())
    others, hidden = groups(FREE, CONFIG, replicas)
    names = [name for name in replicas.shapes if not name.startswith("blocks.")]
    assert set(names) == {"embedding.weight", "gains", "readout.weight"} and names == list(replicas.shapes)[:3]
    assert others["params"][0].shape[1] == sum(replicas.shapes[name].numel() for name in names)
    assert others["params"][0].shape[1] + hidden["params"][0].shape[1] == replicas.flat.shape[1]
    assert (others["lr"], others["weight_decay"]) == (0.01, 0.3)
    assert hidden["lr"] == 0.01 / 4
    assert hidden["lr"] * hidden["weight_decay"] == pytest.approx(others["lr"] * others["weight_decay"])
    # Views: a step on them is one on the weights.
    hidden["params"][0].fill_(5.0)
    assert all((p == 5.0).all() == name.startswith("blocks.") for name, p in replicas.params.items())


@pytest.mark.parametrize("c", [COSINE, FREE], ids=lambda c: c.name)
@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("mup", [True, False])
def test_without_gradient_a_step_is_the_decay_alone(c, decay_all, mup):
    c = replace(c, decay_all=decay_all, warmup=0, beta1=0.9 if c.name == "adamw_cosine" else 0.0)
    learner = learner_of(c, config=replace(CONFIG, mup=mup))
    before = learner.replicas.weights()
    run(learner, [torch.zeros_like(learner.replicas.flat)])
    for name, weight in learner.replicas.weights().items():
        kept = 1 - 0.01 * 0.3 if decay_all or name.startswith("blocks.") else 1.0
        torch.testing.assert_close(weight, before[name] * kept, rtol=1e-6, atol=0, msg=name)


@pytest.mark.parametrize("c", [FREE, COSINE], ids=lambda c: c.name)
def test_a_gradient_that_is_not_finite_stops_its_model_and_leaves_the_others(c):
    pair, alone = learner_of(c), learner_of(c, 1)
    given = gradients(pair)
    expected = run(alone, [gradient[:1] for gradient in given])
    for gradient in given[4:6]:
        gradient[1, 3] = torch.nan
    before = []
    with pair.averaged():
        pass
    for now, gradient in enumerate(given, 1):
        pair.update(gradient.clone(), now)
        before.append(pair.replicas.flat[1].clone())
    torch.testing.assert_close(pair.replicas.flat[:1], expected, rtol=0, atol=0)
    assert pair.replicas.alive.flatten().tolist() == [1, 0]
    assert all(row.isfinite().all() for row in before)
