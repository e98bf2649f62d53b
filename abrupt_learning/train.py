"""Train BERT or GPT on matrix completion and watch the plateau break (paper sections 3 and G).

    python abrupt_learning/train.py --config abrupt_learning/configs/quick.yaml

One run trains one setting from several seeds at once. Every step draws fresh matrices, so the loss before the update is an
unbiased test loss and nothing needs a second forward pass.
"""

import common.process  # noqa: F401

import math
import sys
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Annotated, Literal, Self

import torch
from torch import Generator, Tensor

from abrupt_learning.data import Batch, Data, clamped, draw_size, sample
from abrupt_learning.gpt import Gpt, accuracy, next_token_losses, sequence
from abrupt_learning.model import GROUPS, Bert, Model, component
from common import checkpoint, config, experiment
from common.config import UserError
from common.device import autocast, generator, graphed
from common.limits import Count, Decay, Distinct, Natural, Place, Rate
from common.progress import Progress, stop_signal
from common.replicas import Replicas, pick
from common.run import Run


@dataclass
class Train:
    """The loop: its optimiser, what is kept and when."""

    steps: Count = 50_000
    """Optimiser steps."""
    batch_size: Count = 256
    """Fresh matrices per step and seed."""
    lr: Rate = 1e-4
    """Adam's learning rate, constant after the warm-up."""
    warmup: Natural = 0
    """Steps of linear warm-up."""
    beta1: Decay = 0.9
    """Adam's decay of the first moment."""
    beta2: Decay = 0.999
    """Adam's decay of the second moment."""
    log_every: Count = 50
    """Steps that a row of metrics.jsonl covers: the mean of L, and ratios of sums over the entries shown and hidden in them."""
    save_every: Count = 1000
    """Steps between checkpoints; the last step always makes one."""
    save_at: list[Natural] = field(default_factory=list)
    """Further steps to keep."""
    evaluate_every: Natural = 0
    """Steps between evaluations on fresh matrices: per size in a mixture, by free-running generation for GPT. 0: never."""
    evaluate_batch: Count = 256
    """Matrices of such an evaluation."""
    components: Annotated[list[Literal[tuple(GROUPS)]], Distinct(1)] = field(default_factory=lambda: ["all"])
    """Parts trained from a fresh start while the rest stays at the final weights of `start_from` (Fig 8), a copy each."""
    start_from: Place | None = None
    """Finished run that gives the frozen weights; needed for components other than all."""

    def __post_init__(self):
        if set(self.components) != {"all"} and not self.start_from:
            raise ValueError(
                "train.components needs a finished run: add --train.start_from runs/abrupt_learning/quick/main"
            )


@dataclass
class Config(experiment.Training):
    """A training run: several seeds of one setting."""

    PAPER = "abrupt_learning"

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)

    def memory(self) -> float:
        """Bytes that a run needs at least: weights, gradient and moments of all replicas, and what a step keeps of one."""
        model, data, c = self.model, self.data, self.train
        d, gpt = model.hidden_size, model.kind == "gpt"
        tokens = c.batch_size * data.cells * (2 if gpt else 1)
        block = (4 + 2 * model.mlp_ratio) * d**2
        weights = (data.vocabulary * (2 if gpt else 1) + max(data.cells, model.positions)) * d + model.n_layer * block
        kept = model.n_layer * ((8 + 2 * model.mlp_ratio) * d + model.n_head * tokens / c.batch_size)
        kept += data.rank + (data.vocabulary if gpt else 0)
        return 4 * (5 * weights * len(self.seeds) * len(c.components) + kept * tokens)

    def __post_init__(self):
        if 0 < self.model.positions < self.data.cells:
            raise ValueError(
                f"model.positions is {self.model.positions}; expected 0, or at least the {self.data.cells} cells of a matrix"
            )


METRICS = {
    "bert": ("loss", "loss_observed", "loss_masked", "mask_value"),
    "gpt": ("loss", "loss_input", "loss_output"),
}


def build(settings: Config, seed: int, device: torch.device, stream: str = "init") -> Bert | Gpt:
    """A freshly initialised model of the configuration; the weights depend on the seed and the stream alone."""
    family = {"bert": Bert, "gpt": Gpt}[settings.model.kind]
    draws = generator("cpu", seed, stream)
    return family(settings.model, settings.data.vocabulary, settings.data.cells, draws).to(device)


