"""Entropies of databases against brute force on a handful of people, the reference table of expected distinct counts, and drawn
populations; entropies of structured relations against enumeration."""

import math
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pytest
from scipy.special import gammaln

from capacity_reasoning.estimators import structure
from capacity_reasoning.estimators.entropy import (
    SCHEMES,
    STORAGES,
    Support,
    baseline_bits,
    copies_of,
    dataset_bits,
    expected_distinct,
    log2_binomial,
    selection_bits,
    subject_entropies,
)
from capacity_reasoning.facts.lists import RELATIONS, Values, lists
from capacity_reasoning.facts.people import INVERSE, draw

# N, R -> millions of bits by `enumerate`: one_hop, baseline, double, big_hash; by `corrected`: names, facts
TABLE = {
    (1000, 4): (0.105, 0.037, 0.142, 0.308, 0.033, 0.076),
    (1000, 17): (0.226, 0.037, 0.384, 3.25, 0.033, 0.206),
    (10000, 4): (1.257, 0.414, 1.762, 3.786, 0.293, 0.897),
    (10000, 17): (2.899, 0.414, 5.045, 42.65, 0.293, 2.625),
    (15500, 17): (4.671, 0.645, 8.164, 69.09, 0.444, 4.235),
    (20000, 17): (6.158, 0.832, 10.79, 91.38, 0.565, 5.590),
    (25000, 4): (3.307, 1.039, 4.702, 10.11, 0.698, 2.376),
    (30000, 4): (4.005, 1.245, 5.711, 12.29, 0.830, 2.882),
    (50000, 4): (6.842, 2.067, 9.831, 21.17, 1.347, 4.951),
}


def tiny(N: int, R: int, V: int, sizes: tuple[int, int, int]) -> Support:
    """One uniform attribute of V values."""
    law = Values(("",) * V, np.ones(V, int))
    return replace(Support.expected(N, R, sizes, [law]), subjects=("attribute", *RELATIONS[:R]))


# --- whole databases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "R"), TABLE)
def test_reference_table(N, R):
    support = Support.expected(N, R)
    published = [dataset_bits(support, "enumerate", storage) for storage in STORAGES]
    names = baseline_bits(support, "corrected")
    facts = dataset_bits(support, "corrected", "one_hop") - names
    found = [published[0], baseline_bits(support, "enumerate"), published[1], published[2], names, facts]
    assert np.allclose(np.array(found) / 1e6, TABLE[N, R], rtol=2e-3, atol=6e-4)


@pytest.mark.parametrize(("N", "R", "V", "sizes"), [(2, 1, 3, (2, 1, 2)), (2, 2, 2, (1, 3, 1)), (3, 1, 2, (2, 2, 1))])
def test_corrected_entropy_counts_all_databases(N, R, V, sizes):
    names = combinations(list(product(*map(range, sizes))), N)
    databases = set(product(names, product(range(V), repeat=N), *[list(product(range(N), repeat=N))] * R))
    assert dataset_bits(tiny(N, R, V, sizes), "corrected", "one_hop") == pytest.approx(math.log2(len(databases)))


@pytest.mark.parametrize("N", [2, 3, 4, 5, 6])
def test_optimal_and_enumerate_differ_by_the_order_of_names(N):
    """log2 N! of the order, published as N log2 N; independent pays no names but spells them in every answer."""
    support = tiny(N, 2, 3, (4, 4, 4))
    cost = {scheme: selection_bits(support, scheme)["names"] for scheme in SCHEMES}
    assert cost["enumerate"] - cost["optimal"] == pytest.approx(N * math.log2(N))
    assert cost["corrected"] == pytest.approx(math.log2(math.comb(64, N)))
    assert cost["independent"] == cost["independent_as_published"] == 0
    pool = math.log2(math.prod(support.seen_names))
    assert np.allclose(subject_entropies(support, "independent")[1:], pool)
    assert np.array_equal(*(subject_entropies(support, scheme) for scheme in ("independent_as_published", "optimal")))


