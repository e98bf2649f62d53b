"""Train transformers on modular addition and watch when they generalise (paper section 2).

    python layernorm_grok/train.py --config layernorm_grok/configs/quick.yaml

One run trains a grid: every seed at every placement of the norms, readout scale, learning rate and weight decay, as replicas of
one stack. Train loss and accuracy are those before a step's update, test loss and accuracy those after it, as in the paper.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from common import checkpoint, config, device
from common.config import UserError
from common.mirror import Wandb, mirror
from common.progress import Progress, stop_signal
from common.replicas import Replicas
from common.run import Run
from layernorm_grok.data import Data
from layernorm_grok.grid import Cell, Grid, Stack, cells, pair_splits, switches
from layernorm_grok.losses import accuracy, cross_entropy, effective_rank_penalty, margin, squared_error
from layernorm_grok.model import Model, Transformer
from layernorm_grok.placement import Placement

FITTED = 0.01
"""Train loss that counts as fitted (T_train)."""


@dataclass
class Train:
    steps: int = 10_000
    """Full-batch steps."""
    evaluate_every: int = 10
    """Steps between evaluations on the test pairs; before the first of them they are spaced logarithmically."""
    stop_after: int = 0
    """A replica stops this many evaluations after it has generalised; 0: never."""
    level: float = 0.99
    """Test accuracy that counts as generalised, if `run` evaluations in a row reach it."""
    run: int = 3
    """How many evaluations in a row."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW as in PyTorch, or plain gradient descent; both with decoupled decay of all parameters."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.98
    """AdamW's decay of the second moment."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    decay_norms: bool = True
    """Whether gains and biases of norms are decayed like all else (sheet P21)."""
    loss: Literal["ce", "mse"] = "ce"
    """Cross-entropy in its exact margin form, or half the squared distance to the one-hot target."""
    subtract_init: bool = False
    """Train and test alpha (logits - logits at the start)."""
    readout: Literal["scale", "temperature"] = "scale"
    """How alpha enters: as a factor of the logits, or as softmax temperature 1/alpha, which changes the logged margin alone."""
    er_start: int = 1000
    """Step from which grid.er_strength times the effective rank of the train prelogits is part of the loss."""
    save_every: int = 500
    """Steps between checkpoints; the last step always makes one."""
    save_at: list[int] = field(default_factory=list)
    """Further steps to keep; step 0 is always kept."""

    def __post_init__(self):
        for key in ("steps", "evaluate_every", "run", "save_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"train.{key} is {getattr(self, key)}; expected 1 or more")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"train.{key} is {getattr(self, key)}; expected 0 or more and below 1")
        if self.stop_after < 0 or min(self.save_at, default=0) < 0:
            raise ValueError("train.stop_after and train.save_at: found a value below 0, expected 0 or more")


@dataclass
class Config:
    preset: str = "paper"
    """Preset the numbers belong to (quick, gpu, paper, ...)."""
    study: str | None = None
    """Folder of the study; the preset's name by default."""
    name: str = "main"
    """Folder of the run inside the study."""
    root: str = "runs"
    """Folder of all runs."""
    seeds: list[int] = field(default_factory=lambda: [456, 789, 111, 222, 333])
    """Seeds of the split and of the initial weights; all cells of the grid share them."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["fp32", "tf32"] = "fp32"
    """fp32, or tf32 matrix products on a GPU."""
    threads: int = 0
    """CPU threads; 0 leaves the machine's own choice."""
    resume: bool = False
    """Go on with a run that was stopped."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    grid: Grid = field(default_factory=Grid)
    train: Train = field(default_factory=Train)
    wandb: Wandb = field(default_factory=Wandb)

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; expected at least one, each once, such as [0, 1, 2]")
        dead = self.model.act == "relu" and self.model.mlp == "ff"
        if self.train.eps == 0 and self.train.optimizer == "adamw" and dead:
            raise ValueError(
                "train.eps is 0 with model.act relu, whose dead units have gradients of exactly 0, and 0/0 has no value; "
                "expected --train.eps 1e-8 or --model.act gelu"
            )

    @property
    def folder(self) -> Path:
        return Path(self.root) / "layernorm_grok" / (self.study or self.preset) / self.name


def build(settings: Config, cell: Cell, seed: int, norms: set[str] | None = None) -> Transformer:
    """A fresh model of a cell, on the CPU; all weights but those of norms are the same in every cell of a seed."""
    generator = device.generator(torch.device("cpu"), seed, "init")
    model = Transformer(settings.model, settings.data.P, Placement.parse(cell.placement), generator, norms)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(cell.init_scale)
    return model


def is_norm(name: str) -> bool:
    """Whether a parameter belongs to a norm."""
    return ".ln" in name or name.startswith("final_norm")


def stack_of(settings: Config, where: torch.device) -> tuple[Stack, list[dict]]:
    """All replicas of the grid, cell by cell and in each seed by seed, and the fields that name them in metrics.jsonl."""
    chosen = cells(settings.grid)
    places = [Placement.parse(cell.placement) for cell in chosen]
    norms = set().union(*(place.norms for place in places))
    models, labels, used, trained = [], [], [], []
    for cell, place in zip(chosen, places, strict=True):
        for seed in settings.seeds:
            model = build(settings, cell, seed, norms)
            models.append(model.to(where))
            labels.append({"cell": cell.name, "seed": seed})
            idle = [f".{name}." for name in norms - place.norms]
            used.append({n for n, _ in model.named_parameters() if not any(i in n for i in idle)})
            trained.append({n for n in used[-1] if not (settings.model.frozen_norms and is_norm(n))})
    every = {n for n, _ in models[0].named_parameters()}
    replicas = Replicas(models, None if all(t == every for t in trained) else trained)
    per_cell = lambda values: torch.tensor(values, device=where).repeat_interleave(len(settings.seeds), 0)  # noqa: E731
    train, test = (s.repeat(len(chosen), 1).to(where) for s in pair_splits(settings.data, settings.seeds))
    decay = per_cell([[c.weight_decay] for c in chosen])
    if not settings.train.decay_norms:
        decay = decay * replicas.mask([{n for n in every if not is_norm(n)}] * len(models))
    stack = Stack(
        replicas, list(range(len(models))), replicas.mask(used), train, test,
        choice=per_cell([switches(place) for place in places]),
        alpha=per_cell([c.alpha for c in chosen]), lr=per_cell([[c.lr] for c in chosen]), decay=decay,
        er=per_cell([c.er_strength for c in chosen]),
        fit=torch.zeros(len(models), dtype=torch.int32, device=where),
        offset=torch.zeros(len(models), 0, 0, device=where),
    )  # fmt: skip
    if settings.train.subtract_init:
        stack.offset = start_logits(settings, stack, where)
    return stack, labels


@torch.no_grad()
def start_logits(settings: Config, stack: Stack, where: torch.device) -> Tensor:
    """Logits of all pairs before training (R, P^2, C), the same whenever it is asked for."""
    every = torch.arange(settings.data.P**2, device=where).expand(len(stack.members), -1)
    return stack.replicas.each(lambda model, rows, choice: (model(rows, choice).logits,), every, stack.choice)[0]


def objective(
    settings: Config, targets: Tensor, model, rows: Tensor, choice, alpha, offset, er=None
) -> tuple[Tensor, ...]:
    """Trained loss, loss, accuracy and alpha times the logits of one replica on rows (N,), or of a stack on (R, N)."""
    output = model(rows, choice)
    logits = output.logits
    if settings.train.subtract_init:
        logits = logits - offset.gather(-2, rows[..., None].expand(*rows.shape, offset.shape[-1]))
    scaled = alpha[..., None, None] * logits
    measure = cross_entropy if settings.train.loss == "ce" else squared_error
    loss = measure(scaled, targets[rows]).mean(-1)
    trained = loss if er is None else loss + er * effective_rank_penalty(output.prelogits)
    return trained, loss, accuracy(logits, targets[rows]), scaled


def trained_loss(settings: Config, cell: Cell, model: Transformer, rows: Tensor, start: Transformer | None = None):
    """The objective of a cell on pairs rows (N,) as a function of `model`'s parameters by name, for probes (sheet P22).

    start: the model at step 0, needed where its output is subtracted. The effective-rank term is as after train.er_start.
    """
    targets = settings.data.targets().to(rows.device)
    alpha = torch.tensor(cell.alpha, device=rows.device)
    every = torch.arange(settings.data.P**2, device=rows.device)
    offset = start(every).logits.detach() if settings.train.subtract_init else torch.zeros(0, 0, device=rows.device)

    def loss(params: dict[str, Tensor]) -> Tensor:
        bound = lambda rows, choice: functional_call(model, params, (rows,))  # noqa: E731
        er = cell.er_strength or None
        return objective(settings, targets, bound, rows, None, alpha, offset, er)[0]

    return loss


class Watch:
    """Counts evaluations in a row above the level, per replica, and says which replicas are done."""

    def __init__(self, settings: Train, replicas: int):
        self.settings = settings
        self.streak, self.since = [0] * replicas, [0] * replicas

    def done(self, replica: int, test_accuracy: float) -> bool:
        """True `stop_after` evaluations after the first `run` in a row at the level."""
        c = self.settings
        if self.streak[replica] < c.run:
            self.streak[replica] = self.streak[replica] + 1 if test_accuracy >= c.level else 0
            self.since[replica] = c.run - 1
        else:
            self.since[replica] += 1
        return bool(c.stop_after) and self.streak[replica] >= c.run and self.since[replica] >= c.stop_after


METRICS = (
    "train_loss", "train_accuracy", "weight_norm", "gradient_norm", "update_norm", "test_loss", "test_accuracy", "test_margin"
)  # fmt: skip


def fit(settings: Config, run: Run, where: torch.device) -> None:
    """The training loop, from wherever the run stands to its last step."""
    c = settings.train
    whole, labels = stack_of(settings, where)
    targets = settings.data.targets().to(where)
    with_rank = bool((whole.er > 0).any())
    saves = {*checkpoint.linear(c.save_every, c.steps), *c.save_at, c.steps}
    early = checkpoint.logarithmic(min(c.evaluate_every, c.steps), 10)
    evaluations = {*early, *checkpoint.linear(c.evaluate_every, c.steps)}
    keeper = checkpoint.Checkpointer(run.path / "checkpoints")
    watch = Watch(c, len(labels))
    running, ended, members = whole.members, [], whole.members

    def save(now: int) -> None:
        kept = sorted(running + ended)
        weights = whole.subset(kept).replicas.weights() | {"replicas": torch.tensor(kept)}
        # A checkpoint outside the schedule is for resuming alone: those that ended are in the next scheduled one too.
        state = {"replicas": whole.replicas.state(), "fit": whole.fit.clone(), "running": running, "members": members}
        state |= {"ended": [] if now in saves or not running else ended}
        keeper.save(now, weights, state | {"streak": list(watch.streak), "since": list(watch.since)})

    # Resume: the newest whole checkpoint, and the metrics as they stood at that step
    begin = 0
    if (found := keeper.latest()) is not None:
        begin, _, saved = found
        whole.replicas.restore(saved["replicas"])
        whole.fit.copy_(saved["fit"])
        running, members, ended = (saved[k] for k in ("running", "members", "ended"))
        watch.streak, watch.since = saved["streak"], saved["since"]
    else:
        save(0)
    run.truncate(begin)

    # One step: forward, backward, optimiser; metrics (R, 5) stay on the device
    stack, latest = None, None

    def step() -> None:
        s = stack
        now = s.replicas.steps + 1
        strength = s.er * (now >= c.er_start)
        weight_norm = (s.replicas.flat * s.used).norm(dim=1)

        def loss(model, rows, choice, alpha, er, offset):
            return objective(settings, targets, model, rows, choice, alpha, offset, er if with_rank else None)[:3]

        gradient, _, value, right = s.replicas.differentiate(loss, s.train, s.choice, s.alpha, strength, s.offset)
        if c.optimizer == "adamw":
            moved = s.replicas.adam(gradient, s.lr, (c.beta1, c.beta2), c.eps, s.decay, measure=True)
        else:
            moved = s.replicas.sgd(gradient, s.lr, s.decay, measure=True)
        s.fit.copy_(torch.where((s.fit == 0) & (value <= FITTED), now.int(), s.fit))
        latest.copy_(torch.stack([value, right, weight_norm, gradient.norm(dim=1), moved], 1))

    @torch.no_grad()
    def test() -> torch.Tensor:
        def loss(model, rows, choice, alpha, offset):
            _, value, right, scaled = objective(settings, targets, model, rows, choice, alpha, offset)
            # A softmax temperature leaves the logits that are reported as they are.
            return value, right, margin(scaled) / (alpha if c.readout == "temperature" else 1)

        return torch.stack(stack.replicas.each(loss, stack.test, stack.choice, stack.alpha, stack.offset), 1)

    # The loop
    bar = Progress(c.steps, initial=begin)
    with stop_signal() as stop:
        for now in range(begin + 1, c.steps + 1):
            if not running:
                break
            if stack is None:
                stack = whole.subset(members)
                latest = torch.zeros(len(members), 5, device=where)
                update = step if with_rank else device.graphed(step, where)
            update()
            if now in evaluations:
                rows = torch.cat([latest, test(), stack.fit[:, None], stack.replicas.alive], 1).tolist()
                leaving = []
                for number, (*scalars, fitted, alive) in zip(members, rows, strict=True):
                    if number not in running:
                        continue
                    values = dict(zip(METRICS, scalars, strict=True))
                    run.log(now, **labels[number], **values, t_train=int(fitted) or None)
                    if watch.done(number, values["test_accuracy"]) or not alive:
                        leaving.append(number)
                    if not alive:
                        print(f"diverged by step {now}, and stopped: {labels[number]}", file=sys.stderr)
                bar.update(now, running=len(running))
                if leaving:
                    whole.absorb(stack, leaving)
                    ended, running = ended + leaving, [n for n in running if n not in leaving]
                    if not running:
                        save(now)
            # A graph is recorded anew for fewer replicas only when that saves a quarter; a loop over them always.
            fewer = len(running) <= (0.75 * len(members) if where.type == "cuda" else len(members) - 1)
            if fewer or now in saves or stop:
                whole.absorb(stack, running)
            # Before the checkpoint, so that a resumed run has the same stack from the next step on.
            if fewer:
                members, stack = running, None
            if now in saves or stop:
                save(now)
            if now in saves:
                ended = []
            if stop and now < c.steps:
                raise KeyboardInterrupt
    bar.close()
    if not whole.replicas.alive.any():
        raise UserError(f"every replica diverged; lower --grid.lr (now {settings.grid.lr})")


def main(settings: Config) -> None:
    """Open the run folder, train, close it."""
    where = device.setup(settings.device, settings.precision, settings.threads)
    run = Run.create(settings.folder, settings, settings.resume, device=where)
    if run.finished:
        print(f"{run.path} is finished: nothing to do")
        return
    run.mirror = mirror(settings.wandb, run.path, asdict(settings))
    with run:
        fit(settings, run, where)
        run.finish()
    print(f"{run.path}: {len(cells(settings.grid))} cells of {len(settings.seeds)} seeds")


if __name__ == "__main__":
    config.main(main, Config)