def final_weights(settings: Config, seed: int) -> dict[str, Tensor]:
    """Last weights of one seed of the run `train.start_from`.

    Raises UserError if there is no such run, if it lacks the seed, or if its model or vocabulary is another.
    """
    source = Run.open(settings.train.start_from)
    origin = config.load(Config, source.config_path)
    if seed not in origin.seeds:
        raise UserError(f"{source.path} has seeds {origin.seeds}, not {seed}; train with --seeds {origin.seeds}")
    if origin.model != settings.model or origin.data.vocabulary != settings.data.vocabulary:
        raise UserError(
            f"found another model or vocabulary at {source.path}; give its config too: --config {source.config_path}"
        )
    checkpoints = experiment.checkpointer(origin, source)
    return pick(checkpoints.weights(checkpoints.steps()[-1]), origin.seeds.index(seed))


def replicas_of(settings: Config, device: torch.device) -> tuple[Replicas, list[dict]]:
    """The stack to train, and per replica the fields that name it in metrics.jsonl (seed, component)."""
    models, labels, trainable = [], [], []
    for part, seed in product(settings.train.components, settings.seeds):
        fresh = build(settings, seed, device, "init" if part == "all" else "component")
        names = component(fresh, part)
        if part != "all":
            frozen = {k: v for k, v in final_weights(settings, seed).items() if k not in names}
            fresh.load_state_dict(frozen, strict=False)
        models.append(fresh)
        trainable.append(names)
        labels.append({"seed": seed} | ({"component": part} if settings.train.start_from else {}))
    return Replicas(models, trainable if settings.train.start_from else None), labels


@dataclass
class State:
    """All that training changes, R replicas side by side. Its tensors stay in place: a recorded step is replayed on them."""

    replicas: Replicas
    labels: list[dict]
    """Per replica the fields that name it in metrics.jsonl."""
    streams: list[Generator]
    """Per replica the draws of its matrices, on the device."""
    sizes: Generator
    """Draws of a mixture's sizes, on the CPU."""
    window: Tensor
    """Sums and counts (R, metrics, 2) over the steps since the last row of metrics.jsonl."""

    @classmethod
    def start(cls, settings: Config, device: torch.device) -> Self:
        """The state before the first step. Raises UserError where `train.start_from` is no run that fits."""
        replicas, labels = replicas_of(settings, device)
        streams = [generator(device, label["seed"], "data") for label in labels]
        window = torch.zeros(len(replicas), len(METRICS[settings.model.kind]), 2, device=device)
        return cls(replicas, labels, streams, generator("cpu", settings.seeds[0], "shapes"), window)

    def save(self) -> dict:
        """What `restore` needs to go on as if never stopped."""
        generators = [g.get_state() for g in (*self.streams, self.sizes)]
        return {"replicas": self.replicas.state(), "generators": generators, "window": self.window.clone()}

    def restore(self, saved: dict) -> None:
        """Become what was saved; raises UserError for random streams of another kind of device."""
        self.replicas.restore(saved["replicas"])
        for stream, state in zip((*self.streams, self.sizes), saved["generators"], strict=True):
            try:
                stream.set_state(state)
            except RuntimeError:
                raise UserError(
                    f"found random streams of another kind of device than {stream.device}, on which the matrices are drawn; "
                    "resume with the --device it was started with, or start another: --name NEW"
                ) from None
        self.window.copy_(saved["window"])


