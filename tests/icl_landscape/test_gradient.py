"""The gradient by hand is autograd's, of every model, switch and loss that it takes on; the others are left to autograd."""

from dataclasses import replace

import pytest
import torch

from common.replicas import Replicas
from icl_landscape.regression import gradient
from icl_landscape.regression.data import Data
from icl_landscape.regression.gradient import by_hand, differentiate, fits, losses
from icl_landscape.regression.losses import objective, subsequence_mse, subsequence_weights, token_losses
from icl_landscape.regression.model import Model
from icl_landscape.sgmcmc.chains import Chains, by_replicas
from icl_landscape.sgmcmc.settings import Sampling
from icl_landscape.train import Config, build

SMALL = Model(d=12, heads=3, d_mlp=20)


def stack(model: Model, data: Data, count: int = 3, **options) -> Replicas:
    """In double, where no unit of the ReLU is on another side of 0; gains and biases are moved from where they start."""
    models = [build(Config(model=model, data=data), seed).double() for seed in range(count)]
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for m in models for p in m.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    return Replicas(models, **options)


def sequences(data: Data, count: int = 3, batch: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(2)
    sizes = (count, batch, data.K, data.D), (count, batch, data.K)
    return tuple(torch.randn(size, generator=noise, dtype=torch.float64) for size in sizes)


def assert_same(found, wanted) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("data", [Data(), Data(D=2, K=5), Data(D=6, K=9)], ids=str)
@pytest.mark.parametrize(
    "model",
    [Model(), SMALL, replace(SMALL, layers=3), replace(SMALL, double_residual=True),
     replace(SMALL, double_residual=True, layers=3, heads=1)],
    ids=str,
)  # fmt: skip
def test_by_hand_is_autograd(model, data):
    replicas, batch = stack(model, data), sequences(data)
    assert fits(replicas, model)
    assert_same(differentiate(replicas, model, *batch), replicas.differentiate(objective, *batch))


def test_in_single_precision_too():
    data, model = Data(), Model()
    replicas = Replicas([build(Config(), seed) for seed in range(2)])
    batch = [part.float() for part in sequences(data, 2, 40)]
    for ours, theirs in zip(
        differentiate(replicas, model, *batch), replicas.differentiate(objective, *batch), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_fewer_examples_than_in_training():
    replicas, batch = stack(SMALL, Data()), sequences(Data(K=3))
    assert_same(differentiate(replicas, SMALL, *batch), replicas.differentiate(objective, *batch))


def test_a_weighted_loss():
    data = Data(K=5)
    replicas, batch = stack(SMALL, data), sequences(data)
    weights = subsequence_weights(batch[1][0]) * data.K

    def loss(model, x, y):
        losses = token_losses(model(x, y), y)
        return subsequence_mse(losses), losses * weights

    assert_same(differentiate(replicas, SMALL, *batch, weights), replicas.differentiate(loss, *batch))


@pytest.mark.parametrize("rows", [1, 2 * 7 * 8 * 2])
def test_models_some_at_a_time(rows, monkeypatch):
    monkeypatch.setattr(gradient, "ROWS", rows)
    replicas, batch = stack(SMALL, Data()), sequences(Data())
    assert_same(differentiate(replicas, SMALL, *batch), replicas.differentiate(objective, *batch))


def test_weights_that_stay_have_no_gradient():
    names = [{"blocks.0.norm1.weight", "token.weight"}, {"unembedding.bias"}, {"blocks.1.attention.qkv.weight"}]
    replicas, batch = stack(SMALL, Data(), trainable=names), sequences(Data())
    assert_same(differentiate(replicas, SMALL, *batch), replicas.differentiate(objective, *batch))


def test_a_lost_model_leaves_the_others_as_they_were():
    replicas, batch = stack(SMALL, Data()), sequences(Data())
    wanted = differentiate(replicas, SMALL, *batch)
    replicas.flat[1] = torch.nan
    for ours, theirs in zip(differentiate(replicas, SMALL, *batch), wanted, strict=True):
        assert ours[1].isnan().any()
        torch.testing.assert_close(ours[[0, 2]], theirs[[0, 2]], rtol=0, atol=0)


@pytest.mark.parametrize(
    "switch",
    [{"layer_norm": False}, {"include_output": False}, {"drop_last_y": False}, {"last_block_at_x": False},
     {"layers": 1}],
    ids=str,
)  # fmt: skip
def test_other_models_are_left_to_autograd(switch):
    model = replace(SMALL, **switch)
    replicas, batch, weights = stack(model, Data()), sequences(Data()), torch.arange(8.0).double()
    assert not fits(replicas, model)
    assert_same(differentiate(replicas, model, *batch), replicas.differentiate(objective, *batch))
    weighted = differentiate(replicas, model, *batch, weights)
    assert_same([weighted[2]], [objective(replicas._model(replicas.params), *batch)[1] * weights])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_model_has_the_same_bits_in_any_company(count):
    batch = [part.float() for part in sequences(Data(), 4, 64)]
    models = [build(Config(), seed) for seed in range(4)]
    whole = differentiate(Replicas(models), Model(), *batch)
    part = differentiate(Replicas(models[:count]), Model(), *(b[:count] for b in batch))
    assert all(torch.equal(theirs[:count], ours) for theirs, ours in zip(whole, part, strict=True))


@pytest.mark.parametrize("model", [SMALL, replace(SMALL, layer_norm=False)], ids=str)
def test_losses_alone_have_the_same_bits(model):
    replicas, batch, weights = stack(model, Data()), sequences(Data()), torch.arange(8.0).double()
    assert torch.equal(losses(replicas, model, *batch), differentiate(replicas, model, *batch)[2])
    assert torch.equal(losses(replicas, model, *batch, weights), differentiate(replicas, model, *batch, weights)[2])


def test_chains_go_the_same_way():
    traces = []
    for make in (lambda r: by_replicas(r, objective), lambda r: by_hand(r, SMALL)):
        replicas, data = stack(SMALL, Data(), 2), sequences(Data(), 2)
        sampling = Sampling(chains=2, draws=6, epsilon=1e-5)
        traces.append(Chains(replicas.flat, make(replicas), lambda data=data: data, sampling, parts=8).run())
    assert_same([traces[0].losses, traces[0].distance], [traces[1].losses, traces[1].distance])
