"""Questions as text (paper section 3; the authors' templates), and tokens made of it, as the authors' loader does.

Training takes the tables of `questions`; this is what they must equal, and the side that bench.py compares them with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from capacity_reasoning.facts.lists import Lists
from capacity_reasoning.facts.people import People
from capacity_reasoning.facts.tokens import END


@dataclass(frozen=True)
class Form:
    """How a question is written."""

    template: Literal["paper", "compact"] = "paper"
    """paper: the authors' sentences; compact: the same without small words, so names, relations, subjects and values alone."""
    cot: bool = False
    """Answers of several hops name the people in between first."""
    words: bool = False
    """A token for every name, value and word: what belongs together is joined by _, and spaces separate tokens."""

    def join(self, parts: Sequence[str]) -> str:
        """Pieces of text as one text; with words a space before each."""
        if not self.words:
            return "".join(parts)
        return " ".join(part.strip().replace(" ", "_") for part in parts)


def name_pieces(people: People, person: int) -> list[str]:
    """First, middle and last name, a space before each."""
    lists = (people.lists.first, people.lists.middle, people.lists.last)
    return [f" {names[number]}" for names, number in zip(lists, people.names[person], strict=True)]


def answer_pieces(people: People, person: int, subject: int) -> list[str]:
    """A value, or the three names of a relation."""
    if subject >= 4:
        return name_pieces(people, people.relations[person, subject - 4])
    return [f" {people.value(person, subject)}"]


def subject_words(name: str) -> str:
    """best_friend as it stands in a question."""
    return " " + name.replace("_", " ")


def question(
    form: Form, people: People, person: int, chain: Sequence[int], subject: int
) -> tuple[list[str], list[str]]:
    """Pieces of a question and of its answer.

    chain: relation numbers from the person asked about to the one whose subject is the answer: (), (r,) or (r1, r2).
    """
    words = [subject_words(people.subjects[4 + r]) for r in chain] + [subject_words(people.subjects[subject])]
    asked, answer = name_pieces(people, person), []
    if form.template == "paper":
        asked = [END, " Question: What was", *asked]
        for word in words:
            asked += ["'s", word]
        asked += ["?", " Answer:"]
    else:
        asked += words
    small = {"of": ["'s"], "be": [" is"], "their": [", their"]}
    if form.template == "compact":
        small = {name: [] for name in small}
    at = person
    for number, relation in enumerate(chain):
        bridge = int(people.relations[at, relation])
        if form.cot:
            answer += [*name_pieces(people, at), *small["of"]] if number == 0 else small["their"]
            answer += [words[number], *small["be"], *name_pieces(people, bridge)]
        at = bridge
    if form.cot and chain:
        answer += [*small["their"], words[-1], *small["be"]]
    return asked, answer + answer_pieces(people, at, subject)


def encoded(tokenizer, form: Form, asked: list[str], answer: list[str]) -> tuple[list[int], int]:
    """Token ids of a question with its answer, and the number of those before the answer."""
    ids = tokenizer.encode(form.join([*asked, *answer]), add_special_tokens=False).ids
    return ids, len(tokenizer.encode(form.join(asked), add_special_tokens=False).ids)


def random_question(people: People, tuples: np.ndarray, two_hop: float, draw: np.random.Generator):
    """(person, chain, subject): two hops with that probability, a tuple of `tuples` (flat), else any fact."""
    if draw.random() < two_hop:
        person, rest = divmod(int(tuples[draw.integers(len(tuples))]), people.R * people.S)
        return person, (rest // people.S,), rest % people.S
    while True:
        person, subject = int(draw.integers(people.N)), int(draw.integers(people.S))
        if people.answers[person, subject] >= 0:
            return person, (), subject


def stream(people: People, form: Form, tokenizer, tuples: np.ndarray, two_hop: float, seed: int) -> Iterator[dict]:
    """Endless questions as the authors' loader makes them, one after another: {tokens, asked}."""
    draw = np.random.default_rng(seed)
    while True:
        ids, asked = encoded(tokenizer, form, *question(form, people, *random_question(people, tuples, two_hop, draw)))
        yield {"tokens": ids, "asked": asked}


def streamed(people: People, form: Form, tokenizer, tuples: np.ndarray, two_hop: float, seed: int):
    """`stream` as a `datasets.IterableDataset`."""
    from datasets import IterableDataset

    return IterableDataset.from_generator(lambda: stream(people, form, tokenizer, tuples, two_hop, seed))


def corpus(people: People, form: Form, questions: int, seed: int = 0) -> Iterator[str]:
    """One- and two-hop questions with answers, half each, to train a BPE on."""
    draw, everything = np.random.default_rng(seed), people.N * people.R * people.S
    for number in range(questions):
        if number % 2:
            person, rest = divmod(int(draw.integers(everything)), people.R * people.S)
            chosen = person, (rest // people.S,), rest % people.S
        else:
            chosen = int(draw.integers(people.N)), (), int(draw.integers(people.S))
        asked, answer = question(form, people, *chosen)
        yield form.join([piece for piece in [*asked, *answer] if piece != END])


def vocabulary(lists: Lists, subjects: Sequence[str], form: Form) -> list[str]:
    """Every word that questions about people of these lists can have, for a tokenizer of words."""
    constant = ["Question: What was", "'s", "?", "Answer:", "is", ", their"]
    groups = [constant if form.template == "paper" else [], lists.first, lists.last]
    groups += [values.texts for values in lists.values]
    return [form.join([word]) for group in [*groups, map(subject_words, subjects)] for word in group]
