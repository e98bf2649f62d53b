"""Information content: readings of published curves, its limits, both branches, error propagation against Monte Carlo."""

import math

import numpy as np
import pytest

from capacity_reasoning.estimators.content import (
    as_published,
    bits_per_parameter,
    content,
    flatness,
    per_subject_as_published,
    two_point_one,
)
from capacity_reasoning.estimators.entropy import (
    SCHEMES,
    STORAGES,
    Support,
    baseline_bits,
    copies_of,
    dataset_bits,
    log2_binomial,
    selection_bits,
    subject_entropies,
)
from capacity_reasoning.estimators.two_function import two_hop_probability

READINGS = ("enumerate", "optimal", "corrected")
# Published curves of R = 4: N, P, nats per question -> bits per parameter by each of READINGS
ONE_HOP = [
    (25_000, 1_166_688, 4.2, (1.80, 1.48, 1.60)),
    (25_000, 1_475_824, 0.8, (2.08, 1.84, 1.93)),
    (30_000, 890_320, 6.0, (2.17, 1.66, 1.84)),
    (30_000, 1_166_688, 5.6, (1.77, 1.39, 1.52)),
    (30_000, 1_475_824, 2.2, (2.20, 1.90, 2.00)),
    (50_000, 890_320, 9.2, (1.72, 0.84, 1.11)),
    (50_000, 1_166_688, 7.8, (2.01, 1.34, 1.54)),
    (50_000, 1_475_824, 7.2, (1.82, 1.29, 1.45)),
    (10_000, 890_320, 0.06, (1.40, 1.25, 1.33)),
]
BIG_HASH = [
    (10_000, 890_320, 4.9, (1.71, 1.56, 1.82)),
    (10_000, 1_166_688, 3.6, (1.82, 1.71, 1.90)),
    (25_000, 1_166_688, 7.4, (1.35, 1.03, 1.42)),
    (25_000, 1_475_824, 6.9, (1.46, 1.21, 1.52)),
    (30_000, 1_166_688, 7.9, (1.15, 0.77, 1.22)),
    (30_000, 1_475_824, 7.5, (1.29, 0.98, 1.34)),
]
POINTS = [("one_hop", *point) for point in ONE_HOP] + [("big_hash", *point) for point in BIG_HASH]


# --- against published numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("storage", "N", "P", "nats", "expected"), POINTS)
def test_readings_of_published_curves(storage, N, P, nats, expected):
    support = Support.expected(N, 4)
    found = [content(support, [nats / math.log(2)] * 8, scheme, storage) for scheme in READINGS]
    assert [bits_per_parameter(one, P)[0] for one in found] == pytest.approx(expected, abs=0.006)
    for one, scheme in zip(found, READINGS, strict=True):
        mult = 4 if storage == "big_hash" else 1
        assert as_published(support, nats / math.log(2), scheme, mult) == pytest.approx(one.bits)


def test_flatness_of_the_saturated_readings():
    """`enumerate` is flattest over N and P: the paper's argument for it."""
    columns = np.array([expected for *_, expected in ONE_HOP[:8]]).T
    assert [flatness(column)[0] for column in columns] == pytest.approx([0.10, 0.23, 0.18], abs=0.005)


# --- limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("storage", STORAGES)
def test_no_loss_holds_the_dataset_and_uniform_answers_the_baseline(scheme, storage):
    support = Support.expected(500, 3)
    full = content(support, np.zeros(7), scheme, storage)
    assert full.bits == pytest.approx(full.dataset) == pytest.approx(dataset_bits(support, scheme, storage))
    none = content(support, subject_entropies(support, scheme), scheme, storage)
    assert none.bits == pytest.approx(baseline_bits(support, scheme), abs=1e-4)
    assert full.selection.sum() == pytest.approx(baseline_bits(support, scheme))
    assert full.suspicious == (False,) * 7
    assert none.suspicious == (storage == "double",) * 7


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("level", [0.3, 1.2])
def test_shares_of_subjects_add_up_in_both_branches(scheme, level):
    support = Support.expected(500, 3)
    losses = level * subject_entropies(support, scheme) * np.linspace(0.7, 1.3, 7)
    found = content(support, losses, scheme)
    assert found.per_subject.sum() == pytest.approx(found.bits)
    assert found.bits == pytest.approx(as_published(support, losses.mean(), scheme))
    names = selection_bits(support, scheme)["names"]
    assert np.allclose(found.selection[4:], names / 3) and np.allclose(found.selection[1:4], 0)


def test_content_falls_below_the_baseline_where_answers_are_worse_than_uniform():
    support = Support.expected(500, 3)
    entropies = subject_entropies(support, "corrected")
    worse = content(support, entropies + 1, "corrected", "big_hash")
    assert worse.bits == pytest.approx(baseline_bits(support, "corrected") - 500 * 3 * 7)
    published = as_published(support, entropies.mean() + 1, "corrected", 3)
    assert published == pytest.approx(baseline_bits(support, "corrected") - 500 * 7), "excess without the factor R"


