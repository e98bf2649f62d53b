"""Times and their statistics: hand examples, scipy's estimators, censoring, and curves whose seeds stop."""

import math
import statistics
from itertools import product

import numpy as np
import pytest
from scipy import stats

from layernorm_grok.estimators.times import (
    bootstrap_median,
    carried,
    concordance,
    conventions,
    first,
    kaplan_meier,
    paired,
    quantile,
    sustained,
)

NAN = math.nan


def quartiles(times, limit) -> tuple:
    return quantile(times, limit, 0.25), quantile(times, limit, 0.75)


def test_first_crossing():
    steps, values = [1, 10, 20, 30], np.array([5.0, NAN, 0.01, 0.005])
    assert first(steps, values <= 0.01) == 20
    assert first(steps, values <= 0.001) is None
    assert first(steps, np.full(4, NAN) <= 1e9) is None
    assert isinstance(first(np.array(steps), values <= 0.01), int)
    with pytest.raises(IndexError):
        first(steps, values[:-1] <= 0.01)


def test_sustained_needs_a_whole_run():
    steps = [0, 5, 10, 15, 20, 25, 30]
    assert sustained(steps, [0, 1, 1, 0, 0.99, 1, 1]) == 20
    assert sustained(steps, [1, 1, 0, 1, 1, 0.98, 1]) is None
    assert sustained(steps, [1, 1, 0, 1, 1, 0.98, 1], in_a_row=2) == 0
    assert sustained(steps, [0, 0, 0, 0, 0, 1, 1]) is None
    assert sustained(steps, [0, 0, 0.5, 0.6, 0.5, 0, 0], level=0.5) == 10
    assert sustained(steps, [0, 1, 1, NAN, NAN, NAN, NAN]) is None
    assert sustained([3, 4], [1, 1]) is None


def test_a_stopped_seed_keeps_its_last_value():
    found = carried([[1, 2, NAN, NAN], [NAN, 3, NAN, 5], [NAN, NAN, NAN, NAN]])
    np.testing.assert_array_equal(found, [[1, 2, 2, 2], [NAN, 3, 3, 5], [NAN, NAN, NAN, NAN]])


STEPS = np.array([1, 10, 20, 30, 40, 50])
TEST_LOSS = np.array([[5, 6, 0.02, 0.005, NAN, NAN], [5, 7, 6, 3, 0.012, 0.009]])
ACCURACY = np.array([[0, 0.99, 1, 1, NAN, NAN], [0, 0.2, 0.99, 0.5, 0.99, 0.995]])
TRAIN_LOSS = np.array([[1, 0.01, 0.001, 0.001, NAN, NAN], [1, 0.2, 0.001, 0.001, 0.001, 0.001]])


def test_conventions_by_hand():
    assert conventions(STEPS, TRAIN_LOSS, TEST_LOSS, ACCURACY, [7, 14]) == {
        "t_train": [7, 14],
        "t_gen": [10, None],  # the second seed's last run is two long
        "first": [10, 20],
        "gen_loss": 40,  # mean of 0.005, carried on, and 0.012
        "gen_loss_min": 30,
        "gen_loss_max": 50,
        "train_loss": 20,
        "gen_acc": 20,
        "max_acc": 20,
    }


def test_a_seed_that_stopped_high_holds_the_mean_up():
    loss = np.where(STEPS < 30, TEST_LOSS, [[NAN], [0.001]])
    found = conventions(STEPS, TRAIN_LOSS, loss, ACCURACY, [7, 14])
    assert found["gen_loss"] is None and found["gen_loss_max"] is None
    assert found["gen_loss_min"] == 30


def test_a_single_seed_agrees_with_itself_in_every_convention():
    found = conventions(STEPS, TRAIN_LOSS[:1], TEST_LOSS[:1], ACCURACY[:1], [None])
    assert found["gen_loss"] == found["gen_loss_min"] == found["gen_loss_max"] == 30
    assert found["t_train"] == [None]


