"""Fictional people: their names, attributes and relations to each other (Johnston & Belrose, arXiv 2502.03490)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.random import Generator

from capacity_reasoning.facts.lists import ATTRIBUTES, RELATIONS, Lists
from common.config import UserError

Mode = Literal["uniform", "structured", "bipartite_classic"]
A = len(ATTRIBUTES)
NOBODY = -1
"""The person whom a relation names where there is none."""

INVERSE = {
    "parent": "child", "child": "parent", "grandparent": "grandchild", "grandchild": "grandparent",
    "mentor": "protege", "protege": "mentor",
    **{name: name for name in ("best_friend", "worst_enemy", "sibling", "spouse", "cousin", "business_partner", "evil_twin")},
}  # fmt: skip
"""The laws of structured relations: an inverse pair is a permutation without fixed points and its inverse, a relation that is
its own inverse a perfect matching; one that is not here is uniform."""


@dataclass(frozen=True, eq=False)
class People:
    """N people. Subjects of questions are the A = 4 attributes, then the R relations: S = A + R."""

    lists: Lists
    names: np.ndarray
    """Places in the lists of first, middle and last names (N, 3), int32; no two rows alike."""
    attributes: np.ndarray
    """Places in the lists of values (N, A), int32."""
    relations: np.ndarray
    """Persons (N, R), int32; NOBODY where there is none, which only bipartite_classic has."""

    @property
    def N(self) -> int:
        return len(self.names)

    @property
    def R(self) -> int:
        return self.relations.shape[1]

    @property
    def S(self) -> int:
        return A + self.R

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the S subjects, attributes first."""
        return ATTRIBUTES + RELATIONS[: self.R]

    @cached_property
    def answers(self) -> np.ndarray:
        """Attributes and relations side by side (N, S), int32."""
        return np.concatenate([self.attributes, self.relations], axis=1)

    def name(self, person: int) -> str:
        """First, middle and last name."""
        parts = zip((self.lists.first, self.lists.middle, self.lists.last), self.names[person], strict=True)
        return " ".join(texts[place] for texts, place in parts)

    def value(self, person: int, subject: int) -> str:
        """Text of the answer to a question about a person; raises ValueError where the person has no such relation."""
        answer = self.answers[person, subject]
        if answer == NOBODY:
            raise ValueError(f"{self.name(person)} has no {self.subjects[subject]}")
        return self.lists.values[subject].texts[answer] if subject < A else self.name(answer)


def draw(lists: Lists, N: int, R: int, mode: Mode, seed: int) -> People:
    """People with the first R of RELATIONS; a seed gives the same places in lists of the same lengths on every machine.

    uniform: every relation of every person is anyone, oneself too. structured: relations by the laws of INVERSE, where a pair
    that R cuts leaves a permutation without fixed points. bipartite_classic (R = 4): half of the people have a child and no
    parent, half a parent and no child; friends and enemies are perfect matchings.
    Raises UserError for N above the number of full names, R outside 1 to 17, and an N or R that the mode cannot have.
    """
    # Imports torch, which takes longer than all else here: `generate_profiles.py --help` does without
    from common.device import generator

    _check(lists, N, R, mode)
    rng = np.random.default_rng(generator("cpu", seed, "people").initial_seed())
    codes = rng.choice(lists.full_names, N, replace=False)
    names = np.unravel_index(codes, (len(lists.first), len(lists.middle), len(lists.last)))
    attributes = [_weighted(values.weights, N, rng) for values in lists.values]
    relations = LAWS[mode](N, R, rng)
    return People(lists, *(np.stack(columns, axis=1).astype(np.int32) for columns in (names, attributes, relations)))


def _check(lists: Lists, N: int, R: int, mode: Mode) -> None:
    if not 1 <= R <= len(RELATIONS):
        raise UserError(f"found R {R}, expected 1 to {len(RELATIONS)}; mend: --data.R {len(RELATIONS)}")
    if not 1 <= N <= lists.full_names:
        raise UserError(
            f"found N {N} and {lists.full_names} full names, expected N from 1 to as many; mend: --data.N {lists.full_names}, "
            "or more --data.names"
        )
    if mode == "bipartite_classic" and R != 4:
        raise UserError(f"found R {R} in mode bipartite_classic, expected 4; mend: --data.R 4")
    if mode == "structured" and N < 2:
        raise UserError(f"found N {N} in mode structured, expected 2 or more; mend: --data.N 2")
    paired = mode == "bipartite_classic" or mode == "structured" and any(INVERSE.get(r) == r for r in RELATIONS[:R])
    if paired and N % 2:
        raise UserError(f"found odd N {N} in mode {mode}, where people are matched in pairs; mend: --data.N {N + 1}")


def _weighted(weights: np.ndarray, N: int, rng: Generator) -> np.ndarray:
    """N places, each in proportion to its weight; exact, since weights are integers."""
    ends = np.cumsum(weights)
    return np.searchsorted(ends, rng.integers(ends[-1], size=N), side="right")


def derangement(N: int, rng: Generator) -> np.ndarray:
    """A uniform permutation (N,) without fixed points: the first of some permutations, 1 in e of which has none."""
    while True:
        drawn = rng.permutation(N)
        if not (drawn == np.arange(N)).any():
            return drawn


def matching(N: int, rng: Generator) -> np.ndarray:
    """A uniform perfect matching of an even number of people: everyone's partner (N,)."""
    left, right = rng.permutation(N).reshape(2, N // 2)
    partner = np.empty(N, dtype=np.int64)
    partner[left], partner[right] = right, left
    return partner


def _uniform(N: int, R: int, rng: Generator) -> list[np.ndarray]:
    return [rng.integers(N, size=N) for _ in range(R)]


def _structured(N: int, R: int, rng: Generator) -> list[np.ndarray]:
    drawn: dict[str, np.ndarray] = {}
    for relation in RELATIONS[:R]:
        inverse = INVERSE.get(relation)
        if inverse is None:
            drawn[relation] = rng.integers(N, size=N)
        elif inverse == relation:
            drawn[relation] = matching(N, rng)
        elif inverse in drawn:
            drawn[relation] = np.argsort(drawn[inverse])
        else:
            drawn[relation] = derangement(N, rng)
    return list(drawn.values())


def _bipartite_classic(N: int, R: int, rng: Generator) -> list[np.ndarray]:
    parents, children = rng.permutation(N).reshape(2, N // 2)
    parent, child = np.full(N, NOBODY), np.full(N, NOBODY)
    parent[children], child[parents] = parents, children
    return [parent, child, matching(N, rng), matching(N, rng)]


LAWS: dict[str, Callable[[int, int, Generator], list[np.ndarray]]] = {
    "uniform": _uniform,
    "structured": _structured,
    "bipartite_classic": _bipartite_classic,
}
