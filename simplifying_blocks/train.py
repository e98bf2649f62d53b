"""Train language models of one block on text, a model per seed (He & Hofmann 2024, section 4).

    python simplifying_blocks/train.py --config simplifying_blocks/configs/quick.yaml
    accelerate launch --multi_gpu --num_processes 2 simplifying_blocks/train.py --config simplifying_blocks/configs/quick.yaml

Several processes share each batch and give the curve of one. Only the first of them writes the run folder. The second command
(or torchrun --nproc_per_node 2) serves CPUs too, with --device cpu; `accelerate launch --cpu` would start a single process.
"""

import common.process  # noqa: F401

import math
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from common import checkpoint, config, experiment
from common.config import UserError
from common.device import generator
from common.limits import Amount, Count, Decay, Distinct, Natural, Range, Rate, Seed, Share
from common.progress import Progress, stop_signal
from common.run import Run
from common.team import shared, team_of, train_together
from simplifying_blocks.data import Corpus, Data
from simplifying_blocks.losses import IGNORED
from simplifying_blocks.model import Transformer, parameter_groups
from simplifying_blocks.objective import Examiner, Objective, pair
from simplifying_blocks.prepare import prepare
from simplifying_blocks.recipe import Model


@dataclass
class Train:
    steps: Count = 40_000
    """Optimiser steps."""
    batch: Count = 128
    """Windows of a step, all processes together; they divide it."""
    micro_batch: Natural = 0
    """Most windows in one forward pass of a process; the gradients of several are added up. 0: all at once."""
    context: Annotated[int, Range(2, 10**6)] = 128
    """Tokens T that a window predicts."""
    lr: Rate = 1e-3
    """Largest learning rate."""
    warmup: Share = 0.05
    """Share of the steps in which the rate rises to it."""
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    """How it falls to end_lr: in a line, as half a cosine, or in a line over the last `decay` of the steps (WSD)."""
    decay: Share = 0.2
    """Share of the steps in which WSD falls."""
    end_lr: Amount = 1e-7
    """Rate at the end."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW as in PyTorch, or plain gradient descent with decay added to the gradient."""
    beta1: Decay = 0.9
    """AdamW's decay of the first moment."""
    beta2: Decay = 0.999
    """AdamW's decay of the second moment."""
    eps: Share = 1e-8
    """AdamW's epsilon."""
    weight_decay: Amount = 0.1
    """Of matrices and embeddings; norms, biases and gains have none."""
    decay_embeddings: bool = True
    """Whether embeddings are decayed."""
    vp_lr_ratio: Amount = 1.0
    """Learning rate of trained value and projection matrices over that of all else (Appendix A)."""
    clip: Amount = 1.0
    """Largest norm of the gradient; 0: it is not clipped."""
    mask_share: Annotated[float, Range(0.01, 1)] = 0.25
    """Share of the tokens to predict where model.objective is mlm."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU."""
    log_every: Count = 20
    """Steps between rows with the mean train loss since the last one."""
    evaluate_every: Count = 500
    """Steps between losses on held-out text."""
    evaluate_windows: Count = 1024
    """Held-out windows for that, the same ones each time."""
    final_windows: Count = 8192
    """Held-out windows of files after the last step; then also evaluate_windows of packages that were not trained on."""
    probe_every: Count = 500
    """Steps between diagnostics: gains, attention entropy, correlations."""
    probe_windows: Count = 16
    """Held-out windows for them, the same ones each time."""
    save_every: Count = 10_000
    """Steps between checkpoints; the last step always makes one."""
    save_at: list[Natural] = field(default_factory=list)
    """Further steps to keep."""


