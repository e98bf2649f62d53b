"""Replicas: a stack equals solo models, and the optimiser step equals torch's."""

import pytest
import torch
from torch import nn

from common.replicas import Replicas, embedding, layer_norm, linear, pick


class Tiny(nn.Module):
    """Table, linear, LayerNorm, linear: every op of common.replicas once."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.norm = nn.Embedding(7, 6), nn.LayerNorm(6, eps=1e-5)
        self.inner, self.outer = nn.Linear(6, 5), nn.Linear(5, 1, bias=False)
        for p in (self.norm.weight, self.norm.bias):
            nn.init.normal_(p)

    def forward(self, ids):
        h = layer_norm(embedding(ids, self.table.weight, 0), self.norm.weight, self.norm.bias, self.norm.eps)
        return linear(linear(h, self.inner.weight, self.inner.bias).tanh(), self.outer.weight).squeeze(-1)


def inputs(replicas: int = 3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 7, (replicas, 11, 4), generator=generator)


def loss_of(model, ids):
    """A replica's loss and a second result."""
    output = model(ids)
    loss = output.square().mean((-2, -1))
    return loss, output.mean((-2, -1))


@pytest.mark.parametrize("batched", [True, False])
def test_masked_row_of_the_table_gets_no_gradient(batched):
    stack = Replicas([Tiny(0), Tiny(1)], batched=batched)
    table = stack.differentiate(loss_of, inputs(2))[0][:, : 7 * 6].view(2, 7, 6)
    assert table[:, 0].abs().max() == 0
    assert table[:, 1:].abs().max() > 0


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_equals_torch(decay):
    ids, models = inputs(2), [Tiny(s).double() for s in range(2)]
    stack = Replicas(models)
    rates = torch.tensor([[1e-2], [3e-2]], dtype=torch.double)
    optimisers = [
        torch.optim.AdamW(m.parameters(), lr=float(r), weight_decay=decay) for m, r in zip(models, rates, strict=True)
    ]
    for _ in range(20):
        stack.adam(stack.differentiate(loss_of, ids)[0], rates, weight_decay=decay)
        for r, (model, optimiser) in enumerate(zip(models, optimisers, strict=True)):
            optimiser.zero_grad()
            model(ids[r]).square().mean().backward()
            optimiser.step()
    for r, model in enumerate(models):
        for name, value in pick(stack.weights(), r).items():
            torch.testing.assert_close(value, model.get_parameter(name).detach(), rtol=1e-6, atol=1e-8)


def test_clipping_is_per_replica():
    stack = Replicas([Tiny(0), Tiny(1)])
    gradient = torch.stack([torch.full((stack.flat.shape[1],), 10.0), torch.full((stack.flat.shape[1],), 1e-4)])
    stack.adam(gradient.clone(), 1e-3, clip=1.0)
    norms = stack.mean.norm(dim=1) / 0.1
    torch.testing.assert_close(norms, torch.tensor([1.0, float(gradient[1].norm())]))


def test_a_diverged_replica_stops_alone():
    stack, alone = Replicas([Tiny(0), Tiny(1)]), Replicas([Tiny(1)])
    before = stack.flat[0].clone()
    good = torch.ones(1, stack.flat.shape[1])
    for _ in range(2):
        stack.adam(torch.cat([good * float("nan"), good]), 1e-2, weight_decay=0.1)
        alone.adam(good, 1e-2, weight_decay=0.1)
    assert torch.equal(stack.flat[0], before)
    assert torch.equal(stack.flat[1], alone.flat[0])
    assert stack.alive.flatten().tolist() == [0, 1]


def test_frozen_parameters_stay_bitwise():
    models = [Tiny(0), Tiny(1)]
    stack = Replicas(models, trainable=[{"inner.weight"}, {"table.weight", "inner.bias"}])
    before = stack.weights()
    for _ in range(3):
        stack.adam(stack.differentiate(loss_of, inputs(2))[0], 1e-2, weight_decay=0.1)
    after = stack.weights()
    moved = [{n for n in before if not torch.equal(before[n][r], after[n][r])} for r in range(2)]
    assert moved == [{"inner.weight"}, {"table.weight", "inner.bias"}]


