"""Classes of two-hop questions against a literal loop, their sizes, their streams."""

import dataclasses

import numpy as np
import pytest

from capacity_reasoning.facts.lists import lists
from capacity_reasoning.facts.people import NOBODY, draw
from capacity_reasoning.facts.splits import ABSENT, CLASSES, Splits, held_out, random_parts
from common.config import UserError, parse

SMALL = lists(names=20, values=8)
LARGE_SHARES = Splits(0.1, 0.1, 1, 0.1, 0.1, 0.3, 0.2)
REST = {CLASSES.index("train_twohop"), CLASSES.index("complete_two_hop")}


def literal(people, parts, p, r, s):
    """Class of one tuple, by the first definition that fits; None for the rest."""
    q = people.relations[p, r]
    if q == NOBODY or people.answers[q, s] == NOBODY:
        return ABSENT
    definitions = {
        "first_people": parts.first_people[p],
        "relations": parts.relations[r],
        "second_attributes": parts.second_attributes[s],
        "person_relation_pairs": parts.person_relation_pairs[p, r],
        "second_people": parts.second_people[q],
        "second_person_attribute_pairs": parts.second_person_attribute_pairs[q, s],
    }
    return next((CLASSES.index(name) for name, held in definitions.items() if held), None)


@pytest.mark.parametrize(("mode", "R"), [("uniform", 17), ("structured", 6), ("bipartite_classic", 4)])
def test_every_tuple_has_the_class_of_its_definition(mode, R):
    people = draw(SMALL, 60, R, mode, 0)
    parts, classes = random_parts(people, LARGE_SHARES, 0), held_out(people, LARGE_SHARES, 0)
    assert classes.shape == (60, R, people.S) and classes.dtype == np.uint8
    for p, r, s in np.ndindex(classes.shape):
        expected, found = literal(people, parts, p, r, s), int(classes[p, r, s])
        assert found in REST if expected is None else found == expected
    present = set(np.unique(classes).tolist())
    assert present == set(range(8)) | ({ABSENT} if mode == "bipartite_classic" else set())


def test_sizes_of_the_paper_s_split():
    """N = 1000, R = 17: what depends on the draw of bridges alone within 5 standard errors of its mean."""
    people = draw(lists(), 1000, 17, "uniform", 0)
    sizes = dict(zip(CLASSES, np.bincount(held_out(people, Splits(), 0).ravel(), minlength=8), strict=True))
    assert sum(sizes.values()) == 357_000
    exact = {"first_people": 7140, "relations": 20_580, "second_attributes": 15_680, "complete_two_hop": 6800}
    assert {name: sizes[name] for name in exact} == exact
    assert sizes["person_relation_pairs"] == pytest.approx(0.02 * 980 * 16 * 20, abs=5 * 20 * 18)
    assert sizes["second_people"] == pytest.approx(0.98 * 20 * 980 / 1000 * 16 * 20, abs=5 * 20 * 18)
    assert sizes["second_person_attribute_pairs"] == pytest.approx(80 * 17 * 0.98**3 * 16 / 17 * 20 / 21, abs=5 * 45)


def test_sizes_of_the_random_parts():
    people = draw(SMALL, 1000, 17, "uniform", 0)
    for base, counted in (("A", 4), ("S", 21)):
        splits = Splits(count_base=base)
        parts = random_parts(people, splits, 0)
        sizes = [int(getattr(parts, field.name).sum()) for field in dataclasses.fields(parts)]
        assert sizes == [20, 1, 1, 340, 20, 20 * counted]
        assert (held_out(people, splits, 0) == 7).sum() == 0.1 * 1000 * 17 * counted


def test_nothing_is_held_out_unless_asked():
    people = draw(SMALL, 100, 4, "uniform", 0)
    assert not held_out(people, Splits(0, 0, 0, 0, 0, 0, 0), 0).any()
    for name, size in {
        "first_people": 0.2 * 100 * 32,
        "relations": 100 * 8,
        "complete_two_hop": 0.2 * 100 * 16,
    }.items():
        classes = held_out(people, dataclasses.replace(Splits(0, 0, 0, 0, 0, 0, 0), **{name: 0.2}), 0)
        assert np.bincount(classes.ravel()).nonzero()[0].tolist() == [0, CLASSES.index(name)]
        assert (classes != 0).sum() == size


def test_complete_two_hop_is_a_uniform_sample_of_the_rest():
    """How often each tuple is chosen over seeds: mean and variance of independent draws."""
    people, splits, seeds = draw(SMALL, 20, 4, "uniform", 0), Splits(0, 0, 0, 0, 0, 0, 0.5), 400
    chosen = sum((held_out(people, splits, seed) == 7).astype(int) for seed in range(seeds))
    assert chosen.sum() == seeds * 0.5 * 20 * 16 and chosen.size == 640
    assert chosen.var() == pytest.approx(seeds * 0.25 * 0.75, rel=5 * (2 / 640) ** 0.5)


def test_a_seed_is_a_split_and_the_run_s_is_the_default():
    people = draw(SMALL, 100, 4, "uniform", 0)
    ours = held_out(people, LARGE_SHARES, 5)
    assert np.array_equal(ours, held_out(people, LARGE_SHARES, 5))
    assert np.array_equal(ours, held_out(people, dataclasses.replace(LARGE_SHARES, seed=5), 0))
    assert not np.array_equal(ours, held_out(people, LARGE_SHARES, 6))


def test_a_share_moves_no_other_set():
    people = draw(SMALL, 100, 4, "uniform", 0)
    parts, other = (random_parts(people, Splits(first_people=share), 0) for share in (0.02, 0.5))
    for field in dataclasses.fields(parts)[1:]:
        assert np.array_equal(getattr(parts, field.name), getattr(other, field.name))


@pytest.mark.parametrize(
    ("R", "splits"), [(1, Splits()), (4, Splits(complete_two_hop=1, count_base="S")), (4, Splits(second_attributes=20))]
)
def test_a_split_that_leaves_nothing_to_train_on_is_refused(R, splits):
    people = draw(SMALL, 100, R, "uniform", 0)
    with pytest.raises(UserError, match="none is left for training; mend: --splits.relations 0"):
        held_out(people, splits, 0)


def test_settings_are_checked():
    assert parse(Splits, ["--count_base", "S"]).count_base == "S"
    with pytest.raises(UserError, match="first_people: found 1.5, expected float from 0 to 1"):
        parse(Splits, ["--first_people", "1.5"])
