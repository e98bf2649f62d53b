"""Lists of names and values, and people drawn from them: sizes, entropies, laws of relations, mistakes."""

import math
import sys
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pytest

from capacity_reasoning.facts import lists as module
from capacity_reasoning.facts.lists import ATTRIBUTES, RELATIONS, birth_dates, lists, words
from capacity_reasoning.facts.people import INVERSE, LAWS, NOBODY, derangement, draw, matching
from common.config import UserError

SMALL = lists(names=12, values=8)
OF_TWO = [relation for relation, inverse in INVERSE.items() if relation == inverse]


def column(people, relation):
    return people.relations[:, RELATIONS.index(relation)]


def test_names_of_the_package():
    pytest.importorskip("names")
    drawn_from = lists()
    assert (len(drawn_from.first), len(drawn_from.middle), len(drawn_from.last)) == (5163, 5163, 88_799)
    assert drawn_from.full_names == 5163**2 * 88_799
    assert {"Mary", "James"} < set(drawn_from.first) and {"Smith", "Mcdonald"} < set(drawn_from.last)
    assert list(drawn_from.first) == sorted(set(drawn_from.first)) and drawn_from.middle == drawn_from.first


def test_the_package_is_read_and_not_run():
    pytest.importorskip("names")
    sys.modules.pop("names", None)
    lists()
    assert "names" not in sys.modules