def test_state_goes_round():
    first, second = Replicas([Tiny(0)]), Replicas([Tiny(5)])
    first.adam(torch.ones_like(first.flat), 1e-2)
    second.restore(first.state())
    for stack in (first, second):
        stack.adam(torch.full_like(stack.flat, 0.3), 1e-2)
    assert torch.equal(first.flat, second.flat)
    assert torch.equal(
        second.params["inner.weight"].detach()[0].flatten(), second.weights()["inner.weight"][0].flatten()
    )


@pytest.mark.parametrize("batched", [True, False])
def test_differentiate_equals_autograd_on_each_model(batched):
    models, ids = [Tiny(s).double() for s in range(3)], inputs()
    stack = Replicas(models, batched=batched)
    gradient, losses, means = stack.differentiate(loss_of, ids)
    for r, model in enumerate(models):
        loss, mean = loss_of(model, ids[r])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        torch.testing.assert_close(gradient[r], torch.cat([g.flatten() for g in grads]))
        torch.testing.assert_close((losses[r], means[r]), (loss.detach(), mean.detach()))
    evaluated, _ = stack.each(loss_of, ids)
    torch.testing.assert_close(evaluated.detach(), losses)


def test_a_subset_steps_as_the_whole_would_and_is_taken_back():
    ids = inputs(3)
    whole, other = (Replicas([Tiny(s) for s in range(3)], batched=False) for _ in range(2))
    for _ in range(3):
        for stack in (whole, other):
            stack.adam(stack.differentiate(loss_of, ids)[0], torch.full((3, 1), 1e-2))
    part = whole.subset([0, 2])
    before = whole.flat.clone()
    for _ in range(3):
        part.adam(part.differentiate(loss_of, ids[[0, 2]])[0], torch.full((2, 1), 1e-2))
        other.adam(other.differentiate(loss_of, ids)[0], torch.full((3, 1), 1e-2))
    assert torch.equal(whole.flat, before)
    whole.absorb(part, [2], [1])
    torch.testing.assert_close(whole.flat[2], other.flat[2])
    assert torch.equal(whole.flat[:2], before[:2])
    assert int(whole.steps) == 6


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_measured_norm_is_that_of_the_update(kind, decay):
    stack = Replicas([Tiny(0).double(), Tiny(1).double()], [{"inner.weight", "norm.bias"}, {"table.weight"}])
    before = stack.flat.clone()
    gradient = stack.differentiate(loss_of, inputs(2))[0]
    rates, decays = torch.tensor([[1e-2], [3e-2]]).double(), torch.full((2, 1), decay).double()
    norm = getattr(stack, kind)(gradient, rates, weight_decay=decays, measure=True)
    torch.testing.assert_close(norm, (stack.flat - before).norm(dim=1))
    assert torch.equal(stack.flat[stack.moves == 0], before[stack.moves == 0])


def test_sgd_equals_torch():
    ids, models = inputs(2), [Tiny(s).double() for s in range(2)]
    stack = Replicas(models)
    optimisers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    for _ in range(5):
        stack.sgd(stack.differentiate(loss_of, ids)[0], 0.1)
        for r, (model, optimiser) in enumerate(zip(models, optimisers, strict=True)):
            optimiser.zero_grad()
            loss_of(model, ids[r])[0].backward()
            optimiser.step()
    for r, model in enumerate(models):
        torch.testing.assert_close(stack.flat[r], torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_with_epsilon_0_a_weight_without_gradient_only_decays():
    stack = Replicas([Tiny(0).double()], batched=False)
    before = stack.flat.clone()
    gradient = stack.differentiate(loss_of, inputs(1))[0]
    gradient[:, ::2] = 0
    stack.adam(gradient, 1e-2, eps=0.0, weight_decay=torch.full((1, 1), 0.5).double())
    assert stack.flat.isfinite().all()
    torch.testing.assert_close(stack.flat[:, ::2], before[:, ::2] * (1 - 1e-2 * 0.5))
    moved = gradient != 0
    torch.testing.assert_close(stack.flat[moved], before[moved] * (1 - 1e-2 * 0.5) - 1e-2 * gradient[moved].sign())


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_replica_lost_stops_and_spares_the_others(kind):
    stack = Replicas([Tiny(0), Tiny(1)], batched=False)
    gradient = stack.differentiate(loss_of, inputs(2))[0]
    gradient[0, 3] = float("nan")
    before = stack.flat.clone()
    getattr(stack, kind)(gradient, 0.1)
    assert torch.equal(stack.flat[0], before[0]) and not torch.equal(stack.flat[1], before[1])
    assert stack.alive.flatten().tolist() == [0.0, 1.0]
