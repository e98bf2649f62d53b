"""What a run learns: people, their questions, and batches of them made on the device (paper section 3).

questions = [Questions.of(settings, seed, device) for seed in settings.seeds]
batch = Sampler(settings, questions).draw(step, two_hop)
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from capacity_reasoning.facts import text, tokens
from capacity_reasoning.facts.lists import RELATIONS, Lists, lists
from capacity_reasoning.facts.people import People, draw
from capacity_reasoning.facts.questions import IGNORED, Facts, Pieces, Rows, Written, packed, rows, widest, written
from capacity_reasoning.facts.splits import held_out
from capacity_reasoning.facts.store import load
from capacity_reasoning.facts.text import Form
from common.config import UserError
from common.device import generator
from common.limits import Distinct, Natural, Place, Positive, Range, Seed

CHUNK = 16_384
"""Questions of one seed made at a time: enough that their making is not felt beside the steps that see them."""
PER_WINDOW = 34
"""Questions joined into a window of 512 tokens, which is then cut, as the authors do: 512 // 15."""
BPE_QUESTIONS = 200_000
FORMAT = 1
"""Counted up when the same settings give other text to train a tokenizer on."""


@dataclass
class Data:
    """The people, and how questions about them are written."""

    N: Annotated[int, Range(1, 10**7)] = 1000
    """People."""
    R: Annotated[int, Range(1, len(RELATIONS))] = 4
    """Relations: parent, child, best_friend, worst_enemy, ...; the paper has 4 and 17."""
    relations: Literal["uniform", "structured", "bipartite_classic"] = "uniform"
    """uniform: each is anyone. structured: inverse pairs and matchings. bipartite_classic: half are parents, half children."""
    seed: Seed | None = None
    """Of the people; null: every training seed has its own."""
    names: Natural = 0
    """First, middle and last names in use; 0: all 5163, 5163 and 88,799."""
    values: Natural = 0
    """Values of each attribute, all alike; 0: the paper's 67,200 dates, 223 cities, 100 universities and 73 employers."""
    names_dir: Place | None = None
    """A clone of NameDatabases, in place of the package names."""
    lists_dir: Place | None = None
    """A folder with birth_city.txt, university.txt and employer.txt, a value a line."""
    folder: Place | None = None
    """People saved by generate_profiles.py, in place of N, relations and seed."""
    hub_id: Place | None = None
    """The same from the hub, such as EleutherAI/profiles_dataset_10000_uniform."""
    template: Literal["paper", "compact"] = "paper"
    """Whole sentences, or name, relations, subject and answer alone."""
    tokenizer: Literal["bpe", "word"] = "bpe"
    """A byte-level BPE trained on such questions, or a token for every name, value and word."""
    vocabulary: Annotated[int, Range(300, 10**6)] = 3000
    """Tokens of the BPE, fewer where the text has no more."""
    tokenizer_file: Place | None = None
    """A tokenizer.json, or a name on the hub, in place of training one."""
    cot: bool = False
    """Answers of two hops name the person in between first (chain of thought)."""
    packing: Literal["rows", "causal"] = "rows"
    """rows: each question sees itself alone. causal: windows of `context` tokens, each sees those before it, as published."""
    context: Annotated[int, Range(64, 10**5)] = 512
    """Tokens of a window (causal)."""
    backend: Literal["tables", "text"] = "tables"
    """Where batches come from: tokenised pieces on the device, or text through `datasets`, as in the paper (rows only)."""
    cache: Place = "runs/cache/capacity_reasoning"
    """Where trained tokenizers are kept."""

    def __post_init__(self):
        if self.folder is not None and self.hub_id is not None:
            raise ValueError("found data.folder and data.hub_id, expected one of them")
        if self.backend == "text" and self.packing == "causal":
            raise ValueError("data.backend text makes rows; expected --data.packing rows")

    @property
    def form(self) -> Form:
        """How a question is written."""
        return Form(self.template, self.cot, self.tokenizer == "word")


