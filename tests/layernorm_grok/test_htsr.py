"""Spectra of weight matrices: which matrices are read, and each measure against torch and known spectra."""

import math

import pytest
import torch

from layernorm_grok.estimators import power_law
from layernorm_grok.estimators.htsr import average, matrices, measure
from layernorm_grok.model import Model, Transformer
from layernorm_grok.placement import Placement


def state(**options) -> dict:
    model = Transformer(Model(d=16, heads=2, **options), 11, Placement.parse("pre"), torch.Generator().manual_seed(0))
    return model.state_dict()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("mlp", "parts"), [("ff", 6), ("glu", 7)])
def test_every_linear_map_of_every_layer_is_read(layers, mlp, parts):
    names = dict(matrices(state(layers=layers, mlp=mlp)))
    assert len(names) == layers * parts
    for layer in range(layers):
        assert {f"layers.{layer}.{part}" for part in ("q", "k", "v", "out", "fc1", "fc2")} <= set(names)
    assert all(W.dim() == 2 for W in names.values())
    assert ("layers.0.gate" in names) == (mlp == "glu")


def test_queries_keys_and_values_are_the_thirds_of_qkv():
    weights = state(layers=2)
    names = dict(matrices(weights))
    for layer in (0, 1):
        packed = torch.cat([names[f"layers.{layer}.{part}"] for part in "qkv"])
        assert packed.equal(weights[f"layers.{layer}.qkv"])


@pytest.mark.parametrize("shape", [(40, 40), (80, 20), (20, 80)])
def test_measures_equal_those_of_torch(shape):
    W = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measure(W)
    s = torch.linalg.svdvals(W)
    p = s.square() / s.square().sum()
    norm = torch.linalg.matrix_norm
    assert found["stable_rank_original"] == pytest.approx(float(norm(W) / norm(W, 2)))
    assert found["stable_rank"] == pytest.approx(found["stable_rank_original"] ** 2)
    assert found["effective_rank"] == pytest.approx(float(torch.exp(torch.special.entr(p).sum())))
    assert found["alpha_pl"] == pytest.approx(power_law.estimate(s.square()).alpha)
    assert found["numerical_rank"] == min(shape)


def test_a_matrix_and_its_transpose_are_equally_heavy():
    W = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    assert measure(W) == pytest.approx(measure(W.mT))


def test_numerical_rank_is_that_of_the_matrix_in_float32():
    generator = torch.Generator().manual_seed(2)
    U, V = (torch.linalg.qr(torch.randn(n, 5, generator=generator, dtype=torch.float64)).Q for n in (48, 12))
    W = (U * torch.tensor([1, 1e-1, 1e-2, 1e-4, 3e-6])) @ V.mT
    # The tolerance is 48 x 1.2e-7, so 3e-6 is below it; in W^T W even 1e-4 would be.
    assert measure(W)["numerical_rank"] == 4 == int(torch.linalg.matrix_rank(W.float()))


def test_average_is_over_matrices():
    found = [measure(W) for _, W in matrices(state(layers=2))]
    assert len(found) == 12
    mean = average(found)
    assert set(mean) == {"alpha_pl", "effective_rank", "numerical_rank", "stable_rank_original", "stable_rank"}
    for key, value in mean.items():
        assert math.isfinite(value)
        assert value == pytest.approx(sum(row[key] for row in found) / 12)
