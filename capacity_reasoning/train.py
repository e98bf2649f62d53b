"""Train small Llamas on questions about made-up people, all seeds in one process (Johnston & Belrose, arXiv 2502.03490).

    python capacity_reasoning/train.py --config capacity_reasoning/configs/quick.yaml
    accelerate launch --multi_gpu --num_processes 2 capacity_reasoning/train.py --config capacity_reasoning/configs/gpu.yaml

Every seed has its own people, initial weights and questions. A checkpoint holds the weights to evaluate: with schedule-free
AdamW the average. Several processes share each batch and give the curve of one; the first of them writes the run folder.
"""

import common.process  # noqa: F401

import io
import math
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Self

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from capacity_reasoning.data import Data, Mix, Questions, Sampler
from capacity_reasoning.examine import Examiner
from capacity_reasoning.facts.questions import Rows
from capacity_reasoning.facts.splits import Splits
from capacity_reasoning.gradient import by_hand, fits
from capacity_reasoning.losses import objective
from capacity_reasoning.model import Llama, Model
from capacity_reasoning.optim import Learner, Optim
from common import config, experiment
from common.checkpoint import spread
from common.config import UserError
from common.device import autocast, generator, graphed
from common.limits import Count, Distinct, Positive, Range, Seed
from common.plain import write_atomic
from common.progress import Progress, stop_signal
from common.replicas import Replicas
from common.run import Run
from common.team import shared, team_of, train_together

SPLITS = "splits.npz"
"""Held-out classes of a run, in its folder: per seed, in order, `classes_<number>` (N, R, S)."""


MOST_STEPS = 10**9
"""As for train.steps."""


@dataclass
class Train:
    steps: Count = 10_000_000
    """Updates."""
    exposures: Positive | None = None
    """In place of steps: how often each fact is asked on average (each two-hop question where only those are)."""
    batch: Count = 512
    """Questions of a step and seed (windows where data.packing is causal), all processes together."""
    save_log: Annotated[int, Range(2, 10**5)] = 10
    """Checkpoints in equal ratios from step 1 to the last; those that fall on one step are one."""
    save_linear: Annotated[int, Range(2, 10**5)] = 100
    """Checkpoints in equal distances from step 0 to the last, besides."""
    log_log: Annotated[int, Range(2, 10**5)] = 20
    """Rows of metrics.jsonl in equal ratios."""
    log_linear: Annotated[int, Range(2, 10**5)] = 100
    """Rows of metrics.jsonl in equal distances, besides."""
    evaluation: Count = 1024
    """Questions of each kind (one hop, every class of two hops) whose loss a row tells, always the same ones; at most all."""

    @property
    def save_at(self) -> list[int]:
        """Steps of all checkpoints."""
        return spread(self.steps, self.save_log, self.save_linear)

    @property
    def save_every(self) -> int:
        """The schedule is `save_at` alone."""
        return self.steps


@dataclass
class Config(experiment.Training):
    PAPER = "capacity_reasoning"

    seeds: Annotated[list[Seed], Distinct(1)] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of people, held-out questions, initial weights and batches."""
    data: Data = field(default_factory=Data)
    splits: Splits = field(default_factory=Splits)
    mix: Mix = field(default_factory=Mix)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)

    def __post_init__(self):
        if self.train.exposures is not None:
            if self.data.packing == "causal":
                raise ValueError("train.exposures counts rows; expected --train.steps where data.packing is causal")
            facts, share = self.data.N * (4 + self.data.R), 1 - self.mix.two_hop
            asked = self.train.exposures * (facts / share if share else facts * self.data.R)
            # Rounded first: 1 - 1 / (1 + h) is not exact
            steps = max(2, math.ceil(round(asked / self.train.batch, 6)))
            if steps > MOST_STEPS:
                raise ValueError(
                    f"train.exposures {self.train.exposures:g} are {steps:.3g} steps, expected at most {MOST_STEPS:.0e}"
                )
            self.train = replace(self.train, steps=steps)
        if self.data.cot and 2 not in self.mix.orders:
            raise ValueError("data.cot changes answers of two hops alone; expected --mix.orders [1,2]")

    def memory(self) -> float:
        """Bytes that a run needs at least: weights with gradient and moments, tables, and what a step keeps of one seed."""
        m, data = self.model, self.data
        S, tokens = 4 + data.R, 8 if data.template == "compact" else 30
        rows = self.train.batch * (data.context if data.packing == "causal" else tokens)
        tuples = 6.0 * data.N * data.R * S if 2 in self.mix.orders else 0.0
        weights = 6 * 4.0 * m.parameters(data.vocabulary if data.tokenizer == "bpe" else 100)
        return len(self.seeds) * (weights + tuples + 12.0 * data.N * S) + 4.0 * rows * m.layers * 20 * m.d

    def prepare(self) -> None:
        """Draw or load the people, hold questions out and train the tokenizer; raises UserError for what cannot be."""
        Questions.of(self, self.seeds[0])


def build(settings: Config, vocabulary: int, seed: int, device: torch.device | str = "cpu") -> Llama:
    """A seed's model before its first step; the same on every device."""
    return Llama(settings.model, vocabulary, generator("cpu", seed, "init")).to(device)


