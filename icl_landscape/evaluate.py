"""Read a run back: its curves, its models at any checkpoint as one stack, and fixed sequences to test them on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from common import experiment
from common.config import UserError
from common.limits import Distinct, Natural, Place, Range
from common.replicas import Replicas, pick
from icl_landscape.regression.data import TRUE, Batch, Data, Tasks, evaluation_batch, pretraining_tasks
from icl_landscape.regression.model import Transformer
from icl_landscape.train import Config, build


class Trained(experiment.Trained):
    """A run with its configuration, ready to be analysed."""

    CONFIG = Config

    @property
    def data(self) -> Data:
        return self.config.data

    @property
    def trivial(self) -> float:
        """Loss D + sigma^2 of the prediction 0, for tasks and inputs of the true law."""
        return self.data.D + self.data.sigma2

    def curves(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (T,) and a metric per seed (S, T), NaN after a seed diverged."""
        table = self.metrics.pivot(index="step", columns="seed", values=key).reindex(columns=self.seeds)
        return table.index.to_numpy(), table.to_numpy(dtype=float).T

    def model(self, seed: int, step: int) -> Transformer:
        """A seed's model at a checkpoint, in evaluation mode, without gradients.

        Raises UserError for a seed that the run has not, or a step without a checkpoint.
        """
        if seed not in self.seeds:
            raise UserError(f"found no seed {seed} in {self.run.path}, expected one of {self.seeds}")
        model = build(self.config, seed)
        model.load_state_dict(pick(self.checkpoints.weights(step), self.seeds.index(seed)))
        return model.to(self.device).requires_grad_(False).eval()

    def stack(self, steps: Sequence[int]) -> Replicas:
        """The models of all seeds at some checkpoints as one stack of len(steps) x S rows, checkpoint by checkpoint."""
        rows = []
        for step in steps:
            weights = self.checkpoints.weights(step)
            for number in range(len(self.seeds)):
                model = build(self.config, self.seeds[number])
                model.load_state_dict(pick(weights, number))
                rows.append(model)
        return Replicas([row.to(self.device) for row in rows])

    @cached_property
    def tasks(self) -> list[Tasks]:
        """Per seed the law of the tasks that it was trained on."""
        return [pretraining_tasks(self.data, seed, self.device) for seed in self.seeds]

    def sequences(self, number: int, law: str = "pretraining", sigma2: float | None = None) -> Batch:
        """Fixed sequences for all seeds (S, B, ...), the same at every call, with the same inputs and noise for each.

        law: "pretraining", each seed's own law of tasks, or "true", N(0, I_D). sigma2: another variance of the noise.
        """
        data = self.data if sigma2 is None else replace(self.data, sigma2=sigma2)
        laws = self.tasks if law == "pretraining" else [TRUE] * len(self.seeds)
        batches = [evaluation_batch(data, tasks, number, self.device) for tasks in laws]
        return Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))


def repeated(batch: Batch, times: int) -> Batch:
    """Sequences (S, B, ...) for a stack of `times` checkpoints of S seeds: (times S, B, ...), without a copy per checkpoint."""
    return Batch(*(part.expand(times, *part.shape).flatten(0, 1) for part in batch))


@torch.no_grad()
def predict(stack: Replicas, batch: Batch) -> Tensor:
    """Predictions (R, B, K) of every row of a stack on its own sequences (R, B, ...)."""
    return stack.each(lambda model, x, y: (model(x, y),), batch.x, batch.y)[0]


SOFTENED = 10
"""Steps added where checkpoints are spread in equal ratios: nothing happens before the tenth."""


def looked_at(steps: Sequence[int], points: int) -> list[int]:
    """`points` of the steps, or all if there are fewer: the first, the last, and those between them nearest to equal ratios
    of step + SOFTENED; where several of those fall on one step the next ones free are taken."""
    if len(steps) <= points:
        return list(steps)
    there = np.log(np.asarray(steps, dtype=float) + SOFTENED)
    chosen, last = [], -1
    for number, at in enumerate(np.linspace(there[0], there[-1], points)):
        nearest = int(np.abs(there - at).argmin())
        # As many as are still to come must find room behind it.
        last = min(max(nearest, last + 1), len(steps) - (points - number))
        chosen.append(steps[last])
    return chosen


@dataclass
class Analysis(experiment.Analysis):
    """Settings of every experiment of this paper."""

    READS = Trained

    run: Place = "runs/icl_landscape/quick/main"
    """Run folder to analyse."""


@dataclass
class Probe(Analysis):
    """Settings of an experiment that looks at checkpoints of all seeds."""

    points: Annotated[int, Range(2, 10**6)] = 40
    """Checkpoints looked at, the first and the last always, the others in equal ratios of step + 10 as near as there are."""
    at: Annotated[list[Natural], Distinct()] = field(default_factory=list)
    """Steps to look at instead."""

    def steps(self, trained: Trained) -> list[int]:
        """The checkpoints to look at; raises UserError where one of `at` is not there."""
        if missing := sorted(set(self.at) - set(trained.steps)):
            raise UserError(
                f"found no checkpoint of step {missing[0]} in {trained.checkpoints.place}, expected steps of "
                f"{', '.join(map(str, trained.steps))}; give other --at"
            )
        return sorted(self.at) or looked_at(trained.steps, self.points)
