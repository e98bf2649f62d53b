"""Train transformers on modular addition and watch when they generalise (paper section 2).

    python layernorm_grok/train.py --config layernorm_grok/configs/quick.yaml

One run trains a grid: every seed at every placement of the norms, readout scale, learning rate and weight decay, as replicas of
one stack. Train loss and accuracy are those before a step's update, test loss and accuracy those after it, as in the paper.
"""

import common.process  # noqa: F401

import math
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, Self

import torch
from torch import Tensor
from torch.func import functional_call

from common import checkpoint, config, experiment
from common.config import UserError
from common.device import graphed
from common.limits import Count, Decay, Distinct, Natural, Seed, Share
from common.progress import Progress, stop_signal
from common.run import Run
from layernorm_grok.data import Data
from layernorm_grok.estimators.times import LOSS
from layernorm_grok.grid import AXES, Cell, Grid, Stack, stack_of
from layernorm_grok.losses import accuracy, cross_entropy, effective_rank_penalty, margin, squared_error
from layernorm_grok.model import Model, Transformer, gather


@dataclass
class Train:
    steps: Count = 10_000
    """Full-batch steps."""
    evaluate_every: Count = 10
    """Steps between evaluations (1: every step is logged); before the first of them they are spaced logarithmically."""
    stop_after: Natural = 0
    """A replica stops this many evaluations after T_gen; 0: never."""
    level: Share = 0.99
    """Test accuracy that counts as generalised, if `in_a_row` evaluations in a row reach it."""
    in_a_row: Count = 3
    """How many evaluations in a row; T_gen is the first of them."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW as in PyTorch, or plain gradient descent; both with decoupled decay of all parameters."""
    beta1: Decay = 0.9
    """AdamW's decay of the first moment."""
    beta2: Decay = 0.98
    """AdamW's decay of the second moment."""
    eps: Share = 1e-8
    """AdamW's epsilon."""
    decay_norms: bool = True
    """Whether gains and biases of norms are decayed like all else."""
    loss: Literal["ce", "mse"] = "ce"
    """Cross-entropy in its exact margin form, or half the squared distance to the one-hot target."""
    subtract_init: bool = False
    """Train and test alpha (logits - logits at the start)."""
    readout: Literal["scale", "temperature"] = "scale"
    """How alpha enters: as a factor of the logits, or as softmax temperature 1/alpha, which changes the logged margin alone."""
    er_start: Natural = 1000
    """Step from which grid.er_strength times the effective rank of the train prelogits is part of the loss."""
    save_every: Count = 500
    """Steps between checkpoints; the last step always makes one."""
    save_at: list[Natural] = field(default_factory=list)
    """Further steps to keep; step 0 is always kept."""


