"""Read a run back: its curves, its models at any checkpoint as a stack, and their losses on any or all questions."""

from dataclasses import dataclass
from functools import cached_property
from zipfile import BadZipFile

import numpy as np
import torch

from capacity_reasoning.data import Questions
from capacity_reasoning.estimators.entropy import Support
from capacity_reasoning.examine import MODES, ONE_HOP, Asked, Losses, ask, measure
from capacity_reasoning.facts.splits import CLASSES
from capacity_reasoning.train import SPLITS, Config, build
from common import experiment
from common.config import UserError
from common.limits import Natural, Place
from common.replicas import Replicas, pick


class Trained(experiment.Trained):
    """A run with its configuration, ready to be analysed."""

    CONFIG = Config

    @cached_property
    def questions(self) -> list[Questions]:
        """Per seed its people and all questions about them.

        Raises UserError where the held-out questions that the run saved are gone, or others than the settings give.
        """
        found = [Questions.of(self.config, seed, self.device) for seed in self.seeds]
        check_splits(self.run.path, found)
        return found

    @cached_property
    def support(self) -> list[Support]:
        """Per seed what the entropies of its people depend on."""
        return [Support.of(questions.people) for questions in self.questions]

    @property
    def N(self) -> int:
        return self.config.data.N

    @property
    def R(self) -> int:
        return self.config.data.R

    @cached_property
    def P(self) -> int:
        """Trained parameters of a model, embedding and readout included."""
        return self.config.model.parameters(self.questions[0].vocabulary)

    @property
    def modes(self) -> list[str]:
        """Kinds of questions that the run knows: one hop, and the classes of two hops where it trains on some."""
        return list(MODES) if 2 in self.config.mix.orders else [ONE_HOP]

    def curves(self, mode: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (T,) and a column of metrics.jsonl per seed (S, T), NaN after a seed diverged."""
        if mode not in self.metrics:
            raise UserError(f"found no {mode} in {self.run.metrics_path}, expected one of {', '.join(self.modes)}")
        table = self.metrics.pivot(index="step", columns="seed", values=mode).reindex(columns=self.seeds)
        return table.index.to_numpy(), table.to_numpy(dtype=float).T

    def stack(self, step: int | None = None) -> Replicas:
        """The models of all seeds at a checkpoint, the last by default; schedule-free's average."""
        weights = self.checkpoints.weights(self.steps[-1] if step is None else step)
        models = []
        for number, (seed, questions) in enumerate(zip(self.seeds, self.questions, strict=True)):
            models.append(build(self.config, questions.vocabulary, seed))
            models[-1].load_state_dict(pick(weights, number))
        return Replicas([model.to(self.device) for model in models])

    def ask(self, mode: str, most: int | None = None) -> list[Asked]:
        """Per seed all questions of a mode, or `most` of them, spread over subjects.

        Raises UserError for a mode that the run has not, and for fewer questions than subjects.
        """
        if most is not None and most < self.R + 4:
            raise UserError(
                f"found questions {most}, expected 0 for all, or at least one for each of {self.R + 4} subjects"
            )
        if mode not in self.modes:
            raise UserError(
                f"found {mode} for {self.run.path}, expected one of {', '.join(self.modes)}; give another --run"
            )
        asked = [ask(q, mode, most, seed) for q, seed in zip(self.questions, self.seeds, strict=True)]
        if not all(map(len, asked)):
            raise UserError(
                f"found no question of {mode} in {self.run.path}, expected some; see --splits.{mode} of train.py"
            )
        return asked

    def losses(self, mode: str, most: int | None = None, step: int | None = None) -> list[Losses]:
        """Per seed what its model at a checkpoint loses on the questions of a mode: all, or `most` of them."""
        return measure(self.stack(step), self.questions, self.ask(mode, most))


def check_splits(folder, found: list[Questions]) -> None:
    """Hold the classes that the settings give against those that the run saved; raises UserError."""
    if found[0].classes is None:
        return
    try:
        with np.load(folder / SPLITS) as saved:
            same = all(np.array_equal(saved[f"classes_{n}"], q.classes) for n, q in enumerate(found))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"found no readable {folder / SPLITS} ({type(error).__name__}), expected the held-out questions of the run; "
            "bring it back, or train anew under another name: --name NEW"
        ) from None
    if not same:
        raise UserError(
            f"found other held-out questions in {folder / SPLITS} than its config gives, expected the same; train anew "
            "under another name: --name NEW"
        )


@dataclass(frozen=True)
class BySubject:
    """Losses of one seed by subject."""

    mean: np.ndarray
    """Nats per question (S,), NaN where there is none."""
    error: np.ndarray
    """Standard errors (S,); 0 where all questions were asked."""
    count: np.ndarray
    """Questions (S,)."""


def by_subject(found: Losses, S: int, exhaustive: bool, nats: np.ndarray | None = None) -> BySubject:
    """Means over the questions of each subject. nats (n,): of part of the answer, in place of the whole."""
    s, nats = found.asked.s.cpu().numpy(), found.nats if nats is None else nats
    count = np.bincount(s, minlength=S)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(s, nats, S) / count
        spread = np.bincount(s, (nats - mean[s]) ** 2, S) / np.maximum(count - 1, 1)
        return BySubject(mean, np.zeros(S) if exhaustive else np.sqrt(spread / count), count)


def uniform_loss(trained: Trained, number: int, s: np.ndarray | None = None) -> np.ndarray:
    """Nats (S,) of a guess among the answers that there are: ln N for relations, the exact entropy for attributes."""
    support = trained.support[number]
    bits = [*support.laws, *[np.log2(support.N)] * support.R]
    each = np.log(2) * np.asarray(bits)
    return each if s is None else each[s]


@dataclass
class Analysis(experiment.Analysis):
    """Settings of every experiment of this paper."""

    READS = Trained

    run: Place = "runs/capacity_reasoning/quick/main"
    """Run folder to analyse."""
    questions: Natural = 0
    """Questions of each kind to ask at most, spread over subjects; 0: all, exactly."""

    @property
    def most(self) -> int | None:
        """The same, None for all."""
        return self.questions or None


def two_hop_modes(trained: Trained) -> list[str]:
    """The classes of two-hop questions of which the run has any; raises UserError for a run without two hops."""
    if trained.questions[0].classes is None:
        raise UserError(
            f"found no two-hop questions in {trained.run.path}, expected a run with mix.orders [1,2]; give another --run"
        )
    return [mode for number, mode in enumerate(CLASSES) if all((q.classes == number).any() for q in trained.questions)]


def grid(steps: list[int], points: int) -> list[int]:
    """`points` of the steps, evenly spaced, the last always."""
    chosen = np.linspace(0, len(steps) - 1, min(points, len(steps))).round().astype(int)
    return [steps[place] for place in sorted(set(chosen.tolist()))]


@torch.no_grad()
def norms(trained: Trained, step: int | None = None) -> list[float]:
    """Norm of all weights per seed."""
    return trained.stack(step).flat.norm(dim=1).tolist()
