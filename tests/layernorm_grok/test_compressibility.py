"""Measures of a spectrum: known spectra, torch's own ranks and norms, power laws, and what they must not depend on."""

import math

import numpy as np
import pytest
import torch

from layernorm_grok.estimators import power_law
from layernorm_grok.estimators.compressibility import (
    alpha_req,
    effective_rank,
    effective_rank_sv,
    eigenvalues,
    numerical_rank,
    spectrum,
    stable_rank,
    stable_rank_original,
    within,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(noise(n, k, seed=seed)).Q


def planted(singular_values, n: int = 60, d: int = 20) -> torch.Tensor:
    """(n, d) with these singular values."""
    s = torch.as_tensor(singular_values, dtype=torch.float64)
    return orthonormal(n, len(s)) * s @ orthonormal(d, len(s), seed=1).mT


@pytest.mark.parametrize("k", [1, 3, 20])
def test_isotropic_prelogits_of_rank_k_have_every_rank_k(k):
    found = spectrum(planted([2.5] * k))
    for name in ("effective_rank", "effective_rank_sv", "numerical_rank", "stable_rank"):
        # A direction that is not there has 1e-16 of the largest eigenvalue by rounding, and 1e-8 of the singular value.
        assert found[name] == pytest.approx(k, rel=1e-5), name
    assert found["stable_rank_original"] == pytest.approx(math.sqrt(k))


def test_eigenvalues_are_squared_singular_values():
    s = np.array([0.1, 0.5, 2.0, 7.0])
    assert eigenvalues(planted(s))[-4:] == pytest.approx(s**2)
    wide = planted(s, n=10, d=25)
    assert eigenvalues(wide)[-4:] == pytest.approx(s**2)
    assert (eigenvalues(wide) >= 0).all()
    assert eigenvalues(wide).shape == (25,) and (eigenvalues(wide)[:15] == 0).all()
    assert spectrum(wide)["effective_rank"] == pytest.approx(spectrum(planted(s))["effective_rank"])


def test_eigenvalues_keep_the_digits_that_the_square_of_the_gram_loses():
    s = 10.0 ** -np.arange(7)
    found = eigenvalues(planted(s, 60, 7))
    assert found == pytest.approx(np.sort(s**2), rel=1e-3)
    single = planted(s, 60, 7).float()
    assert eigenvalues(single) == pytest.approx(torch.linalg.svdvals(single.double()).flip(0) ** 2, rel=1e-3)


def test_measures_by_their_definitions():
    found = np.array([0.0, 1.0, 1.0, 4.0, 16.0])
    p = [1 / 22, 1 / 22, 4 / 22, 16 / 22]
    assert effective_rank(found) == pytest.approx(math.prod(q**-q for q in p))
    roots = [1 / 8, 1 / 8, 2 / 8, 4 / 8]
    assert effective_rank_sv(found) == pytest.approx(math.prod(q**-q for q in roots))
    assert stable_rank(found) == pytest.approx(22 / 16)
    assert stable_rank_original(found) == pytest.approx(math.sqrt(1 + 1 + 16 + 256) / 16)
    assert numerical_rank(found) == 4


def test_norms_and_ranks_are_those_of_torch():
    Z = planted([5, 3, 1e-1, 3e-3, 1e-5]).float()
    G = Z.mT @ Z
    found = spectrum(Z)
    norm = torch.linalg.matrix_norm
    assert found["stable_rank_original"] == pytest.approx(float(norm(G) / norm(G, 2)), rel=1e-5)
    assert found["stable_rank"] == pytest.approx(float((norm(Z) / norm(Z, 2)) ** 2), rel=1e-5)
    assert found["numerical_rank"] == float(torch.linalg.matrix_rank(G)) == 3
    assert numerical_rank(torch.linalg.svdvals(Z).numpy(), max(Z.shape)) == float(torch.linalg.matrix_rank(Z)) == 4


@pytest.mark.parametrize("a", [0.5, 1.0, 2.0])
def test_exact_power_laws_of_ranks(a):
    found = np.arange(1, 129) ** -a
    assert alpha_req(found) == pytest.approx(a)
    assert alpha_req(np.random.default_rng(0).permutation(found)) == pytest.approx(a)
    many = np.arange(1, 1001) ** -a
    assert power_law.estimate(many).alpha == pytest.approx(1 + 1 / a, rel=0.05)


def test_alpha_req_reads_ranks_5_to_60_or_what_there_is():
    found = np.arange(1, 129) ** -1.5
    found[:4], found[60:] = 1e6, 1e-30
    assert alpha_req(found) == pytest.approx(1.5)
    assert alpha_req(found[:30]) == pytest.approx(1.5)
    assert alpha_req(np.concatenate([found[:20], np.zeros(50)])) == pytest.approx(1.5)
    assert math.isnan(alpha_req(found[:5]))


def test_rotation_and_scale_change_nothing():
    Z = noise(50, 12) * torch.arange(1, 13) ** -1.0
    plain = spectrum(Z)
    for other in (Z @ orthonormal(12, 12, seed=3), 1e3 * Z, orthonormal(50, 50, seed=4) @ Z):
        assert spectrum(other) == pytest.approx(plain, rel=1e-8)


def test_the_gram_is_not_centred():
    shifted = noise(200, 8) + 30
    assert spectrum(shifted)["effective_rank"] < 1.1
    assert spectrum(shifted - shifted.mean(0))["effective_rank"] > 7


def test_a_diverged_model_has_nan_and_a_dead_one_no_rank():
    Z = noise(20, 4)
    Z[3, 2] = torch.nan
    assert all(math.isnan(value) for value in spectrum(Z).values())
    dead = spectrum(torch.zeros(20, 4))
    assert dead.pop("numerical_rank") == 0
    assert all(math.isnan(value) for value in dead.values())


def test_within_ten_percent_of_the_minimum():
    steps = [1, 100, 200, 300, 400, 500, 600]
    curve = [0.1, 0.1, 9.0, 5.4, 5.6, 5.0, 7.0]
    assert within(curve, steps) == 300
    assert within(curve, steps, factor=1.0) == 500
    assert within(curve, steps, after=0) == 1
    assert within(curve, steps, after=400) == 500
    assert within([9.0, 8.0, 8.0], [200, 300, 400], factor=1.0) == 300
    assert within([np.nan, 5.0, np.nan, None, 5.2], [200, 300, 400, 500, 600]) == 300
    assert within([np.nan, np.nan], [200, 400]) is None
    assert within(curve, steps, after=1000) is None
    with pytest.raises(IndexError):
        within(curve, steps[:-1])