@dataclass
class State:
    """All that training changes."""

    replicas: Replicas
    learner: Learner
    two_hop: list[float]
    """Per seed the share of two-hop questions: 0 while the curriculum keeps them back."""
    rows: Rows | None = None
    """The batch of the step, in place on a GPU."""

    @classmethod
    def start(cls, settings: Config, questions: list[Questions], device: torch.device) -> Self:
        """The state before the first step."""
        models = [
            build(settings, q.vocabulary, seed, device) for seed, q in zip(settings.seeds, questions, strict=True)
        ]
        replicas = Replicas(models)
        share = 0.0 if settings.mix.until_onehop is not None else settings.mix.two_hop
        learner = Learner(settings.optim, settings.model, replicas, settings.train.steps)
        return cls(replicas, learner, [share] * len(models))

    def save(self) -> dict:
        """What `restore` needs to go on as if never stopped."""
        stack = {"flat": self.replicas.flat.clone(), "alive": self.replicas.alive.clone()}
        return {"stack": stack, "learner": self.learner.state(), "two_hop": list(self.two_hop)}

    def restore(self, saved: dict) -> None:
        """Become what was saved."""
        self.replicas.restore(saved["stack"])
        self.learner.restore(saved["learner"])
        self.two_hop = list(saved["two_hop"])

    def weights(self) -> dict[str, Tensor]:
        """Stacked weights to evaluate, name -> (S, ...)."""
        with self.learner.averaged():
            return self.replicas.weights()

    def show(self, rows: Rows) -> None:
        """Make rows those of the step; on a GPU, whose recorded step reads the same memory, copied there."""
        if self.rows is None or not self.replicas.flat.is_cuda:
            self.rows = rows
        else:
            for mine, new in zip(self.rows, rows, strict=True):
                mine.copy_(new)


def differentiate(settings: Config, state: State) -> tuple[Tensor, Tensor]:
    """Gradient (S, P) and loss (S,), in nats per question, of the shown rows."""
    if fits(settings, state.replicas):
        return by_hand(settings.model, state.replicas.leaves, state.rows)
    with autocast(state.replicas.flat.device, settings.precision):
        gradient, loss = state.replicas.differentiate(objective, *state.rows)
    return gradient, loss


def step(settings: Config, state: State, learn, team: Accelerator, now: int) -> Tensor:
    """One update of every seed on the shown rows; (S, 2): loss before it, norm of its gradient. learn: `differentiate`."""
    gradient, loss = learn()
    if team.num_processes > 1:
        gradient, loss = team.reduce(gradient, "mean"), team.reduce(loss, "mean")
    measured = torch.stack([loss, gradient.norm(dim=1)], 1)
    state.learner.update(gradient, now)
    return measured


def share_of(rows: Rows, team: Accelerator) -> Rows:
    """The part of a batch that this process sees: every n-th row; losses stay those of the mean over all."""
    if team.num_processes == 1:
        return rows
    mine = [part[:, team.process_index :: team.num_processes] for part in rows[:3]]
    return Rows(*mine, rows.questions / team.num_processes)