@pytest.mark.parametrize(("loss", "published", "right"), [(9, 5700, 5600), (12, 4800, 4400)])
def test_the_published_program_divides_the_excess_of_relations_by_R(loss, published, right):
    """Two attributes and two relations of 10, 6, 8, 8 bits, 100 people, names of 5000 bits and dates of 1000."""
    support = Support(
        N=100,
        R=2,
        list_sizes=(2**20, 2**20, 2**10),
        seen_names=(2**20, 2**20, 2**10),
        distinct=(2**10, 2**6, 2**8, 2**8),
        laws=(10.0, 6.0),
        subjects=("birth_date", "employer", "parent", "child"),
        answers=(100,) * 4,
        dates=_days(1000.0, 2**10),
    )
    losses = [float(loss)] * 4
    assert per_subject_as_published(support, losses, "enumerate").sum() == pytest.approx(published)
    assert content(support, losses, "enumerate").bits == pytest.approx(right)
    assert as_published(support, loss, "enumerate") == pytest.approx(right)


def _days(bits: float, distinct: int) -> float:
    """Days among which a choice of `distinct` costs these bits."""
    low, high = float(distinct), 10.0 * distinct
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if log2_binomial(middle, distinct) < bits else (low, middle)
    return low


def test_published_shares_agree_where_every_loss_is_below_its_entropy():
    support = Support.expected(500, 3)
    losses = 0.4 * subject_entropies(support, "enumerate")
    shares = per_subject_as_published(support, losses, "enumerate", 3)
    assert np.allclose(shares, content(support, losses, "enumerate", "big_hash").per_subject)


# --- storages -------------------------------------------------------------------------------------------------------------


def test_two_function_content_inverts_each_subject():
    support = Support.expected(500, 3)
    entropies = subject_entropies(support, "corrected")
    lookups = entropies * np.linspace(0.1, 0.8, 7)
    two_hop = -np.log2(two_hop_probability(2**-lookups, 2**entropies))
    found = content(support, two_hop, "corrected", "double")
    attributes, relations = (500 * (entropies - lookups)[part].sum() for part in (slice(4), slice(4, None)))
    assert found.bits == pytest.approx(baseline_bits(support, "corrected") + attributes + 2 * relations)
    again = content(support, lookups, "corrected", "double", effective=True)
    assert np.allclose(again.per_subject, found.per_subject)
    assert again.suspicious == (False,) * 7


def test_a_subject_that_nothing_stores_needs_no_loss():
    support = Support.expected(20, 2)
    classes = np.zeros((20, 2, 6), np.uint8)
    classes[:, :, 1] = 3
    losses, errors = np.full(6, 1.5), np.full(6, 0.1)
    losses[1] = errors[1] = np.nan
    for storage in ("double", "big_hash"):
        copies = copies_of(support, storage, classes)
        found = content(support, losses, "corrected", storage, errors, copies)
        assert found.per_subject[1] == 0 and np.isfinite(found.bits) and found.error > 0
        assert found.dataset == pytest.approx(dataset_bits(support, "corrected", storage, copies))


def test_two_point_one_counts_names_once():
    support = Support.expected(500, 3)
    facts, answers = (dataset_bits(support, "optimal", storage) for storage in ("one_hop", "big_hash"))
    whole = facts + answers - baseline_bits(support, "optimal")
    zero, some = np.zeros(7), np.full(7, 2.0)
    full = two_point_one(content(support, zero, "optimal", "big_hash"), content(support, zero, "optimal"))
    assert full.bits == pytest.approx(full.dataset) == pytest.approx(whole)
    assert full.per_subject.sum() == pytest.approx(full.bits)
    two = content(support, some, "optimal", "big_hash", np.full(7, 0.3))
    one = content(support, some, "optimal", "one_hop", np.full(7, 0.4))
    both = two_point_one(two, one)
    assert both.bits == pytest.approx(whole - 500 * 7 * 2 - 500 * 3 * 7 * 2)
    assert both.error == pytest.approx(math.hypot(two.error, one.error))


def test_one_loss_per_subject_is_asked_for():
    support = Support.expected(500, 3)
    with pytest.raises(ValueError, match=r"found losses of shape \(3,\), expected one per subject: \(7,\)"):
        content(support, [1.0, 2.0, 3.0], "corrected")
    with pytest.raises(ValueError, match="storage"):
        content(support, np.ones(7), "corrected", "two_hop")


# --- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
def test_error_is_the_spread_over_noisy_losses(storage):
    support, rng = Support.expected(500, 3), np.random.default_rng(0)
    losses = 0.4 * subject_entropies(support, "corrected")
    errors = np.linspace(0.01, 0.05, 7)
    drawn = [content(support, losses + errors * rng.normal(size=7), "corrected", storage).bits for _ in range(2000)]
    found = content(support, losses, "corrected", storage, errors)
    assert found.error == pytest.approx(np.std(drawn), rel=0.05)
    assert found.bits == pytest.approx(np.mean(drawn), abs=4 * found.error / math.sqrt(2000) + 1e-3 * found.error)
    assert bits_per_parameter(found, 1000) == (found.bits / 1000, found.error / 1000)


def test_flatness_does_not_depend_on_units_and_its_error_is_the_spread_over_grids():
    rng = np.random.default_rng(0)
    grids = 2 + 0.3 * rng.normal(size=(800, 30))
    found = np.array([flatness(grid) for grid in grids])
    assert found[:, 0].mean() == pytest.approx(0.15, rel=0.03)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)
    assert flatness(7 * grids[0]) == pytest.approx(flatness(grids[0]))
    assert flatness([1.5, 1.5, 1.5]) == (0, 0)
    with pytest.raises(ValueError, match="found 2 points"):
        flatness([1.0, 2.0])