@dataclass
class Config(experiment.Training):
    PAPER = "simplifying_blocks"

    seeds: Annotated[list[Seed], Distinct(1)] = field(default_factory=lambda: [0])
    """Seeds of weights and batches, a model each, trained in turn step by step."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """fp32, tf32 matrix products, or bf16 (autocast, that of the logits too; the loss is summed in fp32)."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)

    def memory(self) -> float:
        """Bytes that a run needs at least: weights, gradient and moments of all seeds, and what a step keeps of one."""
        model, c, tokens = self.model, self.train, self.data.megabytes * 1e6 if self.data.source != "hub" else 0.0
        share = -(-c.batch // int(os.environ.get("WORLD_SIZE", 1)))
        rows = min(c.micro_batch or share, share) * c.context
        block = (2 + 2 * model.mlp_ratio) * model.d**2
        weights = (self.data.vocabulary + c.context) * model.d + model.layers * block
        kept = rows * (model.layers * (6 + 2 * model.mlp_ratio) * model.d) + min(rows, 2048) * self.data.vocabulary
        moments = 4 if c.optimizer == "adamw" else 2
        return 4 * moments * weights * len(self.seeds) + (2 if self.precision == "bf16" else 4) * kept + tokens / 4

    def prepare(self) -> None:
        """Prepare the text, unless that is done; raises UserError for what a person can mend, such as no whole window in it."""
        corpus = prepare(self.data)
        for split in corpus.splits:
            corpus.windows(split, self.train.context)


def rate(c: Train, now: int) -> float:
    """Learning rate of step `now`, from 1 to c.steps."""
    warm = min(max(round(c.warmup * c.steps), 1), c.steps)
    if now <= warm:
        return c.lr * now / warm
    left = (c.steps - now + 1) / (c.steps - warm + 1)
    if c.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    if c.schedule == "wsd":
        left = min(1.0, (c.steps - now + 1) / max(c.decay * c.steps, 1))
    end = min(c.end_lr, c.lr)
    return end + (c.lr - end) * left


class Batches:
    """The batches of one seed: `draw(step)` gives inputs and targets (batch, T) of all processes."""

    def __init__(self, settings: Config, corpus: Corpus, seed: int, device: torch.device):
        self.settings, self.corpus, self.seed = settings, corpus, seed
        self.windows = corpus.windows("train", settings.train.context, device, seed)

    def draw(self, now: int) -> tuple[Tensor, Tensor]:
        ids = self.windows.draw(now, self.settings.train.batch)
        return pair(self.settings, self.corpus, ids, f"mask/{self.seed}/{now}")


@dataclass
class Learner:
    """One seed: its model, what of it is differentiated (compiled, spread over processes), its optimiser and its batches."""

    model: Transformer
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Batches


def build(settings: Config, vocabulary: int, seed: int) -> Transformer:
    """A fresh model on the CPU; the weights depend on settings.model and the seed alone."""
    return Transformer(settings.model, vocabulary, settings.train.context, generator("cpu", seed, "init"))


def optimizer_of(c: Train, model: Transformer) -> torch.optim.Optimizer:
    """The optimiser, whose groups keep under `ratio` their learning rate over that of all."""
    groups = parameter_groups(model, 1.0, c.weight_decay, c.decay_embeddings, c.vp_lr_ratio)
    groups = [group | {"ratio": group["lr"]} for group in groups]
    if c.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=1.0)
    return torch.optim.AdamW(groups, lr=1.0, betas=(c.beta1, c.beta2), eps=c.eps, fused=True)


def learner_of(settings: Config, corpus: Corpus, seed: int, device: torch.device, team: Accelerator) -> Learner:
    """A seed before its first step."""
    model = build(settings, corpus.vocabulary, seed).to(device)
    objective = team.prepare(Objective(model, settings.precision))
    if settings.train.compile == "on" or settings.train.compile == "auto" and device.type == "cuda":
        objective = torch.compile(objective)
    return Learner(model, objective, optimizer_of(settings.train, model), Batches(settings, corpus, seed, device))


@dataclass
class State:
    """All that training changes."""

    learners: list[Learner]
    window: Tensor
    """Per seed, sums of loss and gradient norm since the last row of metrics.jsonl (S, 2); of this process's windows."""
    since: int
    """Steps in these sums."""
    digest: str
    """Of the text."""

    @classmethod
    def start(cls, settings: Config, corpus: Corpus, device: torch.device, team: Accelerator) -> Self:
        """The state before the first step."""
        learners = [learner_of(settings, corpus, seed, device, team) for seed in settings.seeds]
        return cls(learners, torch.zeros(len(learners), 2, device=device), 0, corpus.digest)

    def weights(self) -> dict[str, Tensor]:
        """Parameters and fixed bases, name -> (S, ...)."""
        each = [learner.model.state_dict() for learner in self.learners]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    def save(self, team: Accelerator) -> dict:
        """What `restore` needs to go on as if never stopped, with any number of processes."""
        each = [{"model": one.model.state_dict(), "optimizer": one.optimizer.state_dict()} for one in self.learners]
        window = team.reduce(self.window.clone(), "mean")
        return {"learners": each, "window": window, "since": self.since, "digest": self.digest}

    def restore(self, saved: dict) -> None:
        """Become what was saved."""
        for learner, one in zip(self.learners, saved["learners"], strict=True):
            learner.model.load_state_dict(one["model"])
            learner.optimizer.load_state_dict(one["optimizer"])
        self.window.copy_(saved["window"])
        self.since = saved["since"]


def parts(c: Train, team: Accelerator) -> list[slice]:
    """Rows of a batch that this process sees, a micro-batch each."""
    share = c.batch // team.num_processes
    first, size = share * team.process_index, min(c.micro_batch or share, share)
    return [slice(first + k, first + min(k + size, share)) for k in range(0, share, size)]


