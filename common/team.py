"""Several processes that train one run together, started by `accelerate launch` or torchrun; the first has the run folder."""

import math
import os
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from common import experiment
from common.config import UserError
from common.device import setup
from common.experiment import Training
from common.run import Run


def team_of(device: torch.device) -> Accelerator:
    """The processes that train together; what accelerate's own config says of precision and compilation does not count here."""
    return Accelerator(cpu=device.type == "cpu", device_placement=False, mixed_precision="no", dynamo_backend="no")


def shared(team: Accelerator, value):
    """What the first process has, in all of them."""
    return broadcast_object_list([value])[0] if team.num_processes > 1 else value


def train_together(settings: Training, fit: Callable[[Training, Run | None, torch.device], None]) -> None:
    """Train with fit(settings, run, device), each process on a device of its own; run is None in all but the first.

    Raises UserError where the processes do not divide settings.train.batch.
    """
    rank, local = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if settings.train.batch % processes:
        raise UserError(
            f"found train.batch {settings.train.batch} for {processes} processes, expected a multiple of them; mend with "
            f"--train.batch {math.ceil(settings.train.batch / processes) * processes}, or other --num_processes"
        )
    if processes > 1 and settings.device != "cpu" and torch.cuda.is_available():
        settings = replace(settings, device=f"cuda:{local}")
    if rank == 0:
        experiment.train(settings, fit)
    elif not Run(settings.folder).finished:
        fit(settings, None, setup(settings.device, settings.precision, settings.threads))