@pytest.mark.parametrize(("n", "k"), [(6, 3), (9, 0), (73048, 9300), (300, 299), (10**6, 10**3)])
def test_log2_binomial(n, k):
    exact = math.log2(math.comb(n, k))
    assert log2_binomial(n, k) == pytest.approx(exact, rel=1e-12, abs=1e-12)


def test_corrected_names_by_gammaln_and_dates_by_their_law():
    support = Support.expected(10_000, 4)
    N0, N = math.prod(support.list_sizes), 10_000
    literal = (gammaln(N0 + 1) - gammaln(N + 1) - gammaln(N0 - N + 1)) / math.log(2)
    assert selection_bits(support, "corrected")["names"] == pytest.approx(literal, rel=1e-7)
    assert support.laws[0] == pytest.approx(15.9499, abs=5e-5)
    assert support.dates == 73048
    dates = log2_binomial(73048, support.distinct[0])
    assert [selection_bits(support, scheme)["dates"] for scheme in SCHEMES] == [dates, dates, 0, 0, 0]


def test_corrected_relations_cost_more_by_the_people_never_seen():
    support = Support.expected(10_000, 17)
    more = (subject_entropies(support, "corrected") - subject_entropies(support, "optimal"))[4:]
    assert np.allclose(more, -math.log2(1 - 1 / math.e), atol=1e-3)


def test_unknown_names_are_refused():
    support = Support.expected(10, 4)
    with pytest.raises(ValueError, match="found scheme 'best', expected one of optimal"):
        subject_entropies(support, "best")
    with pytest.raises(ValueError, match="expected one of optimal"):
        selection_bits(support, "best")
    with pytest.raises(ValueError, match="found storage 'two_hop', expected one of one_hop"):
        copies_of(support, "two_hop")


# --- supports and copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 1, 2, 1], [1]])
def test_expected_distinct_is_the_mean_over_all_draws(weights):
    draws = 4
    p = np.array(weights) / sum(weights)
    mean = sum(p[list(drawn)].prod() * len(set(drawn)) for drawn in product(range(len(p)), repeat=draws))
    assert expected_distinct(np.array(weights), draws) == pytest.approx(mean)


def test_a_drawn_population_shows_what_is_expected():
    pools = lists(names=40)
    drawn = [Support.of(draw(pools, 300, 4, "uniform", seed)) for seed in range(20)]
    expected = Support.expected(300, 4, (40, 40, 40))
    counts = np.array([support.distinct + support.seen_names for support in drawn])
    error = counts.std(0, ddof=1) / np.sqrt(len(drawn))
    assert (np.abs(counts.mean(0) - [*expected.distinct, *expected.seen_names]) <= 4 * error + 0.05).all()
    for name in ("N", "R", "list_sizes", "laws", "subjects", "answers", "dates"):
        assert getattr(drawn[0], name) == getattr(expected, name)


def test_people_who_lack_a_relation_have_no_answer_to_store():
    support = Support.of(draw(lists(names=20, values=8), 60, 4, "bipartite_classic", 0))
    assert support.answers == (60,) * 4 + (30, 30, 60, 60)
    assert support.distinct[4:] == (30, 30, 60, 60)
    assert np.array_equal(copies_of(support, "one_hop"), support.answers)


def test_published_copies():
    support = Support.expected(50, 3)
    assert copies_of(support, "one_hop").tolist() == [50] * 7
    assert copies_of(support, "double").tolist() == [50] * 4 + [100] * 3
    assert copies_of(support, "big_hash").tolist() == [150] * 7


def test_copies_of_training_tuples_against_loops():
    N, R = 6, 3
    support = Support.expected(N, R)
    classes = np.random.default_rng(0).choice([0, 0, 1, 7, 255], size=(N, R, 4 + R)).astype(np.uint8)
    classes[:, 1] = 2
    classes[:, :, 5] = 3
    answers, bridges, asked = [0] * 7, set(), set()
    for p, r, s in product(range(N), range(R), range(7)):
        if classes[p, r, s] == 0:
            answers[s] += 1
            bridges.add((p, r))
            asked.add(s)
    stored = [N * (s in asked) + sum(r == s - 4 for _, r in bridges) for s in range(7)]
    assert copies_of(support, "big_hash", classes).tolist() == answers
    assert copies_of(support, "double", classes).tolist() == stored
    assert stored[4 + 1] == 0, "nothing of a relation that is neither asked for nor gone through"
    literal = baseline_bits(support, "corrected") + subject_entropies(support, "corrected") @ answers
    assert dataset_bits(support, "corrected", "big_hash", answers) == pytest.approx(literal)


