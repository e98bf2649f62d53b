"""The drop: closed-form curves, and each curve that would fool a first crossing of a mean."""

import numpy as np
import pandas as pd
import pytest

from abrupt_learning.estimators.drop import OUTLIERS, find_drop, level_of, share_near

STEPS = np.arange(20, 6001, 20)


def drop_of(values, variance: float = 1.0):
    """Drop of a curve of L_mask given at STEPS, or as a function of the step."""
    values = np.array([values(s) for s in STEPS] if callable(values) else values, dtype=float)
    rows = {"step": STEPS, "loss": 0.3 * values, "loss_masked": values, "loss_observed": 0 * values}
    return find_drop(pd.DataFrame(rows), variance)


def ramp(start: float, end: float):
    """1, then a straight line to 0.1 between two steps."""
    return lambda step: float(np.interp(step, [start, end], [1.0, 0.1]))


def true_drop() -> np.ndarray:
    return np.array([ramp(2000, 2400)(s) for s in STEPS])


def abrupt(drop) -> bool:
    """As claim C1 judges the shape."""
    return drop.half is not None and drop.sharpness < 1 / 3 and abs(drop.slope) < 0.05


def test_levels_of_a_ramp_are_those_of_the_moving_average():
    drop = drop_of(ramp(2000, 3800))
    middle = 90  # a mean over 200 steps, of 10 rows, is late by half of 9 rows
    assert drop.half == pytest.approx(3000 + middle, abs=20)
    assert drop.width == pytest.approx(1300, abs=40)
    assert drop.quarter == pytest.approx(3500 + middle, abs=20)
    assert (drop.plateau, drop.final) == pytest.approx((1, 0.1))
    assert drop.sharpness == drop.width / drop.half


def test_a_sharp_drop_is_abrupt():
    assert abrupt(drop_of(true_drop()))


@pytest.mark.parametrize("place", [0, 10, 60, 150, len(STEPS) - OUTLIERS])
def test_rows_at_zero_are_no_drop_on_a_flat_curve(place):
    values = np.ones(len(STEPS))
    values[place : place + OUTLIERS] = 0
    assert (drop_of(values).half, drop_of(values).width, drop_of(values).slope) == (None, None, None)


@pytest.mark.parametrize("rows", [1, OUTLIERS])
@pytest.mark.parametrize("place", [10, 40, 60, 75, 95, 200, len(STEPS) - OUTLIERS])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_rows_that_say_anything_do_not_spoil_a_true_drop(rows, place, value):
    values = true_drop()
    values[place : place + rows] = value
    drop, whole = drop_of(values), drop_of(true_drop())
    assert abrupt(drop)
    assert abs(drop.half - whole.half) <= 60


def test_a_dip_that_comes_back_is_no_drop():
    values = np.ones(len(STEPS))
    values[100:200] = 0.1
    assert drop_of(values).half is None


def test_a_dip_before_the_drop_is_not_its_time():
    values = true_drop()
    values[20:50] = 0.1
    assert drop_of(values).half == drop_of(true_drop()).half


def test_a_drop_that_is_kept_to_a_half_alone_has_no_width():
    drop = drop_of(lambda step: 1.0 if step < 2000 else 0.4)
    assert drop.half and drop.width is None and drop.sharpness is None


def test_a_flat_half_and_a_straight_line_is_not_abrupt():
    drop = drop_of(lambda step: float(np.interp(step, [3000, 6000], [1.0, 0.0])))
    assert drop.half is not None
    assert not abrupt(drop)
    assert drop.sharpness > 1 / 3
    assert drop.slope < -0.05


def test_a_leaning_plateau_is_told_by_its_slope():
    drop = drop_of(lambda step: 1.2 - 0.2 * step / 2000 if step < 2000 else 0.1)
    assert drop.sharpness < 1 / 3
    assert drop.slope == pytest.approx(-0.1, abs=0.02)


def test_a_curve_that_is_low_from_its_first_row_dropped_there():
    drop = drop_of(lambda step: 0.1)
    assert (drop.half, drop.width) == (20, 0)


def test_a_run_of_two_rows_has_a_drop_or_none():
    rows = pd.DataFrame({"step": [5, 10], "loss": [1.0, 1.0], "loss_masked": [1.0, 1.0], "loss_observed": [0.0, 0.0]})
    assert find_drop(rows, 1.0).half is None


def test_time_at_the_level_tells_a_plateau_from_a_curve_that_passes_through():
    assert drop_of(true_drop()).at_level > 0.9
    assert drop_of(lambda step: 3.0 * 0.999**step).at_level < 0.15
    smooth = np.linspace(6.0, 3.82, 200)  # GPT's first level at the paper's size is 4.74
    assert share_near(smooth, 4.74, 0.03) < 0.15
    assert share_near(np.full(9, 4.74), 4.74, 0.03) == 1
    assert share_near(np.array([]), 1.0, 0.03) == 0


def test_the_level_of_skewed_values_is_their_mean_and_robust():
    values = pd.Series(np.random.default_rng(0).gamma(0.1, 10.0, 7000))
    assert level_of(values) == pytest.approx(values.mean(), rel=0.05)
    assert values.median() < 0.5
    flat = pd.Series(np.r_[np.ones(50), np.zeros(OUTLIERS)])
    assert level_of(flat) == 1