@dataclass
class Mix:
    """Which questions are trained on."""

    orders: Annotated[list[Annotated[int, Range(1, 2)]], Distinct(1)] = field(default_factory=lambda: [1, 2])
    """Hops."""
    hop_ratio: Positive = 0.1
    """One-hop questions for each two-hop one, h."""
    until_onehop: Positive | None = None
    """Curriculum: one hop only until its train loss is below this, in nats per question (the authors: 1.0)."""

    @property
    def two_hop(self) -> float:
        """Share of two-hop questions, 1 / (1 + h)."""
        return {(1,): 0.0, (2,): 1.0}.get(tuple(sorted(self.orders)), 1 / (1 + self.hop_ratio))

    def __post_init__(self):
        if self.until_onehop is not None and set(self.orders) != {1, 2}:
            raise ValueError("mix.until_onehop is for both kinds of questions; expected --mix.orders [1,2]")


@cache
def _lists(names: int, values: int, names_dir: str | None, lists_dir: str | None) -> Lists:
    return lists(names, values, names_dir, lists_dir)


def lists_of(data: Data) -> Lists:
    """The lists that people are drawn from."""
    return _lists(data.names, data.values, data.names_dir, data.lists_dir)


def people_of(data: Data, seed: int) -> People:
    """The people that a training seed learns; raises UserError where a saved set has other sizes than asked for."""
    place = data.folder or data.hub_id
    if place is None:
        return draw(lists_of(data), data.N, data.R, data.relations, seed if data.seed is None else data.seed)
    people = load(place, hub=data.folder is None)
    if (people.N, people.R) != (data.N, data.R):
        raise UserError(
            f"found {people.N} people with {people.R} relations in {place}, expected data.N {data.N} and data.R {data.R}; "
            f"mend: --data.N {people.N} --data.R {people.R}"
        )
    return people


def tokenizer_of(data: Data, people: People):
    """The tokenizer of a run: of a file, trained and kept, or a token for every word."""
    if data.tokenizer_file is not None:
        return tokens.load(data.tokenizer_file)
    if data.tokenizer == "word":
        return tokens.words_tokenizer(text.vocabulary(people.lists, people.subjects, data.form))
    law = {
        "format": FORMAT,
        "names": data.names,
        "values": data.values,
        "names_dir": data.names_dir,
        "lists_dir": data.lists_dir,
    }
    law |= {
        "form": [data.template, data.cot],
        "place": data.folder or data.hub_id,
        "N": people.N if law_of_place(data) else 0,
    }
    number = min(10_000, people.lists.full_names)
    those = people if law_of_place(data) else draw(people.lists, number, len(RELATIONS), "uniform", 0)
    return tokens.cached_bpe(text.corpus(those, data.form, BPE_QUESTIONS), law, data.vocabulary, data.cache)


def law_of_place(data: Data) -> bool:
    """Whether the people come from elsewhere, so that their own text trains the tokenizer."""
    return (data.folder or data.hub_id) is not None


