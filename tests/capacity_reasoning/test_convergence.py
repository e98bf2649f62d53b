"""Gap, minimum, convergence criterion and regression against pandas, closed forms and Monte Carlo."""

import numpy as np
import pandas as pd
import pytest

from capacity_reasoning.estimators import convergence
from capacity_reasoning.estimators.convergence import Criterion, converged_at

STEPS = np.arange(1, 301) * 1e5


def decay(level: float, tau: float) -> np.ndarray:
    return 2 + level * np.exp(-STEPS / tau)


def test_gap_rises_and_falls():
    found = convergence.gap([5.0, 4.0, 3.5, 1.0], [5.0, 3.0, 1.0, 0.9])
    assert np.allclose(found["curve"], [0, 1, 2.5, 0.1])
    assert (found["max"], found["at"], found["last"]) == (2.5, 2, pytest.approx(0.1))


def test_step_of_minimum_is_that_of_the_rolling_mean():
    rng = np.random.default_rng(0)
    losses = (STEPS / 1e7 - 1.3) ** 2 + 0.01 * rng.normal(size=300)
    smooth = pd.Series(losses, index=STEPS).rolling(5, center=True).mean()
    assert convergence.step_of_minimum(STEPS, losses) == smooth.idxmin()
    assert abs(convergence.step_of_minimum(STEPS, losses) - 1.3e7) < 3e6
    with pytest.raises(ValueError, match="found 4 evaluations"):
        convergence.step_of_minimum([1, 2, 3, 4], [1, 1, 1, 1])


def test_slopes_are_rolling_means_of_the_derivative_of_the_last_evaluations():
    losses = decay(3, 5e6) + 0.01 * np.random.default_rng(0).normal(size=300)
    ends, slope = convergence.slopes(STEPS, losses, Criterion())
    derivative = pd.Series(np.gradient(losses[-50:], STEPS[-50:]), index=STEPS[-50:])
    literal = derivative.rolling(15).mean().rolling(3).mean().dropna()
    assert np.allclose(slope, literal) and np.array_equal(ends, literal.index)


def test_slopes_ignore_the_first_steps_and_want_one_window():
    steps, line = STEPS[:26], 3 - 1e-7 * STEPS[:26]
    ends, slope = convergence.slopes(steps, line, Criterion())
    assert len(slope) == 1 and slope[0] == pytest.approx(-1e-7) and ends[0] == 2.6e6
    assert len(convergence.slopes(steps[:-1], line[:-1], Criterion())[1]) == 0
    assert converged_at(steps[:-1], {"one_hop": line[:-1]}) is None


def test_converged_once_the_slope_of_every_hop_type_is_small():
    """Slopes fall to 2e-8 nats per step at steps 8e6 and 1.8e7; their means over 17 evaluations, 1.7e6 steps, lag behind."""
    fast, slow = (decay(2e-8 * tau * np.exp(at / tau), tau) for at, tau in ((8e6, 1.6e6), (1.8e7, 4e6)))
    late = Criterion(last=300)
    alone = converged_at(STEPS, {"one_hop": fast}, late)
    both = converged_at(STEPS, {"one_hop": fast, "two_hop": slow}, late)
    assert 8e6 < alone < 8e6 + 1.7e6
    ends, slope = convergence.slopes(STEPS, fast, late)
    assert alone == ends[np.abs(slope) < late.threshold].min()
    assert 1.8e7 < both < 1.8e7 + 1.7e6
    assert converged_at(STEPS, {"two_hop": slow}, late) == both
    assert converged_at(STEPS[:180], {"one_hop": fast[:180], "two_hop": slow[:180]}, late) is None
    assert converged_at(STEPS[:180], {"one_hop": fast[:180]}, late) == alone


def test_a_loss_that_starts_to_move_again_has_not_converged():
    rises = np.where(STEPS > 2.7e7, 2 + 1e-7 * (STEPS - 2.7e7), 2.0)
    assert converged_at(STEPS, {"two_hop": rises}) is None
    assert converged_at(STEPS[:250], {"two_hop": rises[:250]}) is not None


def test_regression_recovers_powers_and_knows_its_error():
    rng = np.random.default_rng(0)
    N, P = rng.choice([1e4, 2e4, 3e4, 5e4], 8), rng.choice([8.9e5, 1.17e6, 1.48e6], 8)
    exact = convergence.log_log_regression(30 * N**0.1 * P**2.8, N, P)
    assert exact["N"][0] == pytest.approx(0.1) and exact["P"][0] == pytest.approx(2.8)
    assert exact["R2"] == pytest.approx(1)
    noisy = [convergence.log_log_regression(N**0.1 * np.exp(0.3 * rng.normal(size=8)), N, P) for _ in range(1500)]
    for name, truth in (("N", 0.1), ("P", 0.0)):
        values, errors = np.array([found[name] for found in noisy]).T
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(1500))
        assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.08)


def test_regression_explains_the_part_of_the_variance_that_numpy_finds():
    rng = np.random.default_rng(1)
    N, P = np.exp(rng.normal(size=(2, 12)))
    steps = N**0.5 * np.exp(rng.normal(size=12))
    found = convergence.log_log_regression(steps, N, P)["R2"]
    X = np.stack([np.ones(12), np.log(N), np.log(P)], 1)
    fitted = X @ np.linalg.pinv(X) @ np.log(steps)
    assert found == pytest.approx(np.corrcoef(fitted, np.log(steps))[0, 1] ** 2)


@pytest.mark.parametrize(
    ("N", "P"),
    [([1e4] * 5, [1e5, 2e5, 3e5, 4e5, 5e5]), ([1, 2, 4, 8, 16], [2, 4, 8, 16, 32]), ([1, 2, 3], [2, 1, 7])],
)
def test_regression_refuses_runs_that_cannot_tell(N, P):
    with pytest.raises(ValueError, match="expected 4 or more of which N and P vary"):
        convergence.log_log_regression(np.arange(1, len(N) + 1), N, P)
