"""Train in-context regression transformers, all seeds as replicas in one process (Hoogland et al., arXiv 2402.02364).

    python icl_landscape/train.py --config icl_landscape/configs/quick.yaml

Every step sees fresh sequences. A checkpoint of step s has seen s updates, so that step 0 is the untouched start.
"""

import common.process  # noqa: F401

import math
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, Self

import torch
from torch import Generator, Tensor

from common import config, experiment
from common.checkpoint import spread
from common.config import UserError
from common.device import generator, graphed
from common.limits import Amount, Count, Decay, Distinct, Range, Rate, Seed
from common.progress import Progress, stop_signal
from common.replicas import Replicas
from common.run import Run
from icl_landscape.regression.data import Batch, Data, Tasks, evaluation_batch, pretraining_tasks, sample_stack
from icl_landscape.regression.losses import objective
from icl_landscape.regression.model import Model, Transformer


@dataclass
class Train:
    steps: Count = 500_000
    """Updates."""
    batch: Count = 256
    """Fresh sequences a step, for every seed."""
    lr: Rate = 3e-3
    """Largest learning rate."""
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """After the warm-up: linear down to almost 0, half a cosine down to 0, or no change."""
    warmup: Annotated[int, Range(0, 10**9)] | None = None
    """Steps of the linear rise from lr / (warmup - 1) to lr; null: half of all steps, as in the paper."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or plain gradient descent."""
    beta1: Decay = 0.9
    """Adam's decay of the first moment."""
    beta2: Decay = 0.999
    """Adam's decay of the second moment."""
    eps: Rate = 1e-8
    """Adam's epsilon."""
    weight_decay: Amount = 0.0
    """Decoupled decay of all parameters."""
    save_log: Annotated[int, Range(2, 10**5)] = 100
    """Checkpoints in equal ratios from step 1 to the last; those that fall on one step are one."""
    save_linear: Annotated[int, Range(2, 10**5)] = 100
    """Checkpoints in equal distances from step 0 to the last, besides."""
    log_log: Annotated[int, Range(2, 10**5)] = 100
    """Rows of metrics.jsonl in equal ratios."""
    log_linear: Annotated[int, Range(2, 10**5)] = 100
    """Rows of metrics.jsonl in equal distances, besides."""
    evaluation: Count = 1024
    """Fixed sequences, the same for all seeds, on which rows of metrics.jsonl give a loss."""

    @property
    def rise(self) -> int:
        """Steps of the warm-up."""
        return self.steps // 2 if self.warmup is None else self.warmup

    @property
    def save_at(self) -> list[int]:
        """Steps of all checkpoints."""
        return spread(self.steps, self.save_log, self.save_linear)

    @property
    def save_every(self) -> int:
        """The schedule is `save_at` alone."""
        return self.steps

    def __post_init__(self):
        if self.rise >= self.steps and self.warmup:
            raise ValueError(
                f"found train.warmup {self.warmup} of {self.steps} steps, expected fewer: --train.warmup {self.steps // 2}"
            )


@dataclass
class Config(experiment.Training):
    PAPER = "icl_landscape"

    seeds: Annotated[list[Seed], Distinct(1)] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    """Seeds of initial weights, sequences and, where data.M is given, the set of tasks."""
    precision: Literal["fp32", "tf32"] = "fp32"
    """fp32, or tf32 matrix products on a GPU."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)

    def memory(self) -> float:
        """Bytes that a run needs at least: weights, gradient and moments of all seeds, what a step keeps, sets of tasks."""
        m, K = self.model, self.data.K
        weights = m.layers * (4 * m.d**2 + 2 * m.d * m.d_mlp) + 2 * (self.data.D + K + 1) * m.d
        kept = self.train.batch * m.layers * 2 * K * (8 * m.d + m.d_mlp + 2 * m.heads * K)
        tasks = (self.data.M or 0) * self.data.D
        return 4.0 * len(self.seeds) * (4 * weights + kept + tasks)


def learning_rate(c: Train, now: Tensor) -> Tensor:
    """Rate (), in double, of update `now` (1 for the first).

    one_cycle: OneCycleLR with linear annealing and div_factor = final_div_factor = warmup - 1.
    """
    rise, left = c.rise, c.steps - c.rise
    first = c.lr / max(rise - 1, 1)
    up = first + (c.lr - first) * (now - 1) / max(rise - 1, 1)
    past = (now - rise) / left
    if c.schedule == "one_cycle":
        last = first / max(rise - 1, 1) if rise else 0.0
        down = c.lr + (last - c.lr) * past
    else:
        down = c.lr * (0.5 + 0.5 * torch.cos(math.pi * past)) if c.schedule == "cosine" else c.lr + 0 * past
    return torch.where(now <= rise, up, down)


def build(settings: Config, seed: int, device: torch.device | str = "cpu") -> Transformer:
    """A seed's model before its first step; the same on every device."""
    return Transformer(settings.model, settings.data, generator("cpu", seed, "init")).to(device)


