"""Slingshots: what is one, and what only looks like one."""

import math

import pytest

from layernorm_grok.estimators.slingshots import slingshots

FALL = [4.7, 2.0, 0.5, 0.02, 1e-3]


def starts(*tail: float) -> list[int]:
    """Of a loss that falls to 1e-3 at step 40 and goes on as said, an evaluation every 10 steps from step 0 on."""
    loss = [*FALL, *tail]
    return slingshots([10 * n for n in range(len(loss))], loss)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ((), []),
        ((1e-3, 1e-4, 1e-5), []),
        ((0.5, 1e-3), [50]),
        ((0.5, 0.3, 0.1, 0.06, 0.04), [50]),
        ((0.02, 0.8, 0.002, 0.001, 1.5, 0.01), [50, 90]),
    ],
)
def test_a_jump_that_heals_counts_once_at_its_beginning(tail, expected):
    assert starts(*tail) == expected


@pytest.mark.parametrize(
    ("why", "tail"),
    [
        ("it never heals", (0.5, 0.4, 0.3, 0.2)),
        ("it is slow: less than a factor of 10 in three evaluations", [1e-3 * 1.9**n for n in range(12)] + [1e-3]),
        ("it is small: less than a factor of 10", (9e-3, 1e-3)),
        ("below 0.01 the train set is fitted either way", (1e-7, 1e-7, 5e-3, 1e-7)),
    ],
)
def test_what_is_none(why, tail):
    assert starts(*tail) == [], why


def test_a_second_peak_before_healing_is_no_second_slingshot():
    assert starts(0.5, 0.1, 4.0, 0.5, 0.3) == [50]


def test_a_ripple_after_healing_is_not_measured_from_before_the_jump():
    assert starts(1.0, 0.05, 0.06, 0.05) == [50]


def test_the_end_of_a_replica_is_passed_over():
    assert starts(0.5, 1e-3, math.nan, math.nan) == [50]
    assert slingshots([1, 2], [math.nan, math.nan]) == []


def test_a_noisy_floor_counts_its_own_jumps():
    """As of three layers, whose floor is never fitted: jumps of a factor of 10 count, wiggles do not."""
    assert slingshots(range(6), [0.04, 0.05, 0.6, 0.05, 0.04, 0.09]) == [2]
