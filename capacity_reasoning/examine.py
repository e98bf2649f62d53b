"""Losses on questions: the fixed ones that a training run tells of, and all of them, exactly."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from capacity_reasoning.data import Questions, stacked
from capacity_reasoning.facts.questions import IGNORED, KINDS, kinds
from capacity_reasoning.facts.splits import CLASSES
from capacity_reasoning.losses import answer_losses
from common.device import generator
from common.replicas import Replicas

ONE_HOP = "train_onehop"
MODES = (ONE_HOP, *CLASSES)
"""One-hop questions, all of which are trained on, and the classes of two-hop questions."""
ROWS = 4096
"""Questions in one forward pass of a model on a GPU."""
ON_CPU = 192
"""Those on a CPU, where more do not stay in its caches and take half as long again."""


@dataclass(frozen=True)
class Asked:
    """Questions of one mode about the people of one seed."""

    p: Tensor
    """(n,)."""
    chain: Tensor
    """(n, 1) relations, or -1."""
    s: Tensor
    """(n,)."""

    def __len__(self) -> int:
        return len(self.p)

    def part(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Some of them."""
        return self.p[rows], self.chain[rows], self.s[rows]


def ask(questions: Questions, mode: str, most: int | None, seed: int) -> Asked:
    """All questions of a mode, in order, or `most` of them, drawn evenly over subjects as far as there are enough.

    The draw depends on seed and mode alone.
    """
    S, device = questions.facts.S, questions.trained.device
    if mode == ONE_HOP:
        numbers = questions.facts.known.cpu().numpy().astype(np.int64)
    else:
        numbers = np.flatnonzero(questions.classes == CLASSES.index(mode))
    if most is not None and most < len(numbers):
        draw = np.random.default_rng(generator("cpu", seed, f"evaluation/{mode}").initial_seed())
        numbers = stratified(numbers, numbers % S, most, draw)
    chosen = torch.from_numpy(numbers).to(device)
    if mode == ONE_HOP:
        return Asked(chosen // S, torch.full_like(chosen, -1)[:, None], chosen % S)
    return Asked(*questions.split(chosen))


def stratified(numbers: np.ndarray, strata: np.ndarray, most: int, draw: np.random.Generator) -> np.ndarray:
    """`most` of the numbers (n,), sorted, without replacement, from every stratum by its share, rounded at random."""
    order = draw.permutation(len(numbers))
    order = order[np.argsort(strata[order], kind="stable")]
    # Every (n / most)-th of them by stratum: each is met as often as its share says, up to one.
    places = ((np.arange(most) + draw.random()) * len(numbers) / most).astype(np.int64)
    return np.sort(numbers[order[np.minimum(places, len(numbers) - 1)]])


@torch.no_grad()
def losses(
    replicas: Replicas, questions: list[Questions], asked: list[Asked]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Nats of every answer token, some questions at a time: places, (S, b, A), and their KINDS (S, b, A); all seeds as many."""
    most = min(ROWS, ON_CPU) if replicas.flat.device.type == "cpu" else ROWS
    for first in range(0, len(asked[0]), most):
        part = slice(first, min(first + most, len(asked[0])))
        each = [(q, one.part(part)) for q, one in zip(questions, asked, strict=True)]
        rows = stacked([q.write(*one) for q, one in each])
        (nats,) = replicas.each(answer_losses, *rows[:3])
        told = [kinds(q.pieces, q.facts, *one) for q, one in each]
        yield (
            part,
            nats,
            torch.stack([torch.nn.functional.pad(k, (0, nats.shape[2] - k.shape[1]), value=IGNORED) for k in told]),
        )


@dataclass(frozen=True)
class Losses:
    """What a stack of models loses on questions, in nats per question."""

    nats: np.ndarray
    """(n,) of every question, in double."""
    kinds: np.ndarray
    """(n, KINDS) by the kind of token; they add up to it."""
    asked: Asked


def measure(replicas: Replicas, questions: list[Questions], asked: list[Asked]) -> list[Losses]:
    """Losses of every seed's model on its questions; seeds may have different numbers of them."""
    most = max(map(len, asked))
    padded = [Asked(*(grown(part, most) for part in (one.p, one.chain, one.s))) for one in asked]
    sums = torch.zeros(len(asked), most, len(KINDS) + 1, dtype=torch.float64)
    for part, nats, kind in losses(replicas, questions, padded):
        sums[:, part] = sums[:, part].scatter_add(2, kind.cpu() % (len(KINDS) + 1), nats.double().cpu())
    by_kind = sums[..., :-1].numpy()
    return [Losses(rows[: len(one)].sum(1), rows[: len(one)], one) for rows, one in zip(by_kind, asked, strict=True)]


def grown(part: Tensor, length: int) -> Tensor:
    """The part, its first row repeated up to a length."""
    return torch.cat([part, part[:1].expand(length - len(part), *part.shape[1:])])


class Examiner:
    """The fixed questions that every row of metrics.jsonl tells of."""

    def __init__(self, settings, questions: list[Questions], device: torch.device):
        self.questions = questions
        modes = [mode for mode in MODES if mode == ONE_HOP or 2 in settings.mix.orders]
        if 1 not in settings.mix.orders:
            modes.remove(ONE_HOP)
        self.asked = {
            mode: [
                ask(q, mode, settings.train.evaluation, seed) for q, seed in zip(questions, settings.seeds, strict=True)
            ]
            for mode in modes
        }
        self.asked = {mode: asked for mode, asked in self.asked.items() if all(map(len, asked))}

    def look(self, replicas: Replicas) -> list[dict[str, float]]:
        """Per seed the loss of each mode, in nats per question, its standard error <mode>_se, and the weights' RMS."""
        rows = [{"weight_rms": value} for value in replicas.flat.square().mean(1).sqrt().tolist()]
        for mode, asked in self.asked.items():
            for row, found in zip(rows, measure(replicas, self.questions, asked), strict=True):
                row[mode] = float(found.nats.mean())
                row[f"{mode}_se"] = float(found.nats.std() / len(found.nats) ** 0.5)
        return rows
