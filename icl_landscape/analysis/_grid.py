"""Experiments that sample at many settings: fewer seeds, later checkpoints."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.limits import Natural
from common.progress import Progress
from icl_landscape.analysis._llc import Landscape, Measured, checkpoints_at_once, measure
from icl_landscape.evaluate import Trained


@dataclass
class Grid(Landscape):
    """Settings of an experiment that samples around the same checkpoints many times."""

    seeds: Natural = 0
    """Seeds looked at, the first so many of the run; 0: all."""
    since: Natural = 0
    """First step looked at, the others in equal ratios up to the last; 0: as points says. Steps given in at come first."""

    def steps(self, trained: Trained) -> list[int]:
        """The checkpoints to look at; raises UserError where one of `at` is not there."""
        if self.at or not self.since:
            return super().steps(trained)
        return late(trained.steps, self.since, self.points)


def late(steps: Sequence[int], since: int, points: int) -> list[int]:
    """Those of the steps nearest to `points` equal ratios from `since` to the last: fewer where several fall on one."""
    there = np.log(np.maximum(steps, 0.5))
    wanted = np.linspace(np.log(since), there[-1], points)
    return sorted({steps[int(np.abs(there - at).argmin())] for at in wanted})


def first_seeds(trained: Trained, count: int) -> Trained:
    """The run as if it had only its first `count` seeds; all of them for 0."""
    part = copy.copy(trained)
    part.config = replace(trained.config, seeds=trained.seeds[: count or None])
    return part


def over_settings(trained: Trained, each: Sequence[Landscape], steps: Sequence[int]) -> list[dict[int, list[Measured]]]:
    """`_llc.over_checkpoints` at every setting, under one progress bar."""
    bar, done, told = Progress(len(each) * len(trained.seeds) * len(steps)), 0, []
    for settings in each:
        times = checkpoints_at_once(trained, settings)
        told.append({seed: [] for seed in trained.seeds})
        for seed in trained.seeds:
            for start in range(0, len(steps), times):
                part = steps[start : start + times]
                told[-1][seed].append(measure(trained, settings, seed, part))
                bar.update(done := done + len(part))
    bar.close()
    return told