@dataclass
class State:
    """All that training changes."""

    replicas: Replicas
    tasks: list[Tasks]
    """Per seed the law of its tasks, fixed from the start."""
    streams: list[Generator]
    """Per seed where its sequences come from."""

    @classmethod
    def start(cls, settings: Config, device: torch.device) -> Self:
        """The state before the first step."""
        seeds = settings.seeds
        return cls(
            Replicas([build(settings, seed, device) for seed in seeds]),
            [pretraining_tasks(settings.data, seed, device) for seed in seeds],
            [generator(device, seed, "data") for seed in seeds],
        )

    def save(self) -> dict:
        """What `restore` needs to go on as if never stopped."""
        return {"replicas": self.replicas.state(), "streams": [stream.get_state() for stream in self.streams]}

    def restore(self, saved: dict) -> None:
        """Become what was saved."""
        self.replicas.restore(saved["replicas"])
        for stream, position in zip(self.streams, saved["streams"], strict=True):
            stream.set_state(position)


def step(settings: Config, state: State) -> Tensor:
    """One update of every seed on fresh sequences: forward, backward, optimiser.

    Returns (S, 4) on the device: loss and its gradient's norm before the update, norm of the weights after it, rate.
    """
    c, replicas = settings.train, state.replicas
    batch = sample_stack(settings.data, state.tasks, c.batch, state.streams)
    gradient, loss, _ = replicas.differentiate(objective, batch.x, batch.y)
    rate = learning_rate(c, replicas.steps + 1)
    if c.optimizer == "adam":
        replicas.adam(gradient, rate, (c.beta1, c.beta2), c.eps, c.weight_decay)
    else:
        replicas.sgd(gradient, rate, c.weight_decay)
    norms = gradient.norm(dim=1), replicas.flat.norm(dim=1)
    return torch.stack([loss, *norms, rate.to(loss).expand_as(loss)], 1)


def test(state: State, batch: Batch) -> Tensor:
    """Loss of every seed on its sequences x (S, B, K, D), y (S, B, K): (S, 1), on the device."""
    with torch.no_grad():
        return state.replicas.each(objective, batch.x, batch.y)[0][:, None]


METRICS = ("loss", "gradient_norm", "weight_norm", "lr", "test_loss")
"""Columns of `step`, then that of `test`."""


def evaluation(settings: Config, tasks: list[Tasks], sequences: int, device: torch.device) -> Batch:
    """Fixed sequences (S, B, ...), with the same inputs and noise for all seeds, each from its own law of tasks."""
    batches = [evaluation_batch(settings.data, law, sequences, device) for law in tasks]
    return Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))


def fit(settings: Config, run: Run, device: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step. Raises UserError if every seed diverges."""
    c = settings.train
    state = State.start(settings, device)
    checkpoints = experiment.checkpointer(settings, run)
    saves, logs = set(c.save_at), set(spread(c.steps, c.log_log, c.log_linear))
    held_out = evaluation(settings, state.tasks, c.evaluation, device)

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begin, saved = experiment.resume(run, checkpoints, first=0)
    if saved:
        state.restore(saved)
    else:
        experiment.save(run, checkpoints, 0, state.replicas.weights(), state.save())

    learn = graphed(partial(step, settings, state), device, state.streams)
    bar, lost = Progress(c.steps, initial=begin), set()
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            measured = learn()
            if now in logs:
                rows = torch.cat([measured, test(state, held_out), state.replicas.alive], 1).tolist()
                for seed, (*numbers, alive) in zip(settings.seeds, rows, strict=True):
                    if alive:
                        run.log(now, seed=seed, **dict(zip(METRICS, numbers, strict=True)))
                    elif seed not in lost:
                        lost.add(seed)
                        print(f"diverged by step {now}, and stopped: seed {seed}", file=sys.stderr)
                if len(lost) == len(settings.seeds):
                    raise UserError(f"every seed diverged; lower --train.lr (now {c.lr})")
                bar.update(now, loss=rows[0][0])
            # Asked once: a signal that comes later must not save what is not a checkpoint of the schedule.
            stopping = bool(stop)
            if now in saves or stopping:
                experiment.save(run, checkpoints, now, state.replicas.weights(), state.save())
            if stopping and now < c.steps:
                raise KeyboardInterrupt
    bar.close()


def main(settings: Config) -> None:
    """Train, in the run folder that the settings name."""
    experiment.train(settings, fit)


if __name__ == "__main__":
    config.main(main, Config)
