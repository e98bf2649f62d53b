"""Bits in a database of people, exactly, under a way to select names and a way to store facts (Johnston & Belrose,
arXiv 2502.03490, section on information content; their measure_entropy and measure_capacity).

Subjects come in one order everywhere: attributes first (the birth date first of all), then relations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln

from capacity_reasoning.facts.lists import ATTRIBUTES, RELATIONS, SIZES, Values, birth_dates, uniform

SCHEMES = ("optimal", "enumerate", "independent", "independent_as_published", "corrected")
"""How the model is supposed to know which names exist, and what an answer costs:

optimal                    a list of the seen first, middle and last names, then N full names without order; an answer is one of
                           the values seen as that subject (published)
enumerate                  the same with the order of the names, which adds log2 N! (published)
independent                no list of names: every relation answer spells its name out of the pool
independent_as_published   no list of names, but relation answers as if there were one (the published program)
corrected                  N of all possible names; a relation answer is one of N people, an attribute follows its exact law
"""
STORAGES = ("one_hop", "double", "big_hash")
"""How often a fact is stored: once (one-hop, chain of thought); once as bridge and once as answer (two-function composition);
in every two-hop answer that reads it (independent memorisation)."""


@dataclass(frozen=True)
class Support:
    """What a population shows of names and values: all that its entropies depend on. Counts may be expected ones, not whole."""

    N: int
    R: int
    list_sizes: tuple[int, int, int]
    """First, middle and last names that could be drawn."""
    seen_names: tuple[float, float, float]
    """Distinct ones that were."""
    distinct: tuple[float, ...]
    """Distinct values seen as each subject (S,)."""
    laws: tuple[float, ...]
    """Exact entropy in bits of the law of each attribute (A,)."""
    subjects: tuple[str, ...]
    answers: tuple[int, ...]
    """People with an answer, by subject (S,): N but for relations that some lack."""
    dates: float
    """Equally likely days among which the published selection of dates chooses."""

    @property
    def A(self) -> int:
        return len(self.laws)

    @property
    def S(self) -> int:
        return self.A + self.R

    @classmethod
    def of(cls, people) -> "Support":
        """Of `facts.people.People`."""
        lists = people.lists
        columns = [*people.attributes.T, *people.relations.T]
        present = [column[column >= 0] for column in columns]
        return cls(
            N=people.N,
            R=people.R,
            list_sizes=(len(lists.first), len(lists.middle), len(lists.last)),
            seen_names=tuple(len(np.unique(column)) for column in people.names.T),
            distinct=tuple(len(np.unique(column)) for column in present),
            laws=tuple(float(values.entropy) for values in lists.values),
            subjects=tuple(people.subjects),
            answers=tuple(len(column) for column in present),
            dates=float(np.sum(lists.values[0].weights)),
        )

    @classmethod
    def expected(
        cls,
        N: int,
        R: int,
        list_sizes: tuple[int, int, int] = (SIZES["first"], SIZES["first"], SIZES["last"]),
        values: Sequence[Values] | None = None,
    ) -> "Support":
        """Of N people with R uniform relations, by expected distinct counts. values: by attribute, None for the paper's."""
        if values is None:
            values = (birth_dates(), *(uniform(("",) * SIZES[attribute]) for attribute in ATTRIBUTES[1:]))
        people = expected_distinct(np.ones(N), N)
        return cls(
            N=N,
            R=R,
            list_sizes=list_sizes,
            seen_names=tuple(expected_distinct(np.ones(size), N) for size in list_sizes),
            distinct=(*(expected_distinct(kind.weights, N) for kind in values), *[people] * R),
            laws=tuple(kind.entropy for kind in values),
            subjects=ATTRIBUTES + RELATIONS[:R],
            answers=(N,) * (len(values) + R),
            dates=float(np.sum(values[0].weights)),
        )


def expected_distinct(weights: np.ndarray, draws: int) -> float:
    """Mean number of distinct values in independent draws of a law of weights (V,)."""
    shares = weights / np.sum(weights)
    return float((1 - (1 - shares) ** draws).sum())


def log2_binomial(n: float, k: float) -> float:
    """log2 of n over k, for real 0 <= k <= n; exact to rounding for n far above k, where a difference of lgammas is not."""
    return float(-(betaln(n - k + 1, k + 1) + np.log1p(n)) / np.log(2))


def subject_entropies(support: Support, scheme: str) -> np.ndarray:
    """H_s, bits of one answer for each subject (S,). Raises ValueError for a scheme not in SCHEMES."""
    _known(scheme, SCHEMES, "scheme")
    entropies = np.log2(np.asarray(support.distinct, float))
    if scheme == "independent":
        entropies[support.A :] = np.log2(support.seen_names).sum()
    if scheme == "corrected":
        entropies[: support.A] = support.laws
        entropies[support.A :] = np.log2(support.N)
    return entropies


def selection_bits(support: Support, scheme: str) -> dict[str, float]:
    """Bits of knowing which names and which dates exist: {"names", "dates"}. Raises ValueError for an unknown scheme.

    Of the published ones `optimal` is what the weights provably hold: where the answers to relations are uniform over N known
    names, each name is read out at log2 N bits. The log2 N! more of `enumerate` are a hypothesis about a wasteful store.
    """
    _known(scheme, SCHEMES, "scheme")
    if scheme.startswith("independent"):
        return {"names": 0.0, "dates": 0.0}
    if scheme == "corrected":
        # Dates are paid for by their law: to choose a set and then an index in it is longer for every N of interest
        return {"names": log2_binomial(np.prod(np.asarray(support.list_sizes, float)), support.N), "dates": 0.0}
    names = support.N * np.log2(support.seen_names).sum()
    order = support.N * np.log2(support.N) if scheme == "optimal" else 0.0
    return {"names": float(names - order), "dates": log2_binomial(support.dates, support.distinct[0])}


def baseline_bits(support: Support, scheme: str) -> float:
    """Content of a model that knows which names exist and nothing else: uniform answers."""
    return sum(selection_bits(support, scheme).values())


def copies_of(support: Support, storage: str, classes: np.ndarray | None = None) -> np.ndarray:
    """Stored copies of answers by subject (S,); classes (N, R, S): class of each two-hop tuple, 0 for training.

    Without classes as published: every tuple counts. With them big_hash counts training tuples, and double one answer a person
    of the subjects asked for in training, plus one bridge per (person, relation) that training goes through.
    Raises ValueError for a storage not in STORAGES.
    """
    _known(storage, STORAGES, "storage")
    answers, relation = np.asarray(support.answers, float), np.arange(support.S) >= support.A
    if storage == "one_hop":
        return answers
    if classes is None:
        return answers * (support.R if storage == "big_hash" else 1 + relation)
    trained = classes == 0
    if storage == "big_hash":
        return trained.sum((0, 1)).astype(float)
    bridges = np.concatenate([np.zeros(support.A), trained.any(2).sum(0)])
    return answers * trained.any((0, 1)) + bridges


def dataset_bits(support: Support, scheme: str, storage: str, copies: np.ndarray | None = None) -> float:
    """H(database) = Sel + sum_s copies_s H_s; copies (S,) in place of the published count of `copies_of`."""
    copies = copies_of(support, storage) if copies is None else np.asarray(copies, float)
    return baseline_bits(support, scheme) + float(copies @ subject_entropies(support, scheme))


def _known(name: str, names: Sequence[str], kind: str) -> None:
    if name not in names:
        raise ValueError(f"found {kind} {name!r}, expected one of {', '.join(names)}")