def test_copies_of_a_split_without_held_out_tuples_are_the_published_ones():
    support = Support.expected(7, 2)
    classes = np.zeros((7, 2, 6), np.uint8)
    for storage in STORAGES:
        assert np.array_equal(copies_of(support, storage, classes), copies_of(support, storage))


# --- structured relations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 13))
def test_double_factorial(n):
    assert 2 ** structure.log2_double_factorial(n) == pytest.approx(math.prod(range(n, 0, -2)))


@pytest.mark.parametrize("N", [2, 3, 4, 5, 6])
def test_matchings_and_derangements_by_enumeration(N):
    free = [p for p in permutations(range(N)) if all(p[i] != i for i in range(N))]
    assert 2 ** structure.inverse_pair_bits(N) == pytest.approx(len(free))
    involutions = [p for p in free if all(p[p[i]] == i for i in range(N))]
    if N % 2:
        assert not involutions
        with pytest.raises(ValueError, match="odd"):
            structure.matching_bits(N)
    else:
        assert 2 ** structure.matching_bits(N) == pytest.approx(len(involutions))


def test_derangements_of_many_follow_the_recurrence():
    counts = [1, 0]
    for n in range(2, 40):
        counts.append((n - 1) * (counts[-1] + counts[-2]))
    for n in range(2, 40):
        assert structure.inverse_pair_bits(n) == pytest.approx(math.log2(counts[n]), rel=1e-12)
    with pytest.raises(ValueError, match="2 or more"):
        structure.inverse_pair_bits(1)


def test_large_matchings_by_stirling():
    N = 10_000
    assert structure.matching_bits(N) == pytest.approx(0.5 * N * math.log2(N) - 0.5 * N / math.log(2), rel=1e-4)


@pytest.mark.parametrize("N", [2, 4, 6])
def test_bipartite_classic_by_enumeration(N):
    people = set(range(N))
    halves = combinations(range(N), N // 2)
    families = {(half, children) for half in halves for children in permutations(people - set(half))}
    friends = [p for p in permutations(range(N)) if all(p[i] != i and p[p[i]] == i for i in range(N))]
    assert 2 ** structure.bipartite_classic_bits(N) == pytest.approx(len(families) * len(friends) ** 2)


def test_structured_relations_by_enumeration():
    """All parent, child and best_friend of 4 people that satisfy the laws."""
    N, tables = 4, list(product(range(4), repeat=4))
    pairs = [(f, g) for f, g in product(tables, repeat=2) if all(g[f[i]] == i != f[i] for i in range(N))]
    friends = [f for f in tables if all(f[f[i]] == i != f[i] for i in range(N))]
    bits = structure.structured_bits(N, ("parent", "child", "best_friend", "hero"), INVERSE)
    assert 2 ** bits["structured"] == pytest.approx(len(pairs) * len(friends) * len(tables))
    assert 2 ** bits["naive"] == pytest.approx(len(tables) ** 4)


def test_a_pair_costs_the_same_whole_or_cut_and_uniform_relations_their_naive_bits():
    whole = structure.structured_bits(100, ("child", "parent"), INVERSE)
    cut = structure.structured_bits(100, ("child",), INVERSE)
    assert whole["structured"] == cut["structured"] and whole["naive"] == 2 * cut["naive"]
    uniform = structure.structured_bits(100, RELATIONS, {})
    assert uniform["structured"] == pytest.approx(uniform["naive"])
    all17 = structure.structured_bits(10_000, RELATIONS, INVERSE)
    assert 0.5 < all17["structured"] / all17["naive"] < 0.65