def step(settings: Config, learner: Learner, team: Accelerator, now: int) -> Tensor:
    """One step of one seed: batch, forward, backward, clip, update; (2,) loss of this process's windows, gradient's norm."""
    c, (inputs, targets) = settings.train, learner.batches.draw(now)
    count, loss = (targets != IGNORED).sum() / team.num_processes, 0.0
    *others, last = parts(c, team)
    for rows in (*others, last):
        with nullcontext() if rows is last else team.no_sync(learner.objective):
            part = learner.objective(inputs[rows], targets[rows], count)
            part.backward()
            loss = loss + part.detach()
    norm = nn.utils.clip_grad_norm_(learner.model.parameters(), c.clip or math.inf)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate(c, now) * group["ratio"]
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    return torch.stack([loss, norm])


def stopping(team: Accelerator, stop, now: int, c: Train) -> bool:
    """Whether to save and leave. Several processes ask each other where they wait for each other anyway."""
    if team.num_processes == 1:
        return bool(stop)
    asked = now % min(c.log_every, 10) == 0 and team.reduce(torch.tensor(float(bool(stop)), device=team.device))
    return bool(asked)


def fit(settings: Config, run: Run | None, device: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step. run: None in all processes but the first.

    Raises UserError where the text is not the one that the run began with, and if every seed diverges.
    """
    c, corpus = settings.train, prepare(settings.data)
    team = team_of(device)
    corpus.require(shared(team, corpus.digest))
    state = State.start(settings, corpus, device, team)
    models = [learner.model for learner in state.learners]

    saves = checkpoint.Schedule(c.save_every, c.steps, c.save_at)

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begun = 0, {}
    if run is not None:
        checkpoints = experiment.checkpointer(settings, run)
        begun = experiment.resume(run, checkpoints, first=saves.after(0))
        examiner = Examiner(settings, corpus, models, device)
    begin, saved = shared(team, begun)
    if saved:
        corpus.require(saved["digest"])
        state.restore(saved)
    elif run is not None:
        tell_epochs(c, corpus)
        run.truncate(-1)
        for seed, model, row in zip(settings.seeds, models, examiner.look(0), strict=True):
            run.log(0, seed=seed, corpus=corpus.digest, parameters=count_parameters(model), **row)

    bar, lost = Progress(c.steps, initial=begin), []
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            for learner, sums in zip(state.learners, state.window, strict=True):
                sums += step(settings, learner, team, now)
            state.since += 1
            if now % c.log_every == 0 or now == c.steps:
                rows = (team.reduce(state.window.clone(), "mean") / state.since).tolist()
                state.window.zero_()
                state.since = 0
                lost = warn_of_divergence(settings, rows, now, lost)
                if run is not None:
                    for seed, (loss, norm) in zip(settings.seeds, rows, strict=True):
                        run.log(now, seed=seed, loss=loss, gradient_norm=norm, lr=rate(c, now))
                    bar.update(now, loss=sum(row[0] for row in rows) / len(rows))
            leave = stopping(team, stop, now, c)
            if run is not None:
                for seed, row in zip(settings.seeds, examiner.look(now), strict=False):
                    run.log(now, seed=seed, **row)
            if now in saves or leave:
                saved = state.save(team)
                if run is not None:
                    experiment.save(run, checkpoints, now, state.weights(), saved)
            if leave and now < c.steps:
                raise KeyboardInterrupt
    bar.close()


def tell_epochs(c: Train, corpus: Corpus) -> None:
    """Say so where training sees its text more than once: the paper's claims are about a single pass."""
    passes = c.steps * c.batch * c.context / corpus.splits["train"]["tokens"]
    if passes > 1:
        print(f"trains on {passes:.1f} times the text there is: more with --data.megabytes", file=sys.stderr)


def count_parameters(model: Transformer) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def warn_of_divergence(settings: Config, rows: list[list[float]], now: int, known: list[int]) -> list[int]:
    """Seeds whose loss is not finite by now; says so where they are not those known, UserError if all are."""
    lost = [seed for seed, row in zip(settings.seeds, rows, strict=True) if not math.isfinite(row[0])]
    if len(lost) == len(settings.seeds):
        raise UserError(f"every seed diverged by step {now}; lower --train.lr (now {settings.train.lr:g})")
    if lost != known:
        print(f"diverged by step {now}: seeds {lost}", file=sys.stderr)
    return lost


def main(settings: Config) -> None:
    """Train, in the run folder that the settings name, with as many processes as there are."""
    train_together(settings, fit)


if __name__ == "__main__":
    config.main(main, Config)
