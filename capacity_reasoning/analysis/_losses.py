"""Losses of a run's models beside those of a uniform guess, and the content that they stand for, a value per seed."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from capacity_reasoning.capacity import TWO_HOP, of_losses
from capacity_reasoning.estimators.content import Content
from capacity_reasoning.estimators.entropy import STORAGES, copies_of, dataset_bits
from capacity_reasoning.evaluate import Trained, by_subject, uniform_loss
from capacity_reasoning.examine import ONE_HOP, Losses
from capacity_reasoning.facts.questions import COPIED, KINDS

Scheme = Literal["optimal", "enumerate", "independent", "corrected"]
"""Ways to select names, as a setting."""
LEARNT = 0.5
"""Loss over the uniform one, below which the questions of training count as learnt."""


def beside_uniform(trained: Trained, mode: str, found: list[Losses]) -> dict[str, list[float]]:
    """Per seed, in nats per question: loss; uniform, that of a guess among the answers to the same questions.

    With chain of thought an answer has a bridge too, one of N people.
    """
    bridge = np.log(trained.N) if trained.config.data.cot and mode != ONE_HOP else 0.0
    uniform = [uniform_loss(trained, n, one.asked.s.cpu().numpy()).mean() + bridge for n, one in enumerate(found)]
    return {"loss": [float(one.nats.mean()) for one in found], "uniform": [float(value) for value in uniform]}


def value_beside_uniform(trained: Trained, found: list[Losses]) -> dict[str, list[float]]:
    """The same of the final value alone, which with chain of thought stands behind the right bridge."""
    values = [Losses(one.kinds[:, :COPIED].sum(1), one.kinds, one.asked) for one in found]
    return beside_uniform(trained, ONE_HOP, values)


def bridge_beside_uniform(trained: Trained, found: list[Losses]) -> dict[str, list[float]]:
    """The same of the person in between, whom a chain of thought names."""
    nats = [one.kinds[:, COPIED + 1 :].sum(1).mean() for one in found]
    return {"loss": [float(value) for value in nats], "uniform": [float(np.log(trained.N))] * len(found)}


def tell(trained: Trained, mode: str, most: int | None, step: int | None = None) -> dict:
    """Per seed: questions (how many); loss and uniform, and of the final value alone: value {loss, uniform}, and with
    chain of thought bridge {loss, uniform}; by_subject (seeds, S); by_kind -> kind of token. All in nats per question."""
    found = trained.losses(mode, most, step)
    return {
        **{"questions": [len(one.asked) for one in found], **beside_uniform(trained, mode, found)},
        "value": value_beside_uniform(trained, found),
        **({"bridge": bridge_beside_uniform(trained, found)} if trained.config.data.cot and mode != ONE_HOP else {}),
        "by_subject": subject_losses(trained, found),
        "by_kind": kind_losses(found),
    }


def subject_losses(trained: Trained, found: list[Losses]) -> list[list[float | None]]:
    """Nats per question of each subject (seeds, S); None for one that is not asked."""
    means = [by_subject(one, trained.R + 4, True).mean for one in found]
    return [[None if np.isnan(value) else float(value) for value in row] for row in means]


def kind_losses(found: list[Losses]) -> dict[str, list[float]]:
    """Nats per question of each kind of token that any answer has, per seed; they add up to the loss."""
    means = np.stack([one.kinds.mean(0) for one in found])
    there = np.stack([(one.kinds != 0).any(0) for one in found]).any(0)
    return {kind: means[:, place].tolist() for place, kind in enumerate(KINDS) if there[place]}


def over_uniform(cell: dict) -> np.ndarray:
    """Loss over the uniform one, per seed; cell: as `beside_uniform` gives."""
    return np.asarray(cell["loss"]) / np.asarray(cell["uniform"])


def fitted(content: float, dataset: float, constant: float) -> float:
    """Content over the most that a storage allows, min(dataset, constant), all in bits per parameter."""
    return content / min(dataset, constant)


def lag(cell: dict, train: dict) -> list[float | None]:
    """Per seed how much of what training questions gained is lost: (x - x_train) / (1 - x_train), x: loss over uniform.

    0: as good as those; 1: a uniform guess. None where they are not learnt themselves.
    """
    pairs = zip(over_uniform(cell), over_uniform(train), strict=True)
    return [float((x - known) / (1 - known)) if known < LEARNT else None for x, known in pairs]


def needed(trained: Trained, storage: str, scheme: str) -> list[float]:
    """Per seed the bits per parameter of all that the run's two-hop questions ask, under a storage."""
    bits = []
    for support, questions in zip(trained.support, trained.questions, strict=True):
        copies = copies_of(support, storage, questions.classes if scheme == "corrected" else None)
        bits.append(dataset_bits(support, scheme, storage, copies) / trained.P)
    return bits


def contents(
    trained: Trained, found: list[Losses], hops: str, storage: str, scheme: str, most: int | None
) -> list[Content]:
    """Per seed the content under a storage and a selection scheme."""
    each = zip(trained.support, found, trained.questions, strict=True)
    cot = trained.config.data.cot
    return [of_losses(support, one, hops, storage, scheme, q.classes, most, cot) for support, one, q in each]


def stored(trained: Trained, found: list[Losses], hops: str, scheme: str, most: int | None) -> dict[str, dict]:
    """By storage that fits, per seed and in bits per parameter: content, its error, and dataset, all that there is to store."""
    several = hops == TWO_HOP and not trained.config.data.cot
    told = {}
    for storage in STORAGES if several else STORAGES[:1]:
        each = contents(trained, found, hops, storage, scheme, most)
        rows = {
            "content": [c.bits for c in each],
            "error": [c.error for c in each],
            "dataset": [c.dataset for c in each],
        }
        told[storage] = {name: (np.asarray(bits) / trained.P).tolist() for name, bits in rows.items()}
    return told


def capacity_constant(rows: Sequence[dict]) -> list[float | None]:
    """Per seed the mean bits per parameter of saturated one-hop runs, those with 2 bits or more to store per parameter.

    rows: `stored` under one_hop of each run. None without a saturated run.
    """
    content, dataset = (np.asarray([row[name] for row in rows], float) for name in ("content", "dataset"))
    saturated = dataset >= 2
    columns = zip(content.T, saturated.T, strict=True)
    return [float(bits[full].mean()) if full.any() else None for bits, full in columns]
