"""The allocation rule against a linear programme and finite differences; composition; the toy of two hops."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from capacity_reasoning.estimators import allocation
from capacity_reasoning.estimators.allocation import Load

GRID = [(R, h) for R in (1, 4, 12, 17) for h in (0.1, 1 / 3, 1.0)]


def load(R: int = 4, h: float = 0.1, capacity: float = 1e5) -> Load:
    return Load(capacity, N=1000, R=R, h=h, attributes=36.0, relations=10.0 * R)


def test_the_rule_flips_at_R_h_of_one():
    expected = {(4, 0.1): "two_hop", (17, 0.1): "one_hop", (4, 1 / 3): "one_hop", (10, 0.1): "either", (1, 1): "either"}
    assert {case: allocation.memorised_first(*case) for case in expected} == expected


@pytest.mark.parametrize(("R", "h"), GRID)
def test_rule_is_the_larger_decrease_of_loss_per_bit(R, h):
    one, two = allocation.decrease_per_bit(R, h)
    first = allocation.memorised_first(R, h)
    assert first == ("either" if one == pytest.approx(two) else "one_hop" if one > two else "two_hop")
    a = allocation.one_hop_share(h)
    assert a / (1 - a) == pytest.approx(h)


@pytest.mark.parametrize(("R", "h"), GRID)
def test_loss_falls_by_that_much_per_bit(R, h):
    start, more = (allocation.memorised(load(R, h, capacity)) for capacity in (0.0, 10.0))
    per_bit = (start.loss - more.loss) / 10 * 1000 * (4 + R)
    assert per_bit == pytest.approx(max(allocation.decrease_per_bit(R, h)))


@pytest.mark.parametrize("capacity", [0, 3e4, 2e5, 4e5, 1e6])
@pytest.mark.parametrize(("R", "h"), GRID)
def test_memorised_is_the_optimum_of_a_linear_programme(R, h, capacity):
    case = load(R, h, capacity)
    facts, a = 1000 * (case.attributes + case.relations), allocation.one_hop_share(h)
    found = linprog([-a, a - 1], A_ub=[[facts, R * facts]], b_ub=[capacity], bounds=[(0, 1)] * 2)
    plan = allocation.memorised(case)
    assert plan.loss == pytest.approx(case.uniform * (1 + found.fun), abs=1e-9)
    assert plan.loss == pytest.approx(a * plan.one_hop + (1 - a) * plan.two_hop)


def test_the_trap_spends_everything_on_two_hop_answers():
    trapped = allocation.memorised(load(R=4, h=0.1))
    assert trapped.one_hop == load().uniform and trapped.two_hop < load().uniform
    free = allocation.memorised(load(R=4, h=1.0, capacity=7e4))
    assert free.two_hop == load().uniform and free.one_hop < load().uniform


def test_composition_needs_relations_twice_and_nothing_more():
    case = load()
    full = 1000 * (36 + 2 * 40)
    assert allocation.composed(replace(case, capacity=full)).loss == pytest.approx(0, abs=1e-12)
    assert allocation.composed(replace(case, capacity=0.99 * full)).loss > 0
    nothing = allocation.composed(replace(case, capacity=0))
    assert (nothing.one_hop, nothing.two_hop) == pytest.approx((case.uniform, case.uniform))


@pytest.mark.parametrize(("R", "h"), GRID)
def test_tables_win_below_the_threshold_and_composition_above_it(R, h):
    facts = 1000 * (36 + 10 * R)
    threshold = allocation.composition_threshold(load(R, h), points=501)
    winner = lambda ratio: allocation.best(load(R, h, ratio * facts)).storage  # noqa: E731
    assert {winner(ratio) for ratio in np.linspace(0.01, 0.99, 20) * threshold} == {"memorised"}
    assert {winner(ratio) for ratio in np.linspace(threshold * 1.001, 1.9, 20)} == {"composed"}


# --- two hops of one capacity -----------------------------------------------------------------------------------------------


def test_toy_splits_evenly_where_capacity_abounds():
    assert allocation.toy_optimum(20, 1000, 0.1) == pytest.approx((10, 10))


@pytest.mark.parametrize("capacity", [5, 10, 15, 20])
def test_toy_loss_is_symmetric_and_literal(capacity):
    n, a, first = 1000, 0.1, np.linspace(0, capacity, 201)
    loss = allocation.toy_loss(first, capacity, n, a)
    assert np.allclose(loss, loss[::-1])
    for place in (0, 37, 100):
        p1, p2 = (min(1.0, np.exp(nats) / n) for nats in (first[place], capacity - first[place]))
        one_hop = max(0.0, np.log(n) - capacity)
        literal = a * one_hop - (1 - a) * np.log(p1 * p2 + (1 - p1) * (1 - p2) / n)
        assert loss[place] == pytest.approx(literal, abs=1e-12)
    best, _ = allocation.toy_optimum(capacity, n, a)
    assert allocation.toy_loss(np.array([best]), capacity, n, a) <= loss.min() + 1e-12