def test_a_seed_without_values_hides_the_others_from_the_mean_alone():
    nothing = np.full((1, 6), NAN)
    curves = [np.concatenate([c, nothing]) for c in (TRAIN_LOSS, TEST_LOSS, ACCURACY)]
    found = conventions(STEPS, *curves, [7, 14, None])
    assert found["t_gen"] == [10, None, None]
    assert found["gen_loss_min"] == 30 and found["max_acc"] == 20
    assert [found[key] for key in ("gen_loss", "gen_loss_max", "train_loss", "gen_acc")] == [None] * 4


def test_kaplan_meier_of_a_hand_example():
    """6 at risk at 6, of which 3 come and 1 is censored there; then 2 at 10 and 1 at 15 (one censored at 12)."""
    times, survival = kaplan_meier([6, 6, 6, None, 10, None, 15], [0, 0, 0, 6, 0, 12, 0])
    assert times.tolist() == [6, 10, 15]
    assert survival == pytest.approx([4 / 7, 4 / 7 * 2 / 3, 0])


@pytest.mark.parametrize("seed", range(6))
def test_kaplan_meier_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    true, limit = rng.integers(1, 12, 15), rng.integers(1, 15, 15)  # with ties of both kinds
    times = [int(t) if t <= c else None for t, c in zip(true, limit, strict=True)]
    known = [t for t in times if t is not None]
    right = [int(c) for t, c in zip(times, limit, strict=True) if t is None]
    theirs = stats.ecdf(stats.CensoredData(uncensored=known, right=right)).sf
    found, survival = kaplan_meier(times, limit)
    assert found.tolist() == sorted(set(known))
    assert survival == pytest.approx(theirs.evaluate(found))
    # Nothing happens in between.
    assert set(np.round(theirs.probabilities, 9)) <= {1.0, *np.round(survival, 9)}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7, 10, 24, 28])
def test_without_censoring_the_median_is_the_median(n):
    times = np.random.default_rng(n).integers(1, 1000, n).tolist()
    assert quantile(times, 0) == statistics.median_low(times)
    low, high = quartiles(times, 0)
    expected = np.quantile(times, [0.25, 0.75], method="inverted_cdf")
    assert [low, high] == expected.tolist()


def test_one_limit_for_all_makes_never_the_last():
    assert quantile([100, None, 300, None, 200], 1000) == 300
    assert quartiles([100, None, 300, None, 200], 1000) == (200, None)
    assert quantile([100, None, None], 1000) is None
    assert quantile([100, None], 1000) == 100
    assert quantile([None, None, None], 1000) is None
    assert quartiles([None], 1000) == (None, None)
    assert quantile([7], 1000) == 7
    assert quantile([], 1000) is None
    events, survival = kaplan_meier([None, None], 10)
    assert events.size == survival.size == 0


def test_early_limits_take_seeds_out_of_the_risk():
    """Seeds given up at 99 are later than all; given up at 5, before any time, they say nothing; at 15, something between."""
    times = [10, 20, 30, None, None, None]
    assert quantile(times, 99) == 30
    assert quantile(times, [0, 0, 0, 5, 5, 5]) == quantile([10, 20, 30], 0) == 20
    assert kaplan_meier(times, [0, 0, 0, 15, 15, 15])[1] == pytest.approx([5 / 6, 5 / 12, 0])


def test_bootstrap_is_seeded_and_lies_on_the_data():
    times = [120, 150, 160, 300, 310]
    low, high = bootstrap_median(times, 1000)
    assert (low, high) == bootstrap_median(times, 1000)
    assert low in times and high in times and low < 160 < high
    assert bootstrap_median([5, 5, 5], 10) == (5, 5)
    assert bootstrap_median([120, 150, 160, None, None], 1000)[1] is None
    assert bootstrap_median([None, None, None], 1000) == (None, None)
    assert bootstrap_median([5], 10) == (None, None)
    assert all(set(bootstrap_median(times, 1000, seed, draws=20)) <= set(times) for seed in range(10))
    narrow = bootstrap_median(times, 1000, coverage=0.2)
    assert low <= narrow[0] <= narrow[1] <= high


