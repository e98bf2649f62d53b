"""Measures of all seeds along training, from checkpoint to checkpoint; how they are told, and drawn over training."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from common import plotting
from common.replicas import Replicas
from icl_landscape.evaluate import Trained

ROWS = 32
"""Models in a stack at a time."""


def along(trained: Trained, steps: Sequence[int], measure: Callable[[Replicas, int], dict[str, Tensor]]) -> dict:
    """measure(stack, times) at checkpoints, `times` of them at a time, for all seeds.

    measure: the stack has times x S rows, checkpoint by checkpoint -> name -> tensor (times S, ...). Keys of the result:
    steps (T), and each name: a list per seed of a value per checkpoint, (S, T, ...).
    """
    seeds, rows = len(trained.seeds), {}
    times = max(1, ROWS // seeds)
    for start in range(0, len(steps), times):
        part = steps[start : start + times]
        for name, values in measure(trained.stack(part), len(part)).items():
            rows.setdefault(name, []).append(values.detach().cpu().double().unflatten(0, (len(part), seeds)).numpy())
    curves = {name: np.moveaxis(np.concatenate(parts), 1, 0).tolist() for name, parts in rows.items()}
    return {"steps": list(steps), **curves}


def first(steps: Sequence[int], values: Sequence[float], holds: Callable[[float], bool]) -> float:
    """The first step whose value holds; inf if there is none."""
    return next((s for s, v in zip(steps, values, strict=True) if holds(v)), math.inf)


def lowest(steps: Sequence[int], values: Sequence[float]) -> int:
    """The step of the least value."""
    return steps[int(np.argmin(values))]


def over_training(ax, ylabel: str, title: str = "") -> None:
    """A panel over training, on a logarithmic axis that has room for step 0."""
    ax.set_xscale("symlog", linthresh=1)
    ax.set(xlabel="step", ylabel=ylabel, title=title, xlim=(0, None))


def draw_curve(ax, result: dict, key: str, label: str, color: str, pick: Callable = lambda values: values) -> None:
    """A measure over training: every seed thin under the mean. pick: what of each seed's (T, ...) to draw."""
    plotting.seed_lines(ax, result["steps"], [pick(np.asarray(seed)) for seed in result[key]], label, color)