def curriculum(settings: Config, state: State, rows: list[dict]) -> None:
    """Let a seed have its two-hop questions once its one-hop loss is low enough."""
    for number, row in enumerate(rows):
        if settings.mix.until_onehop is not None and row["train_onehop"] < settings.mix.until_onehop:
            state.two_hop[number] = settings.mix.two_hop


def fit(settings: Config, run: Run | None, device: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step. run: None in all processes but the first.

    Raises UserError if every seed diverges.
    """
    c, team = settings.train, team_of(device)
    questions = [Questions.of(settings, seed, device) for seed in settings.seeds]
    state = State.start(settings, questions, device)
    sampler, examiner = Sampler(settings, questions), Examiner(settings, questions, device)
    saves, logs = set(c.save_at), set(spread(c.steps, c.log_log, c.log_linear))

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begun = 0, {}
    if run is not None:
        checkpoints = experiment.checkpointer(settings, run)
        begun = experiment.resume(run, checkpoints, first=0)
    begin, saved = shared(team, begun)
    if saved:
        state.restore(saved)
    elif run is not None:
        tell(settings, questions[0].vocabulary)
        save_splits(run, questions)
        with state.learner.averaged():
            log(run, settings, 0, examiner.look(state.replicas), state.replicas, [])
        experiment.save(run, checkpoints, 0, state.weights(), state.save())

    learn = graphed(partial(differentiate, settings, state), device)
    bar, lost = Progress(c.steps, initial=begin), []
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            state.show(share_of(sampler.draw(now, state.two_hop), team))
            measured = step(settings, state, learn, team, now)
            if now in logs:
                losses = measured.tolist()
                with state.learner.averaged():
                    rows = [
                        {**row, "loss": loss, "gradient_norm": norm}
                        for row, (loss, norm) in zip(examiner.look(state.replicas), losses, strict=True)
                    ]
                    if run is not None:
                        lost = log(run, settings, now, rows, state.replicas, lost)
                        bar.update(now, loss=losses[0][0])
                curriculum(settings, state, rows)
            leave = stopping(team, stop, now)
            if now in saves or leave:
                saved = state.save()
                if run is not None:
                    experiment.save(run, checkpoints, now, state.weights(), saved)
            if leave and now < c.steps:
                raise KeyboardInterrupt
    bar.close()


def stopping(team: Accelerator, stop, now: int) -> bool:
    """Whether to save and leave. Several processes ask each other, every tenth step."""
    if team.num_processes == 1:
        return bool(stop)
    return now % 10 == 0 and bool(team.reduce(torch.tensor(float(bool(stop)), device=team.device)))


def log(run: Run, settings: Config, now: int, rows: list[dict], replicas: Replicas, known: list[int]) -> list[int]:
    """A row per seed that has not diverged; says so of others, and gives them. Raises UserError if all have."""
    alive = replicas.alive[:, 0].tolist()
    lost = [seed for seed, is_alive in zip(settings.seeds, alive, strict=True) if not is_alive]
    if len(lost) == len(settings.seeds):
        raise UserError(f"every seed diverged by step {now}; lower --optim.lr (now {settings.optim.lr:g})")
    if lost != known:
        print(f"diverged by step {now}, and stopped: seeds {lost}", file=sys.stderr)
    for seed, row in zip(settings.seeds, rows, strict=True):
        if seed not in lost:
            run.log(now, seed=seed, **row)
    return lost


def tell(settings: Config, vocabulary: int) -> None:
    """Say how large the model is: the count that bits are divided by."""
    P = settings.model.parameters(vocabulary)
    print(f"P = {P:,} parameters (vocabulary {vocabulary}, d = {settings.model.d}), {settings.train.steps:,} steps")


def save_splits(run: Run, questions: list[Questions]) -> None:
    """Keep the held-out classes of all seeds in the run folder, where any are."""
    if questions[0].classes is not None:
        held = {f"classes_{number}": q.classes for number, q in enumerate(questions)}
        packed = io.BytesIO()
        np.savez_compressed(packed, **held)
        write_atomic(run.path / SPLITS, packed.getvalue())


def main(settings: Config) -> None:
    """Train, in the run folder that the settings name, with as many processes as there are."""
    train_together(settings, fit)


if __name__ == "__main__":
    config.main(main, Config)
