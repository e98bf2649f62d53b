"""Which two-hop questions are held out of training, and why (Johnston & Belrose, arXiv 2502.03490).

A two-hop question is a tuple (p, r, s): the value of subject s of the person q who is p's r. Every tuple is of one class:
that of the first of its held-out parts in the order of CLASSES, else of training. One-hop questions are never held out.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.random import Generator

from capacity_reasoning.facts.people import NOBODY, A, People
from common.config import UserError
from common.device import generator
from common.limits import Range, Seed, Share

CLASSES = (
    "train_twohop", "first_people", "relations", "second_attributes", "person_relation_pairs", "second_people",
    "second_person_attribute_pairs", "complete_two_hop",
)  # fmt: skip
"""By class id. A tuple of several has the first of them after train_twohop; complete_two_hop is a sample of what is left."""
ABSENT = 255
"""In place of a class where p has no r, or q no s."""


@dataclass
class Splits:
    first_people: Share = 0.02
    """Share of the N people p."""
    relations: Share = 0.02
    """Share of the R relations r; at least one, unless 0."""
    second_attributes: Annotated[int, Range(0, 20)] = 1
    """How many of the S subjects s."""
    person_relation_pairs: Share = 0.02
    """Share of the N R pairs (p, r)."""
    second_people: Share = 0.02
    """Share of the N people q."""
    second_person_attribute_pairs: Share = 0.02
    """Pairs (q, s), among all N S, as a share of N A or N S (see count_base)."""
    complete_two_hop: Share = 0.1
    """Tuples of no other held-out class, as a share of N R A or N R S (see count_base)."""
    count_base: Literal["A", "S"] = "A"
    """What the last two count by: the 4 attributes, as the authors' code does, or all subjects."""
    seed: Seed | None = None
    """Of the random sets; null: that of the run."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Random parts that no training question has, as masks."""

    first_people: np.ndarray
    """(N,)."""
    relations: np.ndarray
    """(R,)."""
    second_attributes: np.ndarray
    """(S,)."""
    person_relation_pairs: np.ndarray
    """(N, R)."""
    second_people: np.ndarray
    """(N,)."""
    second_person_attribute_pairs: np.ndarray
    """(N, S)."""


def random_parts(people: People, splits: Splits, seed: int) -> HeldOut:
    """Parts to hold out; each set has a stream of its own, so that its share moves no other."""
    N, R, S = people.N, people.R, people.S
    shapes = {
        "first_people": ((N,), splits.first_people * N),
        "relations": ((R,), max(1, splits.relations * R) if splits.relations else 0),
        "second_attributes": ((S,), splits.second_attributes),
        "person_relation_pairs": ((N, R), splits.person_relation_pairs * N * R),
        "second_people": ((N,), splits.second_people * N),
        "second_person_attribute_pairs": ((N, S), splits.second_person_attribute_pairs * N * _base(splits, S)),
    }
    return HeldOut(**{
        name: _some(shape, round(count), _stream(splits, seed, name)) for name, (shape, count) in shapes.items()
    })  # fmt: skip


def held_out(people: People, splits: Splits, seed: int) -> np.ndarray:
    """Class ids (N, R, S), uint8, of all tuples; ABSENT where there is no such question.

    seed: the run's, where splits.seed is null. Raises UserError where no tuple is left for training.
    """
    parts, bridge = random_parts(people, splits, seed), people.relations
    classes = np.zeros((people.N, people.R, people.S), dtype=np.uint8)
    # Of several classes the first counts, so that it is written last; where there is nobody, the last person's is overwritten.
    classes[parts.second_person_attribute_pairs[bridge]] = CLASSES.index("second_person_attribute_pairs")
    classes[parts.second_people[bridge]] = CLASSES.index("second_people")
    classes[parts.person_relation_pairs] = CLASSES.index("person_relation_pairs")
    classes[:, :, parts.second_attributes] = CLASSES.index("second_attributes")
    classes[:, parts.relations] = CLASSES.index("relations")
    classes[parts.first_people] = CLASSES.index("first_people")
    if (bridge == NOBODY).any():
        classes[(people.answers == NOBODY)[bridge]] = ABSENT
        classes[bridge == NOBODY] = ABSENT
    rest = np.flatnonzero(classes == 0)
    count = round(splits.complete_two_hop * people.N * people.R * _base(splits, people.S))
    if count >= len(rest):
        raise UserError(
            f"found {len(rest)} two-hop questions with no part held out, expected more than the {count} of "
            "complete_two_hop: none is left for training; mend: --splits.relations 0, or smaller shares"
        )
    chosen = _stream(splits, seed, "complete_two_hop").choice(rest, count, replace=False, shuffle=False)
    classes.reshape(-1)[chosen] = CLASSES.index("complete_two_hop")
    return classes


def _base(splits: Splits, S: int) -> int:
    return A if splits.count_base == "A" else S


def _stream(splits: Splits, seed: int, name: str) -> Generator:
    seed = seed if splits.seed is None else splits.seed
    return np.random.default_rng(generator("cpu", seed, f"splits/{name}").initial_seed())


def _some(shape: tuple[int, ...], count: int, rng: Generator) -> np.ndarray:
    """A mask with `count` places true, or all if there are fewer."""
    mask = np.zeros(shape, dtype=bool)
    mask.reshape(-1)[rng.choice(mask.size, min(count, mask.size), replace=False)] = True
    return mask
