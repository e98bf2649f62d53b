"""Two look-ups: the forward formula against simulation, its inversion, and what becomes of errors."""

import numpy as np
import pytest

from capacity_reasoning.estimators.two_function import (
    derivative,
    effective_loss,
    effective_losses,
    lookup_probability,
    near_chance,
    propagated_error,
    two_hop_probability,
)

SIZES = [2, 73, 100, 10_000]


@pytest.mark.parametrize(("n", "p"), [(2, 0.7), (5, 0.2), (5, 0.5), (20, 0.9)])
def test_forward_formula_by_simulation(n, p):
    rng, draws = np.random.default_rng(0), 400_000
    bridge, answer, luck = rng.random(draws) < p, rng.random(draws) < p, rng.random(draws) < 1 / n
    rate = np.where(bridge, answer, luck).mean()
    assert two_hop_probability(p, n) == pytest.approx(rate, abs=4 * np.sqrt(rate / draws))


@pytest.mark.parametrize("n", SIZES)
def test_inversion_round_trip(n):
    p = np.linspace(1 / n, 1, 1001)
    assert np.allclose(lookup_probability(two_hop_probability(p, n), n), p, atol=1e-12)
    losses = np.linspace(0, np.log2(n), 1001)
    two_hop = -np.log2(two_hop_probability(2**-losses, n))
    assert np.allclose(effective_loss(two_hop, n), losses, atol=1e-6)


@pytest.mark.parametrize("n", SIZES)
def test_chance_stays_chance_and_so_does_anything_worse(n):
    assert two_hop_probability(1 / n, n) == pytest.approx(1 / n)
    assert np.allclose(effective_loss(np.log2(n) + np.array([0, 0.5, 1, 30, 2000]), n), np.log2(n), atol=1e-6)
    assert np.array_equal(derivative(np.log2(n) + np.array([0.1, 5]), n), [0, 0])
    assert effective_loss(0, n) == 0


def test_inversion_is_steep_near_chance_and_says_so():
    assert effective_loss(6.60, 100) == pytest.approx(5.43, abs=0.005)
    assert near_chance([6.60, 6.4, 7], 100).tolist() == [True, False, True]
    assert derivative(np.log2(100) - 1e-9, 100) == pytest.approx(100, rel=1e-4)
    assert derivative(0, 1e6) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("n", SIZES)
def test_derivative_by_differences(n):
    losses = np.linspace(0.05, 0.97, 50) * np.log2(n)
    step = 1e-5
    literal = (effective_loss(losses + step, n) - effective_loss(losses - step, n)) / (2 * step)
    assert np.allclose(derivative(losses, n), literal, rtol=1e-4)


@pytest.mark.parametrize("loss", [0.5, 2.0, 5.0])
def test_error_is_the_spread_over_noisy_losses(loss):
    noisy = loss + 0.02 * np.random.default_rng(0).normal(size=20_000)
    assert propagated_error(loss, 0.02, 100) == pytest.approx(np.std(effective_loss(noisy, 100)), rel=0.03)
    assert propagated_error(loss, 0.02, 100) == pytest.approx(0.02 * derivative(loss, 100), rel=0.01)


@pytest.mark.parametrize("loss", [6.58, 6.63, 6.66])
def test_error_near_chance_is_that_of_the_data_not_of_the_slope(loss):
    noisy = loss + 0.03 * np.random.default_rng(0).normal(size=20_000)
    spread = np.std(effective_loss(noisy, 100))
    assert 0.5 < propagated_error(loss, 0.03, 100) / spread < 1.5
    assert propagated_error(np.log2(100), 0, 100) == 0


def test_questions_are_inverted_before_the_mean():
    n, questions = 100, np.array([0.0, 6.6, 0.1, 6.6, 5.0])
    mean, error = effective_losses(questions, n)
    each = [float(effective_loss(loss, n)) for loss in questions]
    assert mean == pytest.approx(np.mean(each))
    assert error == pytest.approx(np.std(each, ddof=1) / np.sqrt(5))
    assert abs(mean - effective_loss(questions.mean(), n)) > 0.1
    assert effective_losses(np.full(9, 3.0), n) == pytest.approx((effective_loss(3.0, n), 0))
    assert np.isnan(effective_losses(np.array([3.0]), n)[1])