def test_names_are_made_up_without_the_package(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    drawn_from = lists()
    assert (len(set(drawn_from.first)), len(set(drawn_from.last))) == (5163, 88_799)
    assert all(name.isalpha() and name.istitle() for name in drawn_from.last)
    assert len(set(lists(names=90_000).first)) == 90_000


def test_made_up_words_do_not_depend_on_how_many():
    assert words(5, "first") == words(1000, "first")[:5] != words(5, "last")


def test_names_of_a_clone(tmp_path):
    for path, text in {"first names": "Mary\nJames\n\nMary\n", "surnames": "Smith\nJones\nBrown\n"}.items():
        (tmp_path / "NamesDatabases" / path).mkdir(parents=True)
        (tmp_path / "NamesDatabases" / path / "us.txt").write_text(text)
    drawn_from = lists(names_dir=str(tmp_path))
    assert drawn_from.first == drawn_from.middle == ("James", "Mary")
    assert drawn_from.last == ("Brown", "Jones", "Smith") and drawn_from.full_names == 12


def test_dates_are_those_of_every_day_cut_to_28():
    """One day at a time from 1900-01-01 to 2099-12-30."""
    days = (date(1900, 1, 1) + timedelta(days=number) for number in range(73_048))
    counts = Counter(day.replace(day=min(day.day, 28)).isoformat() for day in days)
    dates = birth_dates()
    assert dict(zip(dates.texts, dates.weights.tolist(), strict=True)) == counts
    assert len(dates.texts) == 67_200 and dates.weights.sum() == 73_048
    assert dates.entropy == pytest.approx(15.9499, abs=5e-5)
    assert dates.entropy == pytest.approx(-math.fsum(n / 73_048 * math.log2(n / 73_048) for n in counts.values()))


def test_values_are_the_paper_s_or_as_many_as_asked():
    paper = lists().values
    assert [len(set(values.texts)) for values in paper] == [67_200, 223, 100, 73]
    assert [values.entropy for values in paper[1:]] == pytest.approx([math.log2(223), math.log2(100), math.log2(73)])
    assert all(text.count(", ") == 1 for text in paper[1].texts)
    for values, whole in zip(lists(values=64).values, paper, strict=True):
        assert values.entropy == 6.0 and set(values.texts) < set(whole.texts)
    assert [len(set(values.texts)) for values in lists(values=1000).values] == [1000] * 4


def test_fewer_names_are_some_of_more():
    few, more = lists(names=32), lists(names=64)
    for kind in ("first", "last"):
        assert len(getattr(few, kind)) == 32 and set(getattr(few, kind)) < set(getattr(more, kind))


def test_values_of_a_folder(tmp_path):
    for attribute in ATTRIBUTES[1:]:
        (tmp_path / f"{attribute}.txt").write_text(f"{attribute} B\n{attribute} A\n")
    assert lists(lists_dir=str(tmp_path)).values[2].texts == ("university A", "university B")
    with pytest.raises(UserError, match="found 2 different values of birth_city, expected 3; mend: --data.values 2"):
        lists(values=3, lists_dir=str(tmp_path))
    (tmp_path / "employer.txt").write_text("\n")
    with pytest.raises(UserError, match="found no text at .*employer.txt.*--data.lists_dir"):
        lists(lists_dir=str(tmp_path))
    with pytest.raises(UserError, match="found no text at .*us.txt.*--data.names_dir"):
        lists(names_dir=str(tmp_path))


@pytest.mark.parametrize("mode", LAWS)
def test_a_seed_is_a_population(mode):
    people, again, other = (draw(SMALL, 60, 4, mode, seed) for seed in (3, 3, 4))
    for name in ("names", "attributes", "relations"):
        assert getattr(people, name).dtype == np.int32
        assert np.array_equal(getattr(people, name), getattr(again, name))
        assert not np.array_equal(getattr(people, name), getattr(other, name))


def test_four_relations_are_the_first_of_seventeen():
    few, all_of_them = (draw(SMALL, 60, R, "uniform", 0) for R in (4, 17))
    assert np.array_equal(few.answers, all_of_them.answers[:, :8])


def test_full_names_differ_down_to_the_last():
    tiny = lists(names=5)
    people = draw(tiny, 125, 1, "uniform", 0)
    assert {people.name(person) for person in range(125)} == {
        f"{first} {middle} {last}" for first in tiny.first for middle in tiny.first for last in tiny.last
    }


def test_answers_are_told_in_words():
    people = draw(SMALL, 60, 4, "structured", 0)
    assert (people.N, people.R, people.S) == (60, 4, 8) and people.subjects == ATTRIBUTES + RELATIONS[:4]
    for subject, values in enumerate(SMALL.values):
        assert people.value(7, subject) == values.texts[people.attributes[7, subject]]
    assert people.value(7, 5) == people.name(people.relations[7, 1])


def test_uniform_relations_are_anyone_oneself_too():
    """Each of 17 N relations is oneself by 1/N, and each person is named as often, within 5 standard errors."""
    N = 4000
    relations = draw(lists(names=20), N, 17, "uniform", 0).relations
    oneself = (relations == np.arange(N)[:, None]).sum()
    assert 1 <= oneself <= 17 + 5 * math.sqrt(17)
    counts = np.bincount(relations.ravel(), minlength=N)
    assert abs(counts.var() / 17 - 1) < 5 * math.sqrt(2 / N)


def test_attributes_follow_their_weights():
    """The share of days 28, which stand for 28 to 31, and chi-square of cities, within 5 standard errors."""
    N = 50_000
    people = draw(lists(), N, 1, "uniform", 0)
    dates = birth_dates()
    last = np.array([text.endswith("28") for text in dates.texts])
    p = dates.weights[last].sum() / dates.weights.sum()
    assert abs(last[people.attributes[:, 0]].mean() - p) < 5 * math.sqrt(p * (1 - p) / N)
    cities = np.bincount(people.attributes[:, 1], minlength=223)
    assert ((cities - N / 223) ** 2).sum() / (N / 223) < 222 + 5 * math.sqrt(2 * 222)


def test_structured_relations_satisfy_their_identities():
    N = 500
    people, everyone = draw(SMALL, N, 17, "structured", 0), np.arange(N)
    for relation, inverse in INVERSE.items():
        there, back = column(people, relation), column(people, inverse)
        assert np.array_equal(back[there], everyone) and not (there == everyone).any()
    # Of the others, nobody's inverse is drawn: not everyone is someone's
    for relation in set(RELATIONS) - set(INVERSE):
        assert len(set(column(people, relation).tolist())) < N
    assert len({people.relations[:, r].tobytes() for r in range(17)}) == 17


def test_a_pair_that_is_cut_is_a_derangement():
    cut = draw(SMALL, 501, 1, "structured", 0)
    assert sorted(column(cut, "parent")) == list(range(501)) and not (column(cut, "parent") == np.arange(501)).any()


def test_derangements_and_matchings_are_uniform():
    """All 9 derangements of 4 and all 15 matchings of 6, chi-square below mean + 5 standard deviations."""
    rng = np.random.default_rng(0)
    for law, N, kinds in ((derangement, 4, 9), (matching, 6, 15)):
        counts = Counter(law(N, rng).tobytes() for _ in range(300 * kinds))
        assert len(counts) == kinds
        chi_square = sum((count - 300) ** 2 / 300 for count in counts.values())
        assert chi_square < kinds - 1 + 5 * math.sqrt(2 * (kinds - 1))


def test_bipartite_classic():
    """Half are parents and half children, in pairs; friends and enemies are matchings."""
    N = 200
    people, everyone = draw(SMALL, N, 4, "bipartite_classic", 0), np.arange(N)
    parent, child, friend, enemy = people.relations.T
    assert (parent == NOBODY).sum() == N // 2 and np.array_equal(parent == NOBODY, child != NOBODY)
    parents, children = everyone[child != NOBODY], everyone[parent != NOBODY]
    assert np.array_equal(parent[child[parents]], parents) and np.array_equal(child[parent[children]], children)
    for partner in (friend, enemy):
        assert np.array_equal(partner[partner], everyone) and not (partner == everyone).any()
    with pytest.raises(ValueError, match="has no parent"):
        people.value(int(parents[0]), people.subjects.index("parent"))


@pytest.mark.parametrize(
    ("N", "R", "mode", "message"),
    [
        (101, 17, "structured", "found odd N 101 in mode structured.*--data.N 102"),
        (101, 4, "bipartite_classic", "found odd N 101 in mode bipartite_classic"),
        (1729, 4, "uniform", "found N 1729 and 1728 full names.*--data.N 1728, or more --data.names"),
        (100, 18, "uniform", "found R 18, expected 1 to 17"),
        (100, 0, "uniform", "found R 0"),
        (100, 17, "bipartite_classic", "found R 17 in mode bipartite_classic, expected 4"),
        (1, 2, "structured", "found N 1 in mode structured"),
    ],
)
def test_mistakes(N, R, mode, message):
    with pytest.raises(UserError, match=message):
        draw(SMALL, N, R, mode, 0)
