"""Settings, questions and models small enough for tests that train or ask thousands of them."""

from functools import cache

import torch

from capacity_reasoning.data import Data, Mix, Questions
from capacity_reasoning.facts.lists import lists
from capacity_reasoning.facts.people import draw
from capacity_reasoning.facts.questions import Facts, Pieces
from capacity_reasoning.facts.splits import Splits
from capacity_reasoning.facts.text import Form, corpus, vocabulary
from capacity_reasoning.facts.tokens import train_bpe, words_tokenizer
from capacity_reasoning.model import Model
from capacity_reasoning.optim import Optim
from capacity_reasoning.train import Config, Train

SECTIONS = {"data": Data, "splits": Splits, "mix": Mix, "model": Model, "optim": Optim, "train": Train}
BASE = {
    "seeds": [0, 1], "device": "cpu", "threads": 1, "preset": "smoke",
    "data.N": 40, "data.names": 12, "data.values": 8, "data.template": "compact", "data.tokenizer": "word", "mix.orders": [1],
    "model.d": 16, "model.layers": 1, "model.init": 0.2, "optim.lr": 1e-2, "optim.beta1": 0.95, "optim.warmup": 4,
    "train.steps": 12, "train.batch": 8, "train.save_log": 2, "train.save_linear": 4, "train.log_log": 2,
    "train.log_linear": 5, "train.evaluation": 16,
}  # fmt: skip
FORMS = [
    Form(template, cot, words) for template in ("paper", "compact") for cot in (False, True) for words in (False, True)
]
LISTS = lists(names=30, values=20)


def settings_of(*changes: dict) -> Config:
    """The settings of flags, later ones first, without the parser: it takes longer than a run of this size."""
    groups: dict[str, dict] = {"": {}, **{name: {} for name in SECTIONS}}
    for key, value in {key: value for each in (BASE, *changes) for key, value in each.items()}.items():
        group, _, name = key.rpartition(".")
        groups[group][name] = value
    return Config(**groups.pop(""), **{name: SECTIONS[name](**values) for name, values in groups.items()})


@cache
def tokenizer_of(form: Form, lists=LISTS):
    """A token for every word, or a BPE of as many tokens as split most names and values in two."""
    people = draw(lists, 300, 17, "uniform", 1)
    if form.words:
        return words_tokenizer(vocabulary(lists, people.subjects, form))
    return train_bpe(corpus(people, form, 2000), 500)


@cache
def tables_of(form: Form, N: int = 50, R: int = 17, mode: str = "uniform"):
    """People, and their questions as tables: (people, pieces, facts)."""
    people = draw(LISTS, N, R, mode, 0)
    pieces = Pieces.of(people.lists, people.subjects, form, tokenizer_of(form))
    return people, pieces, Facts.of(people, pieces)


def questions_of(*changes: dict) -> list[Questions]:
    settings = settings_of(*changes)
    return [Questions.of(settings, seed) for seed in settings.seeds]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
