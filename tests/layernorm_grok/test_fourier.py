"""Fourier measures of embeddings: closed forms for noise and planted frequencies, and what they must not depend on."""

import math

import numpy as np
import pytest
import torch

from layernorm_grok.estimators.fourier import amplitudes, concentration, gini, key_frequency_share


def noise(P: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(P, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def waves(P: int, d: int, frequencies: list[int], seed: int = 0) -> torch.Tensor:
    """Every column the same unit waves with phases of its own."""
    phase = 2 * math.pi * torch.rand(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a = torch.arange(P, dtype=torch.float64)[:, None]
    return sum(torch.cos(2 * math.pi * k * a / P + k * phase) for k in frequencies)


def white_noise_level(P: int, d: int, dc: bool) -> float:
    """Expected C_F, to first order: amplitudes over sqrt(P) are Rayleigh for k > 0 and half-normal for DC; P odd."""
    rows = [(math.sqrt(math.pi) / 2, 1 - math.pi / 4)] * (P // 2)
    rows += [(math.sqrt(2 / math.pi), 1 - 2 / math.pi)] if dc else []
    means, variances = np.array(rows).T
    spread = means.var() + variances.mean() / d * (1 - 1 / len(rows))
    return spread / (variances.mean() * (1 - 1 / d))


@pytest.mark.parametrize("dc", [True, False])
@pytest.mark.parametrize(("P", "d"), [(113, 128), (47, 48)])
def test_white_noise_has_the_level_of_its_amplitudes(P, d, dc):
    found = np.array([concentration(noise(P, d, seed), dc) for seed in range(150)])
    error = found.std() / math.sqrt(len(found))
    assert found.mean() == pytest.approx(white_noise_level(P, d, dc), abs=4 * error)
    if (P, d, dc) == (113, 128, True):
        # The paper's runs begin at 0.0089, a mean of five.
        assert found.mean() == pytest.approx(0.0089, abs=2 * found.std() / math.sqrt(5))


@pytest.mark.parametrize("P", [113, 47, 46])
def test_concentration_equals_a_literal_double_loop(P):
    W = noise(P, 6) + waves(P, 6, [3])
    F = [
        [
            abs(sum(float(W[a, j]) * complex(math.cos(t := 2 * math.pi * k * a / P), -math.sin(t)) for a in range(P)))
            for j in range(6)
        ]
        for k in range(P // 2 + 1)
    ]
    assert amplitudes(W) == pytest.approx(np.array(F))
    for rows, dc in [(F, True), (F[1:], False)]:
        mu = [sum(row) / 6 for row in rows]
        centre = sum(mu) / len(mu)
        variance = sum((m - centre) ** 2 for m in mu) / len(mu)
        inner = sum((f - m) ** 2 for row, m in zip(rows, mu, strict=True) for f in row) / (6 * len(rows))
        assert concentration(W, dc) == pytest.approx(variance / (inner + 1e-8))


@pytest.mark.parametrize("P", [113, 47])
def test_one_frequency_is_all_there_is(P):
    W = waves(P, 32, [5])
    K = P // 2 + 1
    # One row of amplitude P/2 in every column; the variance inside rows is 0, which leaves the epsilon.
    assert concentration(W) == pytest.approx((P / 2) ** 2 * (K - 1) / K**2 / 1e-8, rel=1e-6)
    assert key_frequency_share(W, 1) == pytest.approx(1)
    assert gini(W) == pytest.approx(1 - 1 / (P // 2))
    noisy = W + 0.3 * noise(P, 32)
    assert concentration(noisy) > 100 * concentration(noise(P, 32))
    assert key_frequency_share(noisy, 1) > 0.7


def test_a_mean_moves_the_concentration_with_dc_alone():
    W = noise(113, 64)
    shifted = W + 5
    assert concentration(shifted) > 10 * concentration(W)
    assert concentration(shifted, dc=False) == pytest.approx(concentration(W, dc=False), rel=1e-9)
    assert key_frequency_share(shifted) == pytest.approx(key_frequency_share(W))
    assert gini(shifted) == pytest.approx(gini(W))


def test_share_of_equal_frequencies_counts_them():
    W = waves(47, 16, [2, 3, 7, 11])
    assert key_frequency_share(W, 1) == pytest.approx(1 / 4)
    assert key_frequency_share(W, 3) == pytest.approx(3 / 4)
    assert key_frequency_share(W) == pytest.approx(1)
    assert key_frequency_share(W, 99) == pytest.approx(1)
    assert gini(W) == pytest.approx(1 - 4 / 23)


def test_an_impulse_has_a_flat_spectrum():
    W = torch.zeros(47, 8, dtype=torch.float64)
    W[10] = torch.arange(1.0, 9.0)
    assert gini(W) == pytest.approx(0, abs=1e-12)
    assert key_frequency_share(W, 5) == pytest.approx(5 / 23)
    assert concentration(W) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 3.0, 1e6])
def test_scale_matters_to_none_but_the_epsilon(scale):
    W = noise(47, 16) + waves(47, 16, [4])
    assert key_frequency_share(scale * W) == pytest.approx(key_frequency_share(W))
    assert gini(scale * W) == pytest.approx(gini(W))
    inner = amplitudes(W).var(1).mean()
    expected = concentration(W) * (inner + 1e-8) / (inner + 1e-8 / scale**2)
    assert concentration(scale * W) == pytest.approx(expected)


def test_shifting_the_tokens_around_changes_nothing():
    W = noise(47, 16) + waves(47, 16, [4])
    for measure in (concentration, key_frequency_share, gini):
        assert measure(W.roll(9, 0)) == pytest.approx(measure(W))


def test_parameters_in_float32_are_taken_and_zeros_are_nan():
    W = torch.nn.Parameter(noise(47, 16).float())
    assert concentration(W) == pytest.approx(concentration(W.detach().double()))
    zeros = torch.zeros(47, 4)
    assert concentration(zeros) == 0
    assert math.isnan(gini(zeros)) and math.isnan(key_frequency_share(zeros))
