"""In-context linear regression, made on the device (Hoogland et al., arXiv 2402.02364).

A sequence has a task t ~ N(0, I_D), or one of M fixed ones, and K examples x_k ~ N(0, I_D), y_k = t . x_k + N(0, sigma^2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Generator, Tensor

from common.device import generator
from common.limits import Number, Positive, Range


@dataclass
class Data:
    """Law of the sequences that a model is trained on."""

    D: Annotated[int, Range(1, 1000)] = 4
    """Dimension of the inputs x and of the task t."""
    K: Annotated[int, Range(1, 1000)] = 8
    """Examples per sequence; the paper's later runs have 16."""
    sigma2: Positive = 0.125
    """Variance of the noise on y. The ridge predictor has it as its regularisation."""
    M: Annotated[int, Range(1, 10**8)] | None = None
    """Tasks in the fixed set that sequences choose from, drawn once from N(0, I_D); null: each sequence draws a new one."""
    task: list[Number] | None = None
    """The one task of every sequence, D numbers (the singleton distribution); null: tasks as M says."""

    def __post_init__(self):
        if self.task is not None and self.M is not None:
            raise ValueError(f"found data.M {self.M} beside data.task, expected one of them")
        if self.task is not None and len(self.task) != self.D:
            raise ValueError(f"data.task has {len(self.task)} coordinates, expected data.D = {self.D}")


class Batch(NamedTuple):
    """x (..., B, K, D), y (..., B, K), task (..., B, D); a stack of replicas has a leading axis R."""

    x: Tensor
    y: Tensor
    task: Tensor


class Tasks(NamedTuple):
    """A law of tasks: uniform over the rows of `table` (M, D), or N(0, I_D) where it is None (M = infinity)."""

    table: Tensor | None = None

    def choose(self, normal: Tensor, stream: Generator) -> Tensor:
        """Tasks (B, D), from standard normal numbers of that shape and, where there is a table, one draw from `stream`."""
        if self.table is None:
            return normal
        return self.table[torch.randint(len(self.table), (len(normal),), generator=stream, device=normal.device)]


TRUE = Tasks()
"""The law N(0, I_D) behind every task set: what a model of finitely many tasks is to generalise to."""


def pretraining_tasks(data: Data, seed: int, device: torch.device | str = "cpu") -> Tasks:
    """The law of tasks to train on. A set is drawn on the CPU from the stream `tasks`: the same on every device."""
    if data.task is not None:
        return Tasks(torch.tensor([data.task], dtype=torch.float32, device=device))
    if data.M is None:
        return TRUE
    return Tasks(torch.randn(data.M, data.D, generator=generator("cpu", seed, "tasks")).to(device))


def sample(data: Data, tasks: Tasks, batch: int, stream: Generator) -> Batch:
    """B fresh sequences on the stream's device: x (B, K, D), y (B, K), task (B, D)."""
    return Batch(*(part[0] for part in sample_stack(data, [tasks], batch, [stream])))


def sample_stack(data: Data, tasks: Sequence[Tasks], batch: int, streams: Sequence[Generator]) -> Batch:
    """B fresh sequences for each of R replicas, each from its own law and stream, with the bits that `sample` gives it.

    From one state of a stream every law gives the same inputs and noise, so that laws are compared on common ones.
    """
    D, K = data.D, data.K
    normal = torch.empty(len(streams), batch, K * D + K + D, device=streams[0].device)
    for row, stream in zip(normal, streams, strict=True):
        row.normal_(generator=stream)
    x, noise, draws = normal.split([K * D, K, D], -1)
    chosen = [law.choose(row, stream) for law, row, stream in zip(tasks, draws, streams, strict=True)]
    x, task = x.unflatten(-1, (K, D)), torch.stack(chosen)
    return Batch(x, clean(x, task).add_(noise, alpha=math.sqrt(data.sigma2)), task)


def clean(x: Tensor, task: Tensor) -> Tensor:
    """t . x_k without noise: (..., B, K, D), (..., B, D) -> (..., B, K)."""
    # Not a matrix product, which TF32 would round to ten bits
    return (x * task[..., None, :]).sum(-1)


def evaluation_batch(data: Data, tasks: Tasks, batch: int, device: torch.device | str, number: int = 0) -> Batch:
    """Sequences to evaluate on, the same for all training seeds: from the stream `evaluation` of `number`."""
    return sample(data, tasks, batch, generator(device, number, "evaluation"))


def scale_inputs(batch: Batch, g: float) -> Batch:
    """The batch with inputs g x, their y computed anew with the same noise (out-of-distribution inputs, Fig 5)."""
    return Batch(g * batch.x, batch.y + (g - 1) * clean(batch.x, batch.task), batch.task)


def scale_tasks(batch: Batch, g: float) -> Batch:
    """The batch with tasks g t on the same inputs, their y computed anew with the same noise (out-of-distribution tasks)."""
    return Batch(batch.x, batch.y + (g - 1) * clean(batch.x, batch.task), g * batch.task)


def tokens(x: Tensor, y: Tensor) -> Tensor:
    """2K tokens of width D + 1, in turn (0, x_k) and (y_k, 0, ..., 0): (..., K, D), (..., K) -> (..., 2K, D + 1)."""
    made = x.new_zeros(*x.shape[:-1], 2, x.shape[-1] + 1)
    made[..., 0, 1:] = x
    made[..., 1, 0] = y
    return made.flatten(-3, -2)