@dataclass(frozen=True)
class Questions:
    """All questions about the people of one seed."""

    people: People
    tokenizer: object
    pieces: Pieces
    facts: Facts
    classes: np.ndarray | None
    """Class of every two-hop question (N, R, S), see facts.splits; None where none is trained on."""
    trained: Tensor
    """Flat numbers (n,) of the two-hop questions that are trained on."""

    @classmethod
    def of(cls, settings, seed: int, device: torch.device | str = "cpu") -> "Questions":
        """The same for the same settings (data, splits, mix) and seed."""
        people = people_of(settings.data, seed)
        tokenizer = tokenizer_of(settings.data, people)
        pieces = Pieces.of(people.lists, people.subjects, settings.data.form, tokenizer, device)
        classes = held_out(people, settings.splits, seed) if 2 in settings.mix.orders else None
        tuples = np.zeros(0) if classes is None else np.flatnonzero(classes == 0)
        trained = torch.from_numpy(tuples.astype(np.int32)).to(device)
        return cls(people, tokenizer, pieces, Facts.of(people, pieces), classes, trained)

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.get_vocab_size()

    def split(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p (n,), chain (n, 1) and s (n,) of flat two-hop numbers."""
        flat = flat.long()
        relations = flat // self.facts.S % self.facts.R
        return flat // (self.facts.R * self.facts.S), relations[:, None], flat % self.facts.S

    def write(self, p: Tensor, chain: Tensor, s: Tensor) -> Rows:
        """The questions as rows."""
        return rows(written(self.pieces, self.facts, p, chain, s))

    def read(self, number: int, two_hop: float, seed: int) -> Written:
        """Random questions as the authors' loader has them: of text, tokenised one by one, in a stream of its own."""
        told = text.streamed(self.people, self.pieces.form, self.tokenizer, self.trained.cpu().numpy(), two_hop, seed)
        return Written.of(list(told.take(number)), self.trained.device)

    def sample(self, number: int, two_hop: float, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """p, chain (n, 1) and s of random questions: of two hops with that probability, any fact otherwise."""
        device = self.trained.device
        fact = self.facts.known[torch.randint(len(self.facts.known), (number,), generator=stream, device=device)].long()
        p, chain, s = fact // self.facts.S, torch.full_like(fact, -1)[:, None], fact % self.facts.S
        if two_hop > 0:
            flat = self.trained[torch.randint(len(self.trained), (number,), generator=stream, device=device)]
            two = torch.rand(number, generator=stream, device=device) < two_hop
            both = zip((two, two[:, None], two), self.split(flat), (p, chain, s), strict=True)
            p, chain, s = (torch.where(*parts) for parts in both)
        return p, chain, s


class Sampler:
    """Batches of every seed: `draw(step, two_hop)` gives Rows (S, B, ...); they depend on seed and step alone."""

    def __init__(self, settings, questions: list[Questions]):
        self.settings, self.questions = settings, questions
        self.batch, self.seeds = settings.train.batch, settings.seeds
        per_row = PER_WINDOW if settings.data.packing == "causal" else 1
        self.steps = max(1, CHUNK // (self.batch * per_row))
        self.made: tuple | None = None
        # A step that is recorded, on a GPU, reads rows of one shape
        hops, on_cpu = max(settings.mix.orders), questions[0].trained.device.type == "cpu"
        widths = [(0, 0) if on_cpu else widest(q.pieces, q.facts, hops) for q in questions]
        self.width = tuple(map(max, zip(*widths, strict=True)))

    def draw(self, step: int, two_hop: list[float]) -> Rows:
        """The batch of a step, counted from 1. two_hop: per seed the share of two-hop questions."""
        number, place = divmod(step - 1, self.steps)
        if self.made is None or self.made[0] != (number, two_hop):
            self.made = (number, list(two_hop)), self._make(number, two_hop)
        chunk = self.made[1]
        mine = slice(place * self.batch, (place + 1) * self.batch)
        return Rows(chunk.tokens[:, mine], chunk.where[:, mine], chunk.targets[:, mine], chunk.questions[:, place])

    def _make(self, number: int, two_hop: list[float]) -> Rows:
        each = [
            self._of(questions, share, generator(questions.trained.device, seed, f"data/{number}"))
            for questions, share, seed in zip(self.questions, two_hop, self.seeds, strict=True)
        ]
        return stacked(each, *self.width)

    def _of(self, questions: Questions, two_hop: float, stream: torch.Generator) -> Rows:
        """A seed's rows of a chunk, (steps B, ...)."""
        count = self.steps * self.batch
        if self.settings.data.packing == "rows":
            if self.settings.data.backend == "text":
                each = rows(questions.read(count, two_hop, stream.initial_seed()))
            else:
                each = questions.write(*questions.sample(count, two_hop, stream))
            return each._replace(questions=torch.full((self.steps,), float(self.batch), device=each.tokens.device))
        drawn = questions.sample(count * PER_WINDOW, two_hop, stream)
        return packed(
            written(questions.pieces, questions.facts, *drawn), self.settings.data.context, PER_WINDOW, self.steps
        )


def stacked(each: list[Rows], T: int = 0, A: int = 0) -> Rows:
    """Rows of several seeds as one stack (S, B, ...), padded to the longest, at least to T tokens and A asked ones."""
    T, A = max(T, *(one.tokens.shape[1] for one in each)), max(A, *(one.where.shape[1] for one in each))

    def grown(x: Tensor, width: int, value: int) -> Tensor:
        return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=value)

    return Rows(
        torch.stack([grown(one.tokens, T, 0) for one in each]),
        torch.stack([grown(one.where, A, 0) for one in each]),
        torch.stack([grown(one.targets, A, IGNORED) for one in each]),
        torch.stack([one.questions for one in each]),
    )
