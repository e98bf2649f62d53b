"""The tail fit against a literal loop, values of the package `powerlaw` 1.5, closed forms, and samples of a known exponent."""

import math

import numpy as np
import pytest

from layernorm_grok.estimators.power_law import estimate


def slow(values) -> tuple:
    """(alpha, xmin, distance, tail) by the definition, one cut-off and one value at a time."""
    best = None
    for xmin in sorted(set(values))[:-1]:
        tail = [x for x in values if x >= xmin]
        alpha = 1 + len(tail) / sum(math.log(x / xmin) for x in tail)
        distance = 0.0
        for x in set(tail):
            empirical = sum(other < x for other in tail) / len(tail)
            distance = max(distance, abs(1 - (x / xmin) ** (1 - alpha) - empirical))
        if best is None or distance < best[2]:
            best = alpha, xmin, distance, len(tail)
    return best


def pareto(alpha: float, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).pareto(alpha - 1, n) + 1


def decaying() -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(128)
    return np.arange(1, 129) ** -1.5 * np.exp(0.3 * noise)


SAMPLES = {
    "pareto": pareto(2.5, 60, 0),
    "lognormal": np.exp(2 * np.random.default_rng(1).standard_normal(50)),
    "with ties": np.exp(np.random.default_rng(2).standard_normal(60)).round(1) + 0.1,
    "uniform": np.random.default_rng(3).uniform(1, 2, 40),
    "decaying": decaying(),
    "two": np.array([3.0, 1.0]),
    "two, many times": np.array([1.0, 1.0, 1.0, 2.0, 2.0]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_fit_equals_the_literal_loop(name):
    assert estimate(SAMPLES[name]) == pytest.approx(slow(SAMPLES[name].tolist()), rel=1e-12)


# (alpha, xmin, distance, tail) of powerlaw.Fit(values, discrete=False), version 1.5
STORED = {
    "pareto": (pareto(2.5, 500, 0), (2.437821110340612, 1.339241500536388, 0.02583677355323677, 350)),
    "with ties": (
        np.exp(np.random.default_rng(2).standard_normal(60)).round(1),
        (3.1976316033880425, 2.1, 0.11097900661572246, 19),
    ),
    "decaying": (decaying(), (1.6994806307570807, 0.0010169623454191344, 0.03850719253376167, 101)),
}


@pytest.mark.parametrize("name", STORED)
def test_fit_equals_the_values_of_powerlaw(name):
    values, expected = STORED[name]
    assert estimate(values) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", SAMPLES)
def test_fit_equals_an_installed_powerlaw(name, capsys):
    powerlaw = pytest.importorskip("powerlaw", minversion="1.5")
    if powerlaw.__version__.split(".")[0] != "1":
        pytest.skip("powerlaw 2 bounds alpha")
    theirs = powerlaw.Fit(SAMPLES[name], discrete=False, verbose=False)
    assert estimate(SAMPLES[name]) == pytest.approx((theirs.alpha, theirs.xmin, theirs.D, theirs.n_tail), rel=1e-10)


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0])
def test_pareto_samples_give_their_exponent(alpha):
    found = [estimate(pareto(alpha, 500, seed)) for seed in range(20)]
    assert np.mean([f.alpha for f in found]) == pytest.approx(alpha, abs=0.1 * (alpha - 1))
    assert all(f.distance < 0.06 for f in found)


def test_two_values_have_a_closed_form():
    """alpha = 1 + 2 / ln(x_2 / x_1), so the model has 1 - e^-2 below x_2, where a half of the values lie."""
    for ratio in (1.001, 2.0, 1e6):
        found = estimate([5.0, 5.0 * ratio])
        assert found.alpha == pytest.approx(1 + 2 / math.log(ratio))
        assert found.distance == pytest.approx(0.5 - math.exp(-2))
        assert (found.xmin, found.tail) == (5.0, 2)


def test_the_tail_is_found_above_a_bulk_that_is_not_of_the_law():
    tail = 10 * pareto(3.0, 400, 4)
    found = estimate(np.concatenate([np.random.default_rng(5).uniform(0.1, 10, 600), tail]))
    assert 8 < found.xmin < 20
    assert found.alpha == pytest.approx(3.0, abs=0.4)


def test_order_and_scale_and_shape_do_not_matter_and_zeros_are_ignored():
    values = SAMPLES["pareto"]
    found = estimate(values)
    assert estimate(values[::-1].reshape(6, 10)) == found
    assert estimate(np.concatenate([values, np.zeros(20), [-1.0]])) == found
    scaled = estimate(values * 2.0**-40)
    assert scaled.xmin == found.xmin * 2.0**-40
    assert scaled.alpha == pytest.approx(found.alpha, rel=1e-14)


@pytest.mark.parametrize(
    "values", [[], [1.0], [2.0, 2.0, 2.0], [0.0, -1.0, 3.0], [1.0, 2.0, np.nan], [1.0, 2.0, np.inf]]
)
def test_nothing_to_fit_is_nan_in_silence(values, capsys):
    with np.errstate(all="raise"):
        found = estimate(values)
    assert np.isnan(found[:3]).all() and found.tail == 0
    assert capsys.readouterr() == ("", "")
