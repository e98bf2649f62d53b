"""Totals add up from subjects; relations keep the laws that they were drawn by, and lose them to a single change."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from capacity_reasoning.analysis import entropy
from capacity_reasoning.estimators.entropy import SCHEMES
from capacity_reasoning.estimators.structure import bipartite_classic_bits, inverse_pair_bits, matching_bits
from capacity_reasoning.evaluate import Trained
from capacity_reasoning.facts.lists import RELATIONS, lists
from capacity_reasoning.facts.people import INVERSE, draw

people = partial(draw, lists(names=16, values=8), 30)


@pytest.mark.parametrize("R", [1, 2, 8, 9, 11, 17])
def test_structured_people_keep_all_laws_where_pairs_are_cut_too(R):
    kept = entropy.laws(people(R, "structured", 0))
    assert kept == {name: other for name, other in INVERSE.items() if name in RELATIONS[:R]}


def test_uniform_people_keep_no_law():
    assert entropy.laws(people(17, "uniform", 0)) == {} and entropy.structure(people(17, "uniform", 0)) is None


def test_one_changed_answer_breaks_a_law():
    drawn = people(17, "structured", 0)
    relations = drawn.relations.copy()
    for name in ("spouse", "parent"):
        column = RELATIONS.index(name)
        relations[0, column] = (relations[0, column] + 1) % 30
    kept = entropy.laws(replace(drawn, relations=relations))
    assert set(INVERSE) - set(kept) == {"spouse", "parent", "child"}


def test_a_relation_to_oneself_is_no_matching():
    drawn = people(3, "structured", 0)
    relations = drawn.relations.copy()
    relations[:, 2] = np.arange(30)
    assert "best_friend" not in entropy.laws(replace(drawn, relations=relations))


def test_bits_of_relations_by_their_laws():
    """Three pairs, seven matchings and four that are anyone."""
    told = entropy.structure(people(17, "structured", 0))
    anyone = 30 * np.log2(30)
    assert told["structured"] == pytest.approx(3 * inverse_pair_bits(30) + 7 * matching_bits(30) + 4 * anyone)
    assert told["naive"] == pytest.approx(17 * anyone)


def test_bits_of_parents_and_children():
    """Half of the people have a parent, half a child; all have a friend and an enemy."""
    told = entropy.structure(people(4, "bipartite_classic", 0))
    assert told == {"structured": bipartite_classic_bits(30), "naive": pytest.approx(3 * 30 * np.log2(30))}


@pytest.mark.parametrize("name", ["main", "latent"])
def test_totals_are_the_sums_over_people_and_subjects(study_of, name):
    run = Trained(study_of("capacity_reasoning") / name, "cpu", 1)
    told = entropy.analyse(run, entropy.Settings())
    assert told["structure"] is None and "laws" not in entropy.finding(told)
    for scheme in SCHEMES:
        found, seed = told["schemes"][scheme], 1
        bits = np.array([row["values"][seed] for row in found["subjects"]])
        dataset = {storage: row["values"][seed] for storage, row in found["dataset"].items()}
        baseline = found["names"]["values"][seed] + found["dates"]["values"][seed]
        assert found["baseline"]["values"][seed] == pytest.approx(baseline)
        assert dataset["one_hop"] == pytest.approx(baseline + run.N * bits.sum())
        trained = run.questions[seed].classes
        if trained is None or scheme != "corrected":
            asked = np.full(8, run.N * run.R)
            assert dataset["double"] == pytest.approx(baseline + run.N * (bits.sum() + bits[4:].sum()))
        else:
            asked = (trained == 0).sum((0, 1))
            assert 0 < asked.sum() < run.N * run.R * 8
        assert dataset["big_hash"] == pytest.approx(baseline + float(asked @ bits))


def test_figure_and_finding_tell_of_laws(study_of):
    run = Trained(study_of("capacity_reasoning") / "main", "cpu", 1)
    told = entropy.analyse(run, entropy.Settings())
    told["structure"] = {"structured": {"mean": 1000.0}, "naive": {"mean": 1500.0}}
    assert "relations 1,000 bits by their laws, 1,500 without" in entropy.finding(told)
    labels = [text.get_text() for ax in entropy.draw(told).axes for text in ax.get_legend().get_texts()]
    assert {"relations, structured", "relations, naive", "2 bits per parameter", "corrected"} <= set(labels)
    assert len(labels) == len(set(labels))