@dataclass
class Config(experiment.Training):
    PAPER = "layernorm_grok"

    seeds: Annotated[list[Seed], Distinct(1)] = field(default_factory=lambda: [456, 789, 111, 222, 333])
    """Seeds of the split and of the initial weights; all cells of the grid share them."""
    precision: Literal["fp32", "tf32"] = "fp32"
    """fp32, or tf32 matrix products on a GPU."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    grid: Grid = field(default_factory=Grid)
    train: Train = field(default_factory=Train)

    def memory(self) -> float:
        """Bytes that a run needs at least: weights, gradient and moments of all replicas, and what a step keeps of one."""
        model, P = self.model, self.data.P
        replicas = len(self.seeds) * math.prod(len(getattr(self.grid, axis)) for axis in AXES)
        block = (4 + (3 if model.mlp == "glu" else 2) * model.mlp_ratio) * model.d**2
        weights = 2 * P * model.d + model.layers * block
        kept = (3 * model.layers * (8 + 2 * model.mlp_ratio) * model.d + 3 * P) * self.data.train_size
        return 4 * (5 * weights * replicas + kept) + 16 * P**2 * replicas

    def __post_init__(self):
        dead = self.model.act == "relu" and self.model.mlp == "ff"
        if self.train.eps == 0 and self.train.optimizer == "adamw" and dead:
            raise ValueError(
                "train.eps is 0 with model.act relu, whose dead units have gradients of exactly 0, and 0/0 has no value; "
                "expected --train.eps 1e-8 or --model.act gelu"
            )


def objective(
    settings: Config, targets: Tensor, model, rows: Tensor, choice, alpha, offset, er_strength=None
) -> tuple[Tensor, ...]:
    """Trained loss, loss (nats), accuracy and alpha times the logits of one replica on pairs rows (N,).

    Results are (), (), () and (N, P + 1). targets: (P^2,). alpha and er_strength: (). offset: (P^2, P + 1), or (0, 0) where
    nothing is subtracted. A stack has a leading axis R everywhere but in targets.
    """
    output = model(rows, choice)
    logits = output.logits
    if settings.train.subtract_init:
        logits = logits - gather(offset, rows)
    scaled = alpha[..., None, None] * logits
    measure = cross_entropy if settings.train.loss == "ce" else squared_error
    loss = measure(scaled, targets[rows]).mean(-1)
    trained = loss if er_strength is None else loss + er_strength * effective_rank_penalty(output.prelogits)
    return trained, loss, accuracy(logits, targets[rows]), scaled


def trained_loss(settings: Config, cell: Cell, model: Transformer, rows: Tensor, start: Transformer | None = None):
    """The objective of a cell on pairs rows (N,) as a function of `model`'s parameters by name, for probes.

    start: the model at step 0, needed where its output is subtracted. The effective-rank term is as after train.er_start.
    """
    targets = settings.data.targets().to(rows.device)
    alpha = torch.tensor(cell.alpha, device=rows.device)
    every = torch.arange(settings.data.P**2, device=rows.device)
    offset = start(every).logits.detach() if settings.train.subtract_init else torch.zeros(0, 0, device=rows.device)

    def loss(params: dict[str, Tensor]) -> Tensor:
        bound = lambda rows, choice: functional_call(model, params, (rows,))  # noqa: E731
        return objective(settings, targets, bound, rows, None, alpha, offset, cell.er_strength or None)[0]

    return loss


def has_rank_term(settings: Config) -> bool:
    """Whether any cell trains on the effective rank; its eigenvalues cannot be part of a CUDA graph."""
    return max(settings.grid.er_strength) > 0


def step(settings: Config, targets: Tensor, stack: Stack) -> Tensor:
    """One step of every replica: forward, backward, optimiser.

    Returns (R, 5), on the device: train loss, train accuracy and norm of all weights, each before the update, norm of the
    gradient, and norm of the update, decay included.
    """
    c, replicas = settings.train, stack.replicas
    now = replicas.steps + 1
    weight_norm = (replicas.flat * stack.used).norm(dim=1)

    def loss(model, rows, choice, alpha, er_strength, offset):
        er_strength = er_strength if has_rank_term(settings) else None
        return objective(settings, targets, model, rows, choice, alpha, offset, er_strength)[:3]

    er_strength = stack.er_strength * (now >= c.er_start)
    gradient, _, value, right = replicas.differentiate(
        loss, stack.train, stack.choice, stack.alpha, er_strength, stack.offset
    )
    if c.optimizer == "adamw":
        moved = replicas.adam(gradient, stack.lr, (c.beta1, c.beta2), c.eps, stack.decay, measure=True)
    else:
        moved = replicas.sgd(gradient, stack.lr, stack.decay, measure=True)
    stack.t_train.copy_(torch.where((stack.t_train == 0) & (value <= LOSS), now.int(), stack.t_train))
    return torch.stack([value, right, weight_norm, gradient.norm(dim=1), moved], 1)


@torch.no_grad()
def test(settings: Config, targets: Tensor, stack: Stack) -> Tensor:
    """Loss, accuracy and mean top-two margin of every replica on its test pairs (R, 3), on the device."""

    def measures(model, rows, choice, alpha, offset):
        _, value, right, scaled = objective(settings, targets, model, rows, choice, alpha, offset)
        # A softmax temperature leaves the logits that are reported as they are.
        return value, right, margin(scaled) / (alpha if settings.train.readout == "temperature" else 1)

    return torch.stack(stack.replicas.each(measures, stack.test, stack.choice, stack.alpha, stack.offset), 1)


METRICS = (
    "train_loss", "train_accuracy", "weight_norm", "gradient_norm", "update_norm", "test_loss", "test_accuracy", "test_margin"
)  # fmt: skip
"""Columns of `step`, then those of `test`."""

LISTS = ("running", "members", "stopped", "held")
"""What a checkpoint holds of State beside the stack."""


@dataclass
class State:
    """How far every replica of the grid has come, and which of them train on; replicas go by their numbers in the grid."""

    whole: Stack
    """All replicas: as they stopped, or as they were when last taken back from the stack that is trained."""
    labels: list[dict]
    """Per replica the fields that name it in metrics.jsonl."""
    running: list[int]
    """Those that train on."""
    members: list[int]
    """Those in the stack that is trained; on a GPU some of them may have stopped."""
    stopped: list[int]
    """Those that stopped since the last checkpoint of the schedule; the next one is the last that holds their weights."""
    held: list[int]
    """Per replica the evaluations since T_gen, that one included; before T_gen, those in a row at the level."""

    @classmethod
    def start(cls, settings: Config, device: torch.device) -> Self:
        """The state before the first step."""
        whole, labels = stack_of(settings, device)
        return cls(whole, labels, whole.members, whole.members, [], [0] * len(labels))

    def weights(self) -> dict[str, Tensor]:
        """Weights of the replicas that run or stopped lately, name -> (kept, ...), and their numbers under `replicas`."""
        kept = sorted(self.running + self.stopped)
        return self.whole.subset(kept).replicas.weights() | {"replicas": torch.tensor(kept)}

    def save(self) -> dict:
        """What `restore` needs to go on as if never stopped."""
        lists = {key: getattr(self, key) for key in LISTS}
        return {"replicas": self.whole.replicas.state(), "t_train": self.whole.t_train.clone()} | lists

    def restore(self, saved: dict) -> None:
        """Become what was saved."""
        self.whole.replicas.restore(saved["replicas"])
        self.whole.t_train.copy_(saved["t_train"])
        for key in LISTS:
            setattr(self, key, saved[key])

    def evaluated(self, settings: Train, run: Run, now: int, rows: list[list[float]]) -> list[int]:
        """Log and count an evaluation: numbers of the replicas that stop after it, done or diverged.

        rows: METRICS, t_train and alive of every member; those that still run get a line in metrics.jsonl.
        """
        leaving = []
        for number, (*measured, t_train, alive) in zip(self.members, rows, strict=True):
            if number in self.running:
                scalars = dict(zip(METRICS, measured, strict=True)) | {"t_train": int(t_train) or None}
                run.log(now, **self.labels[number], **scalars)
                self.held[number] = held(settings, self.held[number], scalars["test_accuracy"])
                if not alive:
                    print(f"diverged by step {now}, and stopped: {self.labels[number]}", file=sys.stderr)
                if not alive or done(settings, self.held[number]):
                    leaving.append(number)
        return leaving

    def leave(self, stack: Stack, leaving: list[int]) -> None:
        """Stop the replicas `leaving`, as they now are in the stack that is trained."""
        self.whole.absorb(stack, leaving)
        self.stopped = self.stopped + leaving
        self.running = [number for number in self.running if number not in leaving]

    def shrinks(self) -> bool:
        """Whether the stack is better made anew without those that stopped.

        A CUDA graph is recorded anew only when that saves a quarter, a loop over replicas always gets shorter.
        """
        quarter = self.whole.t_train.device.type == "cuda"
        return len(self.running) <= (0.75 * len(self.members) if quarter else len(self.members) - 1)


def held(settings: Train, before: int, test_accuracy: float) -> int:
    """Evaluations since T_gen, the first of `in_a_row` at the level, itself included; before it, those now in a row."""
    return before + 1 if before >= settings.in_a_row or test_accuracy >= settings.level else 0


def done(settings: Train, held: int) -> bool:
    """Whether a replica stops: `stop_after` evaluations after T_gen, and once T_gen is known."""
    return settings.stop_after > 0 and held >= max(settings.in_a_row, settings.stop_after + 1)


def fit(settings: Config, run: Run, device: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step. Raises UserError if every replica diverges."""
    c = settings.train
    targets = settings.data.targets().to(device)
    state = State.start(settings, device)
    checkpoints = experiment.checkpointer(settings, run)
    saves = checkpoint.Schedule(c.save_every, c.steps, c.save_at)
    early = checkpoint.logarithmic(min(c.evaluate_every, c.steps), 10)
    evaluations = checkpoint.Schedule(c.evaluate_every, c.steps, early)

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begin, saved = experiment.resume(run, checkpoints, first=0)
    if saved:
        state.restore(saved)
    else:
        experiment.save(run, checkpoints, 0, state.weights(), state.save())

    stack = None
    bar = Progress(c.steps, initial=begin)
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            if not state.running:
                break
            if stack is None:
                stack = state.whole.subset(state.members)
                learn = partial(step, settings, targets, stack)
                learn = learn if has_rank_term(settings) else graphed(learn, device)
            measured = learn()
            if now in evaluations:
                tested = test(settings, targets, stack)
                rows = torch.cat([measured, tested, stack.t_train[:, None], stack.replicas.alive], 1).tolist()
                state.leave(stack, state.evaluated(c, run, now, rows))
                bar.update(now, running=len(state.running))
            # Asked once: a signal that comes later must not save what has not been taken back.
            scheduled, stopping, shrinks = now in saves or not state.running, bool(stop), state.shrinks()
            if scheduled or stopping or shrinks:
                state.whole.absorb(stack, state.running)
            # Before the checkpoint, so that a resumed run has the same stack from the next step on.
            if shrinks:
                state.members, stack = state.running, None
            if scheduled or stopping:
                # A checkpoint outside the schedule is for resuming alone: those that stopped are in the next one too.
                weights = state.weights()
                state.stopped = [] if scheduled else state.stopped
                experiment.save(run, checkpoints, now, weights, state.save())
            if stopping and now < c.steps:
                raise KeyboardInterrupt
    bar.close()
    if not state.whole.replicas.alive.any():
        raise UserError(f"every replica diverged; lower --grid.lr (now {settings.grid.lr})")


def main(settings: Config) -> None:
    """Train, in the run folder that the settings name."""
    experiment.train(settings, fit)


if __name__ == "__main__":
    config.main(main, Config)