def test_bootstrap_ends_are_quantiles_of_the_exact_distribution():
    """All 3^3 samples of three seeds: the median is the lowest in 7 of 27, the highest in 7."""
    exact = [statistics.median(sample) for sample in product([1, 2, 3], repeat=3)]
    share = exact.count(1) / len(exact)
    for coverage, expected in [(1 - 2 * share - 0.1, (2, 2)), (1 - 2 * share + 0.1, (1, 3))]:
        assert bootstrap_median([1, 2, 3], 10, coverage=coverage) == expected


def test_concordance_without_censoring_is_mann_whitney():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 9, 7), rng.integers(3, 12, 5)
    found = concordance(a.tolist(), b.tolist(), 99, 99)
    assert found["probability"] == pytest.approx(stats.mannwhitneyu(b, a).statistic / 35)
    assert found["known"] == found["pairs"] == 35
    assert concordance([3, 3], [3], 9, 9)["probability"] == 0.5


def test_concordance_counts_known_pairs_only():
    # 10 < never within 100; never within 100 against 30: later; two nevers: unknown.
    assert concordance([10, None], [30, None], 100, 100) == {
        "probability": pytest.approx(2 / 3),
        "known": 3,
        "pairs": 4,
    }
    assert concordance([10, None], [30, None]) == concordance([10, None], [30, None], 100, 100)
    # b was given up at 50, before a came at 80, or just then.
    assert concordance([80], [None], 100, 50) == {"probability": None, "known": 0, "pairs": 1}
    assert concordance([50], [None], 100, 50) == {"probability": 1.0, "known": 1, "pairs": 1}
    assert concordance([None], [50], [50], 100) == {"probability": 0.0, "known": 1, "pairs": 1}
    assert concordance([None, None], [None], 100, 100) == {"probability": None, "known": 0, "pairs": 2}


@pytest.mark.parametrize("seed", range(4))
def test_the_two_directions_of_concordance_add_up(seed):
    rng = np.random.default_rng(seed)
    a, b = ([int(t) if t < 15 else None for t in rng.integers(1, 20, n)] for n in (6, 9))
    one, other = concordance(a, b, 15, 12), concordance(b, a, 12, 15)
    assert one["probability"] + other["probability"] == pytest.approx(1)
    assert one["known"] == other["known"]


def test_paired_tests():
    found = paired([100, 200, 300, None, 50, None], [150, 260, 290, 400, None, None])
    assert {key: found[key] for key in ("pairs", "left_out", "earlier", "later", "difference")} == {
        "pairs": 3, "left_out": 3, "earlier": 2, "later": 1, "difference": -50,
    }  # fmt: skip
    assert found["sign_p"] == pytest.approx(1.0)
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon([-50, -60, 10]).pvalue)
    five = paired([1, 2, 3, 4, 5], [11, 13, 15, 17, 19])
    assert five["sign_p"] == five["wilcoxon_p"] == pytest.approx(2 / 32)  # all 5 of one sign, both ways
    assert paired([11, 13, 15, 17, 19], [1, 2, 3, 4, 5])["wilcoxon_p"] == pytest.approx(2 / 32)


def test_pairs_that_are_equal_or_unknown_say_nothing():
    equal = paired([5, 6], [5, 6])
    assert (equal["pairs"], equal["difference"], equal["sign_p"], equal["wilcoxon_p"]) == (2, 0, None, None)
    unknown = paired([None, 3], [4, None])
    assert (unknown["pairs"], unknown["left_out"], unknown["difference"], unknown["sign_p"]) == (0, 2, None, None)
    tied = paired([5, 6, 7, 8], [5, 8, 9, 10])
    assert (tied["pairs"], tied["earlier"], tied["later"]) == (4, 3, 0)
    assert tied["sign_p"] == tied["wilcoxon_p"] == pytest.approx(2 / 8)
    with pytest.raises(ValueError):
        paired([1, 2], [1])
