"""Questions as tensors, put together on the device from tokenised pieces: no text in a training step.

A question is a row of pieces (constant words, names, subjects, values), each with its tokens in a table. As a tokenizer
splits at spaces and apostrophes first, the pieces' tokens in a row are those of the whole text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain as joined
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from capacity_reasoning.facts.lists import ATTRIBUTES, Lists
from capacity_reasoning.facts.people import People
from capacity_reasoning.facts.text import Form, subject_words
from capacity_reasoning.facts.tokens import END

IGNORED = -1
"""Target where nothing is asked."""
KINDS = ("first", "middle", "last", *ATTRIBUTES, "copied", "bridge_first", "bridge_middle", "bridge_last")
"""What a token of an answer belongs to; copied: words of a chain of thought that the question has, or every answer has."""
COPIED = KINDS.index("copied")
WORDS = (END, " Question: What was", "'s", "?", " Answer:", " is", ", their")
EMPTY = 0
"""The piece without tokens."""


class Rows(NamedTuple):
    """Questions as rows; a stack has a leading axis."""

    tokens: Tensor
    """(B, T), padded on the right."""
    where: Tensor
    """(B, A) positions whose next token is asked."""
    targets: Tensor
    """(B, A) that token, or IGNORED."""
    questions: Tensor
    """(steps,) how many questions the rows of a step ask, in single precision; () for one step."""


@dataclass(frozen=True)
class Pieces:
    """All pieces of text with their tokens, and where each sort of them begins."""

    form: Form
    tokens: Tensor
    """(n, w), padded on the right."""
    lengths: Tensor
    """(n,)."""
    first: int
    last: int
    values: tuple[int, ...]
    """First piece of each attribute's values."""
    subjects: int

    @classmethod
    def of(cls, lists: Lists, subjects: Sequence[str], form: Form, tokenizer, device="cpu") -> "Pieces":
        """Tokenise every piece once."""
        groups = [
            [""],
            WORDS,
            [f" {name}" for name in lists.first],
            [f" {name}" for name in lists.last],
            *([f" {text}" for text in values.texts] for values in lists.values),
            [subject_words(subject) for subject in subjects],
        ]
        texts = [form.join([text]) for group in groups for text in group]
        ids = [text.ids for text in tokenizer.encode_batch(texts, add_special_tokens=False)]
        lengths = torch.tensor([len(row) for row in ids])
        table = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int32)
        table[torch.arange(table.shape[1]) < lengths[:, None]] = torch.tensor(
            [*joined.from_iterable(ids)], dtype=torch.int32
        )
        starts = np.cumsum([0, *map(len, groups)]).tolist()
        return cls(form, table.to(device), lengths.to(device), starts[2], starts[3], tuple(starts[4:8]), starts[8])

    def word(self, text: str) -> int:
        """Piece of one of WORDS."""
        return 1 + WORDS.index(text)


@dataclass(frozen=True)
class Facts:
    """A population as pieces, on a device."""

    names: Tensor
    """(N, 3)."""
    answers: Tensor
    """(N, S, 3) pieces of the answer; EMPTY after a value, and where a person has no such relation."""
    relations: Tensor
    """(N, R) people."""
    known: Tensor
    """(n,) flat numbers p S + s of the facts that there are."""

    @classmethod
    def of(cls, people: People, pieces: Pieces) -> "Facts":
        """The population's tables on the device of `pieces`."""
        offsets = np.array([pieces.first, pieces.first, pieces.last])
        names = people.names + offsets
        values = people.attributes + np.array(pieces.values)
        attributes = np.stack([values, np.full_like(values, EMPTY), np.full_like(values, EMPTY)], -1)
        related = np.where(people.relations[..., None] >= 0, names[people.relations], EMPTY)
        known = np.flatnonzero(people.answers >= 0)
        tables = names, np.concatenate([attributes, related], 1), people.relations, known
        device = pieces.tokens.device
        return cls(*(torch.from_numpy(np.ascontiguousarray(table, dtype=np.int32)).to(device) for table in tables))

    @property
    def S(self) -> int:
        return self.answers.shape[1]

    @property
    def R(self) -> int:
        return self.relations.shape[1]


