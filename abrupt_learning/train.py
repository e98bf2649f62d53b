"""Train BERT or GPT on matrix completion and watch the plateau break (paper sections 3 and G).

    python abrupt_learning/train.py --config abrupt_learning/configs/quick.yaml

One run trains one setting from several seeds at once. Every step draws fresh matrices, so the loss before the update is an
unbiased test loss and nothing needs a second forward pass.
"""

import math
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from abrupt_learning.data import Batch, Data, clamped, draw_size, sample
from abrupt_learning.gpt import Gpt, accuracy, next_token_losses, sequence
from abrupt_learning.model import GROUPS, Bert, Model, component
from common import checkpoint, config, device
from common.config import UserError
from common.mirror import Wandb, mirror
from common.progress import Progress, stop_signal
from common.replicas import Replicas, pick
from common.run import Run


@dataclass
class Train:
    steps: int = 50_000
    """Optimiser steps."""
    batch_size: int = 256
    """Fresh matrices per step and seed."""
    lr: float = 1e-4
    """Adam's learning rate, constant after the warm-up."""
    warmup: int = 0
    """Steps of linear warm-up."""
    beta1: float = 0.9
    """Adam's decay of the first moment."""
    beta2: float = 0.999
    """Adam's decay of the second moment."""
    log_every: int = 50
    """A row of metrics.jsonl is the mean over this many steps."""
    save_every: int = 1000
    """Steps between checkpoints; the last step always makes one."""
    save_at: list[int] = field(default_factory=list)
    """Further steps to keep."""
    evaluate_every: int = 0
    """Steps between evaluations on fresh matrices: per size in a mixture, by free-running generation for GPT. 0: never."""
    evaluate_batch: int = 256
    """Matrices of such an evaluation."""
    components: list[str] = field(default_factory=lambda: ["all"])
    """Parts trained from a fresh start while the rest stays at the final weights of `start_from` (Fig 8), a copy each."""
    start_from: str | None = None
    """Finished run that gives the frozen weights; needed for components other than all."""

    def __post_init__(self):
        for key in ("steps", "batch_size", "log_every", "save_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"train.{key} is {getattr(self, key)}; expected 1 or more")
        unknown = sorted(set(self.components) - set(GROUPS))
        if unknown:
            raise ValueError(f"train.components has {', '.join(unknown)}; expected some of {', '.join(GROUPS)}")
        if set(self.components) != {"all"} and not self.start_from:
            raise ValueError(
                "train.components needs a finished run: add --train.start_from runs/abrupt_learning/quick/main"
            )


@dataclass
class Config:
    preset: str = "paper"
    """Preset the numbers belong to (quick, gpu, paper, ...)."""
    study: str | None = None
    """Folder of the study; the preset's name by default."""
    name: str | None = None
    """Folder of the run inside the study: main by default, or the id of the W&B run where `wandb agent` starts it."""
    root: str = "runs"
    """Folder of all runs."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds trained side by side; each has its own initial weights and data."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "fp32"
    """fp32, tf32 or bf16 (autocast; the read-out and the loss stay in fp32)."""
    threads: int = 0
    """CPU threads; 0 leaves the machine's own choice."""
    resume: bool = False
    """Go on with a run that was stopped."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    wandb: Wandb = field(default_factory=Wandb)

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; expected at least one, each once, such as [0, 1, 2]")

    @property
    def folder(self) -> Path:
        name = self.name or os.environ.get("WANDB_RUN_ID", "main")
        return Path(self.root) / "abrupt_learning" / (self.study or self.preset) / name


BERT_METRICS = ("loss", "loss_observed", "loss_masked", "mask_value")
GPT_METRICS = ("loss", "loss_input", "loss_output")


def build(settings: Config, seed: int, where: torch.device, stream: str = "init") -> Bert | Gpt:
    """A freshly initialised model of the configuration; the weights depend on the seed and the stream alone."""
    family = Gpt if settings.model.kind == "gpt" else Bert
    generator = device.generator(torch.device("cpu"), seed, stream)
    return family(settings.model, settings.data.vocabulary, settings.data.cells, generator).to(where)


def replicas_of(settings: Config, where: torch.device) -> tuple[Replicas, list[dict]]:
    """The stack to train, and per replica the fields that name it in metrics.jsonl (seed, component)."""
    models, labels, trainable = [], [], []
    for part in settings.train.components:
        for seed in settings.seeds:
            fresh = build(settings, seed, where, "init" if part == "all" else "component")
            names = component(fresh, part)
            if part != "all":
                fresh.load_state_dict(
                    {k: v for k, v in final_weights(settings, seed).items() if k not in names}, strict=False
                )
            models.append(fresh)
            trainable.append(names)
            labels.append({"seed": seed} | ({"component": part} if settings.train.start_from else {}))
    return Replicas(models, trainable if settings.train.start_from else None), labels


def final_weights(settings: Config, seed: int) -> dict[str, Tensor]:
    """Last weights of one seed of the run `train.start_from`."""
    source = Run.open(settings.train.start_from)
    origin = config.load(Config, source.config_path)
    seeds = origin.seeds
    if seed not in seeds:
        raise UserError(f"{source.path} has seeds {seeds}, not {seed}; train with --seeds {seeds}")
    if origin.model != settings.model or origin.data.vocabulary != settings.data.vocabulary:
        raise UserError(
            f"found another model or vocabulary at {source.path}; give its config too: --config {source.config_path}"
        )
    steps = checkpoint.Checkpointer(source.path / "checkpoints")
    return pick(steps.weights(steps.steps()[-1]), seeds.index(seed))


def bert_losses(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean squared error over all cells per replica (R,), and the metrics (R, 4) from the same forward pass.

    L_obs and L_mask are ratios of batch sums (section 3 of the sheet): (N_obs L_obs + N_mask L_mask) / BN = L.
    """
    error = (output.float() - batch.target).square()
    losses = error.mean((1, 2))
    with torch.no_grad():
        shown = batch.observed.float()
        hidden = 1 - shown
        parts = (error * shown, error * hidden, output.abs() * hidden)
        counts = (shown, hidden, hidden)
        means = [p.sum((1, 2)) / n.sum((1, 2)) for p, n in zip(parts, counts, strict=True)]
    return losses, torch.stack([losses.detach(), *means], 1)


def gpt_losses(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Mean next-token cross-entropy in nats over all 2N targets (R,), and with it the means over its two halves (R, 3)."""
    nats = next_token_losses(logits.float(), ids)
    losses = nats.mean((1, 2))
    halves = [half.mean((1, 2)) for half in nats.detach().tensor_split((nats.shape[-1] // 2,), dim=-1)]
    return losses, torch.stack([losses.detach(), *halves], 1)


def fit(settings: Config, run: Run, where: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step."""
    c = settings.train
    gpt = settings.model.kind == "gpt"
    replicas, labels = replicas_of(settings, where)
    streams = [device.generator(where, label["seed"], "data") for label in labels]
    shapes = device.generator(torch.device("cpu"), settings.seeds[0], "shapes")
    names = GPT_METRICS if gpt else BERT_METRICS
    window, count = torch.zeros(len(replicas), len(names), device=where), 0
    saves = sorted({*checkpoint.linear(c.save_every, c.steps), *c.save_at, c.steps})
    keeper = checkpoint.Checkpointer(run.path / "checkpoints")

    def state() -> dict:
        generators = [g.get_state() for g in (*streams, shapes)]
        return {"replicas": replicas.state(), "generators": generators, "window": window.clone(), "count": count}

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begin = 0
    if (found := keeper.latest()) is not None:
        begin, _, saved = found
        replicas.restore(saved["replicas"])
        for generator, generator_state in zip((*streams, shapes), saved["generators"], strict=True):
            generator.set_state(generator_state)
        window.copy_(saved["window"])
        count = saved["count"]
    run.truncate(begin)

    # One step: fresh matrices, forward, backward, Adam; metrics stay on the device
    size = settings.data.sizes[0]

    def step() -> None:
        batches = [sample(settings.data, c.batch_size, stream, size) for stream in streams]
        batch = Batch(*(torch.stack(field) for field in zip(*batches, strict=True)))
        inputs = sequence(batch, settings.data) if gpt else batch.ids
        with device.autocast(where, settings.precision):
            output = replicas.forward(inputs)
        losses, metrics = gpt_losses(output, inputs) if gpt else bert_losses(output, batch)
        lr = c.lr * ((replicas.steps + 1) / max(c.warmup, 1)).clamp(max=1)
        replicas.adam(replicas.gradient(losses), lr, (c.beta1, c.beta2))
        window.add_(metrics)

    update = step if len(settings.data.sizes) > 1 else device.graphed(step, where, generators=streams)

    # The loop
    bar, told = Progress(c.steps, initial=begin), []
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            size = draw_size(settings.data, shapes)
            update()
            count += 1
            if now % c.log_every == 0 or now == c.steps:
                rows = (window / count).tolist()
                for label, row in zip(labels, rows, strict=True):
                    run.log(now, **label, **dict(zip(names, row, strict=True)))
                bar.update(now, loss=sum(r[0] for r in rows) / len(rows))
                stopped = zip(labels, rows, replicas.alive.flatten().tolist(), strict=True)
                lost = [label for label, row, alive in stopped if not (alive and math.isfinite(row[0]))]
                if len(lost) == len(labels):
                    raise UserError(f"every seed diverged by step {now}; lower --train.lr (now {c.lr:g})")
                if lost != told:
                    print(f"diverged by step {now}, and stopped: {lost}", file=sys.stderr)
                    told = lost
                window.zero_()
                count = 0
            if c.evaluate_every and (now % c.evaluate_every == 0 or now == c.steps):
                evaluate = generation_rows if gpt else size_rows
                for label, row in zip(labels, evaluate(settings, replicas, where), strict=True):
                    run.log(now, **label, **row)
            if now in saves or stop:
                keeper.save(now, replicas.weights(), state())
            if stop and now < c.steps:
                raise KeyboardInterrupt
    bar.close()


@torch.no_grad()
def size_rows(settings: Config, replicas: Replicas, where: torch.device) -> list[dict]:
    """Per replica the mean squared error on a fixed fresh batch of every size of the mixture (Fig 16)."""
    rows = [{} for _ in range(len(replicas))]
    for size in settings.data.sizes:
        generator = device.generator(where, 0, f"evaluation {size}")
        batch = sample(settings.data, settings.train.evaluate_batch, generator, size)
        every = Batch(*(field.expand(len(replicas), *field.shape) for field in batch))
        for row, values in zip(rows, bert_losses(replicas.forward(every.ids), every)[1].tolist(), strict=True):
            row[f"loss_{size[0]}x{size[1]}"] = values[0]
    return rows


@torch.no_grad()
def generation_rows(settings: Config, replicas: Replicas, where: torch.device) -> list[dict]:
    """Per replica the token accuracy of greedy generation on a fixed batch: all cells, observed cells, masked cells."""
    generator = device.generator(where, 0, "evaluation")
    batch = sample(settings.data, settings.train.evaluate_batch, generator)
    rows, model, weights = [], build(settings, 0, where), replicas.weights()
    for replica in range(len(replicas)):
        model.load_state_dict(pick(weights, replica))
        rows.append(accuracy(model, batch, settings.data))
    return rows


def main(settings: Config) -> None:
    """Open the run folder, train, close it."""
    where = device.setup(settings.device, settings.precision, settings.threads)
    outside = clamped(settings.data, torch.Generator().manual_seed(0))
    if outside:
        print(
            f"{outside:.2%} of entries are beyond data.limit {settings.data.limit} and clamped to it", file=sys.stderr
        )
    run = Run.create(settings.folder, settings, settings.resume, device=where)
    if run.finished:
        print(f"{run.path} is finished: nothing to do")
        return
    run.mirror = mirror(settings.wandb, run.path, asdict(settings))
    with run:
        fit(settings, run, where)
        run.finish()
    print(f"{run.path}: {settings.train.steps} steps of {len(settings.seeds)} seeds")


if __name__ == "__main__":
    config.main(main, Config)
