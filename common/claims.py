"""The claims of a paper, what a study measured of each, and the page that says which hold.

    python -m common.claims [RUNS]     an index over all studies below RUNS (by default runs)

A verdict is never one lucky seed: see `verdict_below`. A claim that a study's preset is not meant to reach is "not at this
scale", one whose analysis is missing is "inconclusive", and an error in the measuring code is an error.
"""

import argparse
import base64
import json
import math
import re
import struct
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from common.config import EXIT_MISTAKE
from common.plain import plain, write_atomic, write_json
from common.run import Run, UserError

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not at this scale")


class Missing(UserError):
    """A run or a result that a measurement needs is not there."""


@dataclass(frozen=True)
class Measurement:
    """What a study says of a claim. error: half-width of the 95% t-interval over `seeds` seeds, None for one seed."""

    value: float | str | None
    error: float | None
    verdict: str
    seeds: int
    note: str = ""

    def __post_init__(self):
        if self.verdict not in VERDICTS:
            raise ValueError(f"found verdict {self.verdict!r}, expected one of {', '.join(VERDICTS)}")


@dataclass(frozen=True)
class Claim:
    """A falsifiable sentence of a paper.

    source: figure, table or section. expected: the paper's value and our threshold, fixed before the run.
    presets: those that can test it. measure: Study -> Measurement; it lets `Missing` through.
    command: makes what `measure` reads; {study} in it stands for the study's folder.
    """

    id: str
    statement: str
    source: str
    expected: str
    presets: tuple[str, ...]
    measure: Callable[["Study"], Measurement]
    command: str


class Study:
    """The folder runs/<paper>/<study>: runs, and over them the claims."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def preset(self) -> str:
        """The key `preset` of the main run's config, or else the folder's name."""
        main = Run(self.path / "main")
        return (main.config().get("preset") if main.config_path.exists() else None) or self.path.name

    def run(self, name: str = "main") -> Run:
        """The run of that name; raises Missing."""
        if not (self.path / name / "config.yaml").exists():
            raise Missing(f"found no run {self.path / name}")
        return Run.open(self.path / name)

    def result(self, name: str, run: str = "main") -> dict:
        """results/<name>.json of a run; raises Missing."""
        if not (self.run(run).path / "results" / f"{name}.json").exists():
            raise Missing(f"found no result {name} in {self.path / run}")
        return self.run(run).read(name)


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half-width of the 95% t-interval) over seeds; the half-width is None for a single one."""
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    if len(values) == 1:
        return float(values[0]), None
    return float(values.mean()), float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / math.sqrt(len(values)))


def verdict_below(values: Sequence[float], threshold: float, min_seeds: int = 3) -> str:
    """Verdict on "every seed is below threshold".

    "reproduced" where each of at least min_seeds seeds is; "contradicted" where none is; else "inconclusive".
    min_seeds: 1 only for a claim about one given model, or about a solver, which has no seeds.
    """
    below = [value < threshold for value in values]
    if all(below) and len(below) >= max(min_seeds, 1):
        return "reproduced"
    return "contradicted" if below and all(value >= threshold for value in values) else "inconclusive"


def verdict_above(values: Sequence[float], threshold: float, min_seeds: int = 3) -> str:
    """Verdict on "every seed is above threshold", by the rule of `verdict_below`."""
    return verdict_below([-value for value in values], -threshold, min_seeds)
