"""What is predicted first where tasks are few: the mean task's prediction, not 0 (paper appendix, Fig 20)."""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from common import experiment, plotting
from common.claims import Claim
from common.config import UserError
from common.limits import Count, Distinct, Name
from common.replicas import Replicas
from icl_landscape.analysis._curves import along, over_training
from icl_landscape.analysis._presets import ALL
from icl_landscape.evaluate import Probe, Trained, predict, repeated
from icl_landscape.regression.data import Batch, clean


@dataclass
class Settings(Probe):
    sequences: Count = 1024
    """Fixed sequences of each run's own tasks."""
    runs: Annotated[list[Name], Distinct(1)] = field(default_factory=lambda: ["tasks2", "tasks4", "tasks16"])
    """Runs beside this one, each on a finite set of tasks."""


def distances(batch: Batch, mean: Tensor, stack: Replicas, times: int) -> dict[str, Tensor]:
    """Sum over k of the mean squared distance of predictions to 0 and to `mean` (S, B, K), of each row (times S,)."""
    predictions = predict(stack, repeated(batch, times)).double()
    far = predictions - mean.repeat(times, 1, 1)
    return {name: d.square().mean(1).sum(1) for name, d in (("to_zero", predictions), ("to_mean", far))}


def mean_tasks(run: Trained) -> Tensor:
    """tbar of every seed's own tasks (S, D); that of the law N(0, I_D) is 0."""
    none = torch.zeros(run.data.D, device=run.device)
    return torch.stack([none if law.table is None else law.table.mean(0) for law in run.tasks])


def measure(run: Trained, settings: Settings) -> dict:
    """One run of `analyse`."""
    batch, table = run.sequences(settings.sequences), run.tasks[0].table
    mean = clean(batch.x, mean_tasks(run)[:, None])
    curves = along(run, settings.steps(run), partial(distances, batch, mean))
    return {"tasks": None if table is None else len(table), **curves}


def finite(run: Trained) -> Trained:
    """The run; raises UserError where it has no finite set of tasks."""
    if run.tasks[0].table is None:
        raise UserError(
            f"found a run without a finite set of tasks at {run.run.path}, expected one; train with --data.M 4"
        )
    return run


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> name -> tasks (M), steps (T), to_zero and to_mean (S, T): summed over tokens, the mean squared distance of
    predictions to 0 and to those of the mean task, on sequences of the run's own tasks; main: the same of this run, to compare
    with; where its tasks are infinitely many (tasks: null) their mean is 0, and both distances are one."""
    siblings = {name: finite(trained.sibling(name)) for name in settings.runs}
    return {
        "runs": {name: measure(run, settings) for name, run in siblings.items()},
        "main": measure(trained, settings),
    }


def nearer_the_mean(result: dict) -> dict[str, list]:
    """Per seed and number of tasks: least distance to the mean task's prediction over the least to 0, over training."""
    return {
        f"M = {run['tasks']}": [min(m) / min(z) for m, z in zip(run["to_mean"], run["to_zero"], strict=True)]
        for run in result["runs"].values()
    }


def draw(result: dict):
    """A panel per run, this one last: distances to 0 and to the mean task's prediction over training, a line per seed."""
    runs = [*result["runs"].values(), result["main"]]
    fig, axes = plotting.axes(len(runs), height=2.4, squeeze=False, sharey=True)
    for ax, run in zip(axes[0], runs, strict=True):
        # No mean over seeds: each has another set of tasks
        plotting.each_seed(ax, run["steps"], run["to_zero"], "to 0", plotting.PALETTE["chance"])
        if run["tasks"]:
            plotting.each_seed(ax, run["steps"], run["to_mean"], "to the mean task's", plotting.PALETTE["model"])
        over_training(ax, "", f"M = {run['tasks'] or 'infinity'}")
        ax.set_yscale("log")
        ax.tick_params("x", labelrotation=90)
    axes[0][0].set_ylabel("squared distance, summed over k")
    axes[0][0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    told = [f"{name}: {', '.join(f'{v:.2f}' for v in values)}" for name, values in nearer_the_mean(result).items()]
    return f"least distance to the mean task's prediction over the least to 0, by seed: {'; '.join(told)}"


CLAIMS = [
    Claim("C17", "Where tasks are few, early predictions approach the mean task's, not 0.", source="appendix, Fig 20",
          paper="shown as curves for M = 1 to 2^20", presets=ALL, number=nearer_the_mean,
          below=dict.fromkeys(("M = 2", "M = 4", "M = 16"), 1.0)),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
