"""Capacity ratios of biographies: their limits, and the upper bound by counting small datasets."""

import math
from itertools import combinations, product

import pytest

from capacity_reasoning.estimators.anchor import BioD, BioS, capacity_ratios

BIOD = BioD(N=1000, K=3, C=2, D=50, L=4, T=30, N0=1e8)


def test_bioS_has_47_6_bits_a_person_beside_the_name():
    assert math.log2(BioS(1).S0) == pytest.approx(47.6, abs=0.05)
    assert BioS(10_000).bits / 10_000 == pytest.approx(math.log2(1.6e8 / 1e4) + math.log2(BioS(1).S0))


def test_all_known_is_the_largest_ratio_and_chance_is_none():
    dataset, P = BioS(10_000), 10**6
    known, largest = capacity_ratios(dataset, P, math.log(dataset.N), 0.0)
    assert known == pytest.approx(largest)
    assert capacity_ratios(dataset, P, math.log(dataset.N0), math.log(dataset.S0))[0] == pytest.approx(0, abs=1e-9)


def test_a_nat_of_loss_costs_log2_e_bits_a_person():
    dataset = BioS(10_000)
    lost = dataset.capacity(10.0, 2.0) - dataset.capacity(10.0, 3.0)
    assert lost == pytest.approx(10_000 * math.log2(math.e))


def test_bioD_limits():
    known, largest = capacity_ratios(BIOD, 10**5, math.log(BIOD.N), 0.0, 0.0)
    assert known == pytest.approx(largest)
    chance = math.log(BIOD.N0), BIOD.C * math.log(BIOD.D), BIOD.L * math.log(BIOD.T) - math.log(BIOD.D)
    assert capacity_ratios(BIOD, 10**5, *chance)[0] == pytest.approx(0, abs=1e-6)
    losses = [0.5, 0.25, 0.125]
    found = BIOD.capacity(0, 0, 0) - BIOD.capacity(*losses)
    assert found == pytest.approx(math.log2(math.e) * (1000 * 0.5 + 3000 * 0.25 + 150 * 0.125))


@pytest.mark.parametrize(("N", "K", "C", "D", "L", "T", "N0"), [(2, 1, 1, 2, 2, 2, 4), (1, 2, 1, 2, 1, 3, 3)])
def test_upper_bound_counts_all_datasets(N, K, C, D, L, T, N0):
    dictionaries = list(combinations(range(T**L), D))
    values = list(product(range(D), repeat=N * C))
    datasets = set(product(combinations(range(N0), N), *[list(product(dictionaries, values))] * K))
    assert BioD(N, K, C, D, L, T, N0).upper_bound == pytest.approx(math.log2(len(datasets)))


def test_upper_bound_is_above_the_lower_one_by_a_constant_per_item():
    extra = BIOD.upper_bound - BIOD.bits
    items = BIOD.N + BIOD.K * BIOD.D
    assert 0.9 < extra / items / math.log2(math.e) < 1
    huge = BioD(N=1000, K=3, C=2, D=50, L=50, T=10_000, N0=1e8)
    assert huge.upper_bound - BIOD.upper_bound == pytest.approx(3 * 50 * (huge.strings - BIOD.strings), rel=1e-4)
