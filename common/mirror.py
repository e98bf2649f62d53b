"""A copy of the metrics in W&B or trackio, off unless asked for. The run folder stays the record."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.config import UserError
from common.limits import Name

AXES = ("step", "seed", "time")


@dataclass
class Wandb:
    """Mirror of the metrics."""

    mode: Literal["off", "offline", "online"] = "off"
    """off: nothing is imported; offline: files in the run folder; online: needs an account."""
    project: Name = "turning-points"
    """Name of the project."""
    backend: Literal["wandb", "trackio"] = "wandb"
    """Which library; trackio keeps its record on this machine."""


def mirror(wandb: Wandb, path: str | Path, config: dict) -> "Mirror | None":
    """Mirror of the run at `path`, or None when the mode is off; raises UserError if the library is missing."""
    if wandb.mode == "off":
        return None
    if wandb.backend == "trackio" and wandb.mode == "online":
        raise UserError("found mode online with trackio, which stays local; mend with: --wandb.mode offline")
    # Read by trackio when it is imported.
    os.environ.setdefault("TRACKIO_DIR", str(Path(path).resolve() / "trackio"))
    try:
        library = importlib.import_module(wandb.backend)
    except ImportError:
        raise UserError(f"found no {wandb.backend}; mend with: pip install {wandb.backend}") from None
    about = {"project": wandb.project, "name": Path(path).name, "config": config}
    if wandb.backend == "trackio":
        run = library.init(**about)
        return Mirror(lambda step, numbers: run.log(numbers, step=step), run.finish)
    run = library.init(**about, mode=wandb.mode, dir=path)
    # A resumed run sends some steps twice; the axis is the step that a row names, not a count of the rows.
    run.define_metric("*", step_metric="step")
    return Mirror(lambda step, numbers: run.log({"step": step} | numbers), run.finish)


class Mirror:
    """Sends each row on, its names marked with what tells rows of one step apart: the seed and any text."""

    def __init__(self, send: Callable[[int, dict], None], finish: Callable[[], None]):
        self.send = send
        self.finish = finish

    def log(self, step: int, row: dict) -> None:
        """Send the numbers of one row of metrics.jsonl."""
        seeds = [f"seed{row['seed']}"] if "seed" in row else []
        mark = [*seeds, *(value for value in row.values() if isinstance(value, str))]
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name not in AXES}
        self.send(step, {"/".join([name, *mark]): value for name, value in numbers.items()})
