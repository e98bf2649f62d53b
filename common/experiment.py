"""What every experiment does around its science: its settings, the run it reads, saving, drawing, the finding.

And what every training run has around its loop: the head of its config, its folder, its end. An experiment is a script of
<paper>/analysis with Settings, analyse, draw, finding and CLAIMS; a config <paper>/configs/<experiment>.yaml names the
script in its header, and result and figure carry the config's name.
"""

import argparse
import hashlib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, Self

import numpy as np
import torch

from common import config
from common.checkpoint import Checkpointer, Schedule
from common.config import UserError
from common.device import free_memory, setup
from common.limits import Device, Distinct, Name, Place, Seed, Threads
from common.mirror import Wandb, mirror
from common.run import Run

ROOT = Path(__file__).parents[1]


@dataclass
class Training:
    """Head of every training config. The paper's Config names the paper in PAPER and adds its own sections."""

    PAPER = "paper"

    preset: Name = "paper"
    """Preset the numbers belong to (quick, gpu, paper, ...)."""
    study: Name | None = None
    """Folder of the study; the preset's name by default."""
    name: Name | None = None
    """Folder of the run inside the study: main by default, or the id of the W&B run where `wandb agent` starts it."""
    root: Place = "runs"
    """Folder of all runs."""
    checkpoints: Place | None = None
    """Where checkpoints go: any fsspec address, such as s3://bucket/prefix; the run folder by default."""
    seeds: Annotated[list[Seed], Distinct(1)] = field(default_factory=lambda: [0])
    """Seeds trained side by side; each has its own initial weights and data."""
    device: Device = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """fp32, tf32 matrix products, or bf16 (autocast; the read-out and the loss stay in fp32)."""
    threads: Threads = 0
    """CPU threads; 0 leaves the machine's own choice."""
    resume: bool = False
    """Go on with a run that was stopped."""
    wandb: Wandb = field(default_factory=Wandb)

    def memory(self) -> float:
        """Bytes that a run needs at least, a rough lower bound."""
        return 0.0

    def prepare(self) -> None:
        """Make what a run needs before it has a folder, such as its text; raises UserError where that cannot be."""

    @property
    def place(self) -> Path:
        """<paper>/<study>/<name>: where the run lies under any root."""
        name = self.name or os.environ.get("WANDB_RUN_ID", "main")
        return Path(self.PAPER) / (self.study or self.preset) / name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.root) / self.place


def checkpointer(settings: Training, run: Run) -> Checkpointer:
    """The checkpoints of a run, in its folder or under `settings.checkpoints`; those of another run do not count."""
    home = run.path / "checkpoints"
    if settings.checkpoints:
        # By the names with which it was started: the folder may have been moved since.
        begun = config.load(type(settings), run.config_path)
        home = f"{settings.checkpoints.rstrip('/')}/{begun.place.as_posix()}"
    return Checkpointer(home, owner=hashlib.sha256(run.config_path.read_bytes()).hexdigest()[:16])


def resume(run: Run, checkpoints: Checkpointer, first: int) -> tuple[int, dict]:
    """(step, state) of the newest whole checkpoint whose rows are all in metrics.jsonl, which is cut there; else (0, {}).

    first: step of the first checkpoint. Raises UserError where a run has come further than that, and nothing of it can be used.
    """
    latest, come = checkpoints.latest(run.rows), run.last_step
    if latest is None and (come > first or checkpoints.steps()):
        raise UserError(
            f"found metrics up to step {come} in {run.path} and no checkpoint of it that can be used, expected one in "
            f"{checkpoints.place}; bring them back, or start another: --name NEW (or delete that folder)"
        )
    step, _, state = latest or (0, {}, {})
    run.truncate(step)
    run.saved = step if latest else None
    return step, state


def save(run: Run, checkpoints: Checkpointer, step: int, weights: dict[str, torch.Tensor], state: dict) -> None:
    """Save a checkpoint after the rows that it covers have reached the disk."""
    run.check()
    run.sync()
    checkpoints.save(step, weights, state, run.written)
    run.saved = step


def train(settings: Training, fit: Callable[[Training, Run, torch.device], None]) -> None:
    """Open the run folder, train with fit(settings, run, device), close it; a finished run is left as it is."""
    settings = replace(settings, study=settings.place.parent.name, name=settings.place.name)
    device = setup(settings.device, settings.precision, settings.threads)
    if settings.memory() > (there := free_memory(device)):
        raise UserError(
            f"found settings that need {settings.memory() / 2**30:.3g} GiB or more on {device}, expected at most the "
            f"{there / 2**30:.3g} GiB that are free; make the model, the data, the batch or the number of seeds smaller"
        )
    settings.prepare()
    run = Run.create(settings.folder, settings, settings.resume, device=device)
    if run.finished:
        print(f"{run.path} is finished: nothing to do")
        return
    run.mirror = mirror(settings.wandb, run.path, asdict(settings))
    with run:
        fit(settings, run, device)
        run.finish()
    print(f"{run.path}: {settings.train.steps} steps of {len(settings.seeds)} seeds")


