"""The claims of a paper, what a study measured of each, and the page that says which hold.

    python -m common.claims [RUNS]     an index over all studies below RUNS (by default runs)

A verdict is never one lucky seed: see `verdict_below`. A claim that a study's preset is not meant to reach is "not at
this scale", one whose run or result is missing is "inconclusive", and an error in the measuring code stays an error.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import report
from common.config import EXIT_MISTAKE
from common.plain import plain, write_atomic, write_json
from common.run import Run, UserError


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
        if self.verdict not in report.VERDICTS:
            raise ValueError(f"found verdict {self.verdict!r}, expected one of {', '.join(report.VERDICTS)}")


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

    Of at least min_seeds seeds: "reproduced" where each is, "contradicted" where none is; else "inconclusive".
    min_seeds: 1 only for a claim about one given model, or about a solver, which has no seeds.
    """
    if len(values) < max(min_seeds, 1):
        return "inconclusive"
    if all(value < threshold for value in values):
        return "reproduced"
    return "contradicted" if all(value >= threshold for value in values) else "inconclusive"


def verdict_above(values: Sequence[float], threshold: float, min_seeds: int = 3) -> str:
    """Verdict on "every seed is above threshold", by the rule of `verdict_below`."""
    return verdict_below([-value for value in values], -threshold, min_seeds)


def judge(claims: Sequence[Claim], study: Study) -> list[dict]:
    """A row of claims.json per claim, in the order of their ids."""
    return sorted((_row(claim, study) for claim in claims), key=_natural)


def write(study: Study, rows: list[dict], title: str, intro: str, figures: Sequence[tuple[str, str, Path]]) -> Path:
    """Write claims.json, claims.md and report.html into the study's folder; returns the page's path.

    intro: plain text, paragraphs apart by an empty line. figures: (heading, caption, path of a PNG).
    """
    rows = sorted(rows, key=_natural)
    manifest = Run(study.path / "main").manifest
    write_json(study.path / "claims.json", rows)
    write_atomic(study.path / "claims.md", report.markdown(rows, title, intro))
    write_atomic(study.path / "report.html", report.page(rows, title, intro, figures, manifest, study.path))
    return study.path / "report.html"


def publish(
    settings, claims: Sequence[Claim], figures: Sequence[tuple[str, str, str, str]], title: str, intro: str, mend: str
) -> None:
    """Measure every claim in settings.study; write claims.json, claims.md and report.html; print the table.

    settings.save: also write the rows, with the manifest of the main run, to that JSON file. figures: (heading, caption, run,
    analysis); those that are not there are left out. mend: the command that makes a study. Raises UserError without one.
    """
    study = Study(settings.study)
    if not (study.path / "main").is_dir():
        raise UserError(f"found no run {study.path / 'main'}, expected a study with one; make it with: {mend}")
    rows = judge(claims, study)
    places = [
        (heading, caption, study.path / run / "figures" / f"{name}.png") for heading, caption, run, name in figures
    ]
    page = write(study, rows, title, intro, [place for place in places if place[2].exists()])
    if settings.save:
        write_json(Path(settings.save), {"manifest": study.run("main").manifest, "claims": rows})
    print_table(rows)
    print(page)


def index(root: str | Path = "runs") -> Path:
    """Write <root>/index.html over all studies that have claims; returns its path."""
    paths = sorted(Path(root).glob("*/*/claims.json"))
    if not paths:
        raise UserError(f"found no */*/claims.json in {root}, expected a study; make one with: make repro")
    studies = [(path.parent, Study(path.parent).preset, json.loads(path.read_text())) for path in paths]
    write_atomic(Path(root) / "index.html", report.index(studies))
    return Path(root) / "index.html"


def print_table(rows: list[dict]) -> None:
    """Print the rows, a line each."""
    print(report.terminal(rows))


def _row(claim: Claim, study: Study) -> dict:
    here = study.preset in claim.presets
    # A claim of another scale is measured in the study of that name beside this one.
    home = study.path if here else study.path.parent / claim.presets[0]
    command = claim.command.replace("{study}", str(home))
    elsewhere = Measurement(None, None, "not at this scale", 0, f"Measured at preset {' or '.join(claim.presets)}")
    found = _measure(claim, study, command) if here else elsewhere
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "preset": study.preset,
        "measured": plain(found.value),
        "error": plain(found.error),
        "expected": claim.expected,
        "verdict": found.verdict,
        "command": command,
        "seeds": found.seeds,
        "note": found.note,
    }


def _measure(claim: Claim, study: Study, command: str) -> Measurement:
    try:
        return claim.measure(study)
    except Missing as missing:
        return Measurement(None, None, "inconclusive", 0, f"{missing}; make it with: {command}")


def _natural(row: dict) -> list:
    """Sort key that puts C2 before C10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", row["id"])]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", default="runs", help="folder of all runs (runs)")
    try:
        print(index(parser.parse_args(argv).runs))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    return 0


if __name__ == "__main__":
    sys.exit(main())