def asked(pieces: Pieces, facts: Facts, p: Tensor, chain: Tensor, s: Tensor) -> list[Tensor]:
    """Columns of pieces of the questions: people p (n,), relations chain (n, C), -1 where there are fewer, subjects s (n,)."""
    paper, word = pieces.form.template == "paper", pieces.word
    columns = [*facts.names[p].unbind(1)]
    if paper:
        columns = [torch.full_like(columns[0], word(text)) for text in WORDS[:2]] + columns
    for relation in chain.unbind(1):
        there = relation >= 0
        columns += [torch.where(there, word("'s"), EMPTY)] if paper else []
        columns.append(torch.where(there, pieces.subjects + len(ATTRIBUTES) + relation, EMPTY))
    columns += [torch.full_like(s, word("'s"))] if paper else []
    columns.append(pieces.subjects + s)
    return columns + ([torch.full_like(s, word(text)) for text in ("?", " Answer:")] if paper else [])


def followed(facts: Facts, p: Tensor, chain: Tensor) -> list[Tensor]:
    """People (n,) from the one asked about along the chain; where a chain ends, the last one again."""
    people = [p]
    for relation in chain.unbind(1):
        next_one = facts.relations[people[-1], relation.clamp(min=0)].long()
        people.append(torch.where(relation >= 0, next_one, people[-1]))
    return people


Columns = tuple[list[Tensor], list[int | Tensor]]
"""Columns of pieces, and the KINDS of each."""


def thoughts(pieces: Pieces, facts: Facts, people: list[Tensor], chain: Tensor, s: Tensor) -> Columns:
    """The chain of thought: "X's mentor is Y, their employer is", without small words if compact."""
    small = [[pieces.word(text)] for text in ("'s", " is", ", their")]
    of, be, their = small if pieces.form.template == "paper" else ([], [], [])
    columns, kinds = [], []
    for number, relation in enumerate(chain.unbind(1)):
        begin = [*facts.names[people[0]].unbind(1), *of] if number == 0 else their
        told = [*begin, pieces.subjects + len(ATTRIBUTES) + relation, *be]
        names = facts.names[people[number + 1]].unbind(1)
        columns += [torch.where(relation >= 0, piece, EMPTY) for piece in (*told, *names)]
        kinds += [COPIED] * len(told) + [COPIED + 1, COPIED + 2, COPIED + 3]
    told, several = [*their, pieces.subjects + s, *be], (chain >= 0).any(1)
    return columns + [torch.where(several, piece, EMPTY) for piece in told], kinds + [COPIED] * len(told)


def answered(pieces: Pieces, facts: Facts, p: Tensor, chain: Tensor, s: Tensor) -> Columns:
    """The answers to the questions."""
    people = followed(facts, p, chain)
    columns, kinds = thoughts(pieces, facts, people, chain, s) if pieces.form.cot and chain.shape[1] else ([], [])
    value = torch.where(s < len(ATTRIBUTES), KINDS.index(ATTRIBUTES[0]) + s, 0)
    return columns + [*facts.answers[people[-1], s].unbind(1)], [*kinds, value, 1, 2]