class Trained:
    """A run with its configuration, ready to be analysed; the paper's class names its Config in CONFIG.

    device: auto, cpu, cuda or mps.
    """

    CONFIG = Training

    def __init__(self, path: str | Path, device: str = "auto", threads: int = 0):
        self.run = Run.open(path)
        if (paper := self.run.manifest.get("paper")) not in (None, self.CONFIG.PAPER):
            raise UserError(
                f"found a run of {paper} at {path}, expected one of {self.CONFIG.PAPER}; give another --run"
            )
        self.config = config.load(self.CONFIG, self.run.config_path)
        self.device = setup(device, "fp32", threads)
        self.checkpoints = checkpointer(self.config, self.run)

    @property
    def seeds(self) -> list[int]:
        return self.config.seeds

    @cached_property
    def steps(self) -> list[int]:
        """Steps with a checkpoint of the schedule and the last one; one that an interruption made is left out.

        Raises UserError where one is not there that the run has made.
        """
        c, kept = self.config.train, self.checkpoints.steps()
        last = self.run.manifest.get("checkpoint") or max(kept, default=0)
        schedule = Schedule(c.save_every, c.steps, c.save_at)
        made = {*range(c.save_every, last + 1, c.save_every), *(s for s in c.save_at if 0 < s <= last), last}
        if gone := sorted(made - {*kept, 0}):
            raise UserError(
                f"found no checkpoint of step {gone[0]} in {self.checkpoints.place}, which this run has made "
                f"({len(gone)} are gone); bring it back, or train anew under another name: --name NEW"
            )
        return [step for step in kept if step in schedule or step == last]

    @cached_property
    def metrics(self):
        """metrics.jsonl as a pandas.DataFrame."""
        return self.run.metrics()

    def sibling(self, name: str) -> Self:
        """Another run of the same study."""
        return type(self)(self.run.path.parent / name, str(self.device))


@dataclass
class Analysis:
    """Settings that every experiment has; the paper's own base names in READS what opens a run."""

    READS = Trained

    run: Place = "runs/<paper>/quick/main"
    """Run folder to analyse."""
    device: Device = "auto"
    """auto, cpu, cuda or mps."""
    threads: Threads = 0
    """CPU threads; 0 leaves the machine's own choice."""


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half-width of the 95% t-interval) over seeds; the half-width is None for a single one."""
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    if len(values) == 1:
        return float(values[0]), None
    return float(values.mean()), float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / math.sqrt(len(values)))


def over_seeds(rows: list) -> dict:
    """Per-seed results of one shape -> the same shape, each number as {values, mean, error}.

    Dicts and lists are walked; error is the half-width of the 95% t-interval over seeds (None for one seed).
    """
    first = rows[0]
    if isinstance(first, dict):
        return {key: over_seeds([row[key] for row in rows]) for key in first}
    if isinstance(first, list | tuple):
        return [over_seeds(list(group)) for group in zip(*rows, strict=True)]
    if isinstance(first, str):
        return first
    values = [None if value is None else float(value) for value in rows]
    mean, error = interval(values) if None not in values else (None, None)
    return {"values": values, "mean": mean, "error": error}


def perform(module: ModuleType, name: str, settings: Analysis) -> None:
    """Analyse, save the result with its seeds and settings, draw, print the finding."""
    trained = settings.READS(settings.run, settings.device, settings.threads)
    result = {"seeds": trained.seeds, "settings": asdict(settings), **module.analyse(trained, settings)}
    trained.run.result(name, result)
    trained.run.figure(name, module.draw(result), result)
    print(f"{name}: {module.finding(result)}")


def main(module: str) -> None:
    """Entry point of an experiment's script, called with __name__; its name is that of the last --config, or the script's."""
    script = sys.modules[module]
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", action="append", default=[])
    try:
        paths = files.parse_known_args()[0].config
    except argparse.ArgumentError:
        paths = []
    name = Path(paths[-1] if paths else script.__file__).stem
    config.main(lambda settings: perform(script, name, settings), script.Settings)


def script_of(paper: str, name: str) -> str:
    """Path of the script that makes the experiment `name`, as the header of its config says; raises UserError."""
    path = ROOT / paper / "configs" / f"{name}.yaml"
    named = re.search(
        rf"^#.*\b({paper}/analysis/\w+\.py)",
        path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "",
        re.M,
    )
    if not named:
        raise UserError(f"found no experiment {name} of {paper}, expected a config {paper}/configs/{name}.yaml")
    return named[1]


def command(paper: str, need: str, study: str | Path) -> str:
    """The command that makes the result "run/name", or "name" of the run main, in a study's folder."""
    run, _, name = need.rpartition("/")
    config_path = f"{paper}/configs/{name}.yaml"
    return f"python {script_of(paper, name)} --config {config_path} --run {study}/{run or 'main'}"