def bert_losses(output: Tensor, target: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error over all cells (), and from the same forward pass the sums and counts of the metrics (4, 2).

    All inputs are (B, N). L_obs and L_mask are ratios of sums (section 3): (N_obs L_obs + N_mask L_mask) / BN = L. A stack of
    replicas has a leading axis R everywhere.
    """
    cells = (-2, -1)
    error = (output.float() - target).square()
    loss = error.mean(cells)
    with torch.no_grad():
        shown = observed.float()
        hidden = 1 - shown
        parts = ((error, torch.ones_like(shown)), (error, shown), (error, hidden), (output.abs(), hidden))
        sums = [torch.stack([(value * kind).sum(cells), kind.sum(cells)], -1) for value, kind in parts]
    return loss, torch.stack(sums, -2)


def gpt_losses(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Mean next-token cross-entropy in nats over all 2N targets (), and sums and counts of it and of its two halves (3, 2).

    logits: (B, 2N, V), ids: (B, 2N + 1). A stack of replicas has a leading axis R everywhere.
    """
    nats = next_token_losses(logits.float(), ids)
    loss = nats.mean((-2, -1))
    with torch.no_grad():
        parts = (nats, *nats.tensor_split((nats.shape[-1] // 2,), dim=-1))
        sums = [torch.stack([part.sum((-2, -1)), torch.ones_like(part).sum((-2, -1))], -1) for part in parts]
    return loss, torch.stack(sums, -2)


def objective(settings: Config, model, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and sums and counts of the metrics, of one replica or of a stack.

    inputs: the fields of a Batch for BERT, a sequence's ids for GPT.
    """
    with autocast(inputs[0].device, settings.precision):
        output = model(inputs[0])
    return gpt_losses(output, *inputs) if settings.model.kind == "gpt" else bert_losses(output, *inputs[1:])


def step(settings: Config, state: State) -> None:
    """Fresh matrices for every replica, forward, backward, Adam; the metrics stay on the device."""
    c, size = settings.train, draw_size(settings.data, state.sizes)
    batches = [sample(settings.data, c.batch_size, stream, size) for stream in state.streams]
    batch = Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True)))
    inputs = (sequence(batch, settings.data),) if settings.model.kind == "gpt" else batch
    gradient, _, metrics = state.replicas.differentiate(partial(objective, settings), *inputs)
    lr = c.lr * ((state.replicas.steps + 1) / max(c.warmup, 1)).clamp(max=1)
    state.replicas.adam(gradient, lr, (c.beta1, c.beta2))
    state.window.add_(metrics)


@torch.no_grad()
def test(settings: Config, replicas: Replicas) -> list[dict]:
    """Per replica its scores on fixed fresh matrices: greedy generation (GPT), or the error per size of a mixture (Fig 16)."""
    data, number, device, scores = settings.data, settings.train.evaluate_batch, replicas.flat.device, {}
    if settings.model.kind == "gpt":
        batch = sample(data, number, generator(device, 0, "evaluation"))
        model, weights = build(settings, 0, device), replicas.weights()
        rows = []
        for replica in range(len(replicas)):
            model.load_state_dict(pick(weights, replica))
            rows.append(accuracy(model, batch, data))
        return rows
    for m, n in data.sizes:
        batch = sample(data, number, generator(device, 0, f"evaluation {[m, n]}"), [m, n])
        copies = (part.expand(len(replicas), *part.shape) for part in batch)
        scores[f"loss_{m}x{n}"] = replicas.each(partial(objective, settings), *copies)[0].tolist()
    return [dict(zip(scores, row, strict=True)) for row in zip(*scores.values(), strict=True)]


def fit(settings: Config, run: Run, device: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step. Raises UserError if every replica diverges."""
    c = settings.train
    if outside := clamped(settings.data, torch.Generator().manual_seed(0)):
        limit = settings.data.limit
        print(f"{outside:.2%} of entries are beyond data.limit {limit} and clamped to it", file=sys.stderr)
    state = State.start(settings, device)
    checkpoints = experiment.checkpointer(settings, run)
    saves = checkpoint.Schedule(c.save_every, c.steps, c.save_at)

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begin, saved = experiment.resume(run, checkpoints, first=saves.after(0))
    if saved:
        state.restore(saved)

    update = partial(step, settings, state)
    if len(settings.data.sizes) == 1:
        update = graphed(update, device, generators=state.streams)
    bar, lost = Progress(c.steps, initial=begin), []
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            update()
            if now % c.log_every == 0 or now == c.steps:
                # Without a hidden, or a shown, entry in all of these steps there is no mean.
                rows = (state.window[..., 0] / state.window[..., 1]).tolist()
                state.window.zero_()
                for label, row in zip(state.labels, rows, strict=True):
                    run.log(now, **label, **dict(zip(METRICS[settings.model.kind], row, strict=True)))
                bar.update(now, loss=sum(row[0] for row in rows) / len(rows))
                lost = warn_of_divergence(settings, state, rows, now, lost)
            if c.evaluate_every and (now % c.evaluate_every == 0 or now == c.steps):
                for label, row in zip(state.labels, test(settings, state.replicas), strict=True):
                    run.log(now, **label, **row)
            if now in saves or stop:
                experiment.save(run, checkpoints, now, state.replicas.weights(), state.save())
            if stop and now < c.steps:
                raise KeyboardInterrupt
    bar.close()


def warn_of_divergence(
    settings: Config, state: State, rows: list[list[float]], now: int, known: list[dict]
) -> list[dict]:
    """Labels of the replicas whose loss is not finite by now; says so where they are not those known, UserError if all are."""
    stopped = zip(state.labels, rows, state.replicas.alive.flatten().tolist(), strict=True)
    lost = [label for label, row, alive in stopped if not (alive and math.isfinite(row[0]))]
    if len(lost) == len(state.labels):
        raise UserError(f"every seed diverged by step {now}; lower --train.lr (now {settings.train.lr:g})")
    if lost != known:
        print(f"diverged by step {now}, and stopped: {lost}", file=sys.stderr)
    return lost


def main(settings: Config) -> None:
    """Train, in the run folder that the settings name."""
    experiment.train(settings, fit)


if __name__ == "__main__":
    config.main(main, Config)