def laid(pieces: Pieces, columns: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens (n, T) of pieces (n, K) in a row, and of each piece its first and last place (n, K), and those of its tokens.

    The last is (n, K, w), T where a piece has fewer tokens.
    """
    segments = torch.stack([column.to(torch.int32) for column in columns], 1)
    lengths = pieces.lengths[segments]
    ends = lengths.cumsum(1)
    starts, total = ends - lengths, longest(ends)
    within = torch.arange(pieces.tokens.shape[1], device=segments.device)
    places = torch.where(within < lengths[..., None], starts[..., None] + within, total)
    tokens = torch.zeros(len(segments), total + 1, dtype=torch.int32, device=segments.device)
    tokens.scatter_(1, places.flatten(1), pieces.tokens[segments].flatten(1))
    return tokens[:, :total], starts, ends, places


def longest(ends: Tensor) -> int:
    """Tokens of the longest row."""
    return int(ends[:, -1].max())


def widest(pieces: Pieces, facts: Facts, hops: int) -> tuple[int, int]:
    """(T, A) that no `Rows` of questions of at most so many hops exceed: what a recorded step needs."""
    lengths, paper = pieces.lengths, pieces.form.template == "paper"
    small = {text: int(lengths[pieces.word(text)]) * paper for text in WORDS}
    name = int(lengths[facts.names].amax(0).sum())
    subject = int(lengths[pieces.subjects :].max())
    question = small[END] + small[" Question: What was"] + name + small["?"] + small[" Answer:"]
    question += hops * (small["'s"] + subject)
    answer = int(lengths[facts.answers].sum(-1).max())
    if pieces.form.cot and hops > 1:
        answer += name + small["'s"] + (hops - 1) * (subject + small[" is"] + name + small[", their"])
        answer += subject + small[" is"]
    return question + answer - 1, answer


class Written(NamedTuple):
    """Questions with their answers, each from token 0 on."""

    tokens: Tensor
    """(n, T), padded on the right."""
    asked: Tensor
    """(n,) tokens before the answer."""
    length: Tensor
    """(n,) tokens in all."""

    @classmethod
    def of(cls, questions: Sequence[dict], device: torch.device) -> "Written":
        """Questions of `text.stream`."""
        tokens = [torch.tensor(each["tokens"]) for each in questions]
        asked, length = torch.tensor([each["asked"] for each in questions]), torch.tensor([len(row) for row in tokens])
        return cls(*(part.to(device) for part in (pad_sequence(tokens, batch_first=True), asked, length)))


def written(pieces: Pieces, facts: Facts, p: Tensor, chain: Tensor, s: Tensor) -> Written:
    """Questions p (n,), chain (n, C) relations or -1, s (n,), as tokens."""
    question = asked(pieces, facts, p, chain, s)
    answer, _ = answered(pieces, facts, p, chain, s)
    tokens, starts, ends, _ = laid(pieces, question + answer)
    return Written(tokens.long(), starts[:, len(question)], ends[:, -1])


def rows(each: Written) -> Rows:
    """A row per question. The last token is asked, never shown."""
    count = each.length - each.asked
    within = torch.arange(int(count.max()), device=count.device)
    where = (each.asked[:, None] - 1 + within).clamp(max=each.tokens.shape[1] - 2)
    targets = torch.where(within < count[:, None], each.tokens.gather(1, where + 1), IGNORED)
    return Rows(each.tokens[:, :-1], where, targets, torch.full((), float(len(count)), device=count.device))


def kinds(pieces: Pieces, facts: Facts, p: Tensor, chain: Tensor, s: Tensor) -> Tensor:
    """KINDS (n, A) of the answers' tokens, IGNORED after the last."""
    answer, told = answered(pieces, facts, p, chain, s)
    tokens, _, _, places = laid(pieces, answer)
    kind = torch.stack([torch.as_tensor(k, device=p.device).expand(len(p)) for k in told], 1)
    out = torch.full((len(p), tokens.shape[1] + 1), IGNORED, device=p.device)
    out.scatter_(1, places.flatten(1), kind[..., None].expand(places.shape).flatten(1))
    return out[:, :-1]


def packed(each: Written, context: int, per_window: int, steps: int = 1) -> Rows:
    """`per_window` consecutive questions as a window of `context` tokens, cut there as published: (n / per_window, context).

    A question whose answer is cut is not asked. Every position is read out. steps: the windows are those of so many steps.
    """
    lengths = each.length.unflatten(0, (-1, per_window))
    ends = lengths.cumsum(1)
    within = torch.arange(each.tokens.shape[1], device=lengths.device)
    place = (ends - lengths)[..., None] + within
    place = torch.where((within < lengths[..., None]) & (place <= context), place, context + 1).flatten(1)
    whole = ends <= context + 1
    asks = (within >= each.asked[:, None]).unflatten(0, (-1, per_window)) & whole[..., None]
    windows = torch.zeros(len(place), context + 2, dtype=torch.long, device=lengths.device)
    tokens = windows.scatter(1, place, each.tokens.unflatten(0, (-1, per_window)).flatten(1))[:, : context + 1]
    is_asked = windows.scatter(1, place, asks.flatten(1).long())[:, 1 : context + 1].bool()
    where = torch.arange(context, device=lengths.device).expand(len(place), -1)
    return Rows(
        tokens[:, :-1],
        where,
        torch.where(is_asked, tokens[:, 1:], IGNORED),
        whole.unflatten(0, (steps, -1)).flatten(1).sum(1).float(),
    )
