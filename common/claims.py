"""A claim of a paper, its number per seed, its bounds, and the verdict that follows from a study.

    python -m common.claims [RUNS]     an index over all studies below RUNS (by default runs)

A claim stands in the file of the experiment that makes its number. Each of at least three seeds meets all bounds:
"reproduced"; none does: "contradicted"; anything else, a missing result included: "inconclusive". A claim that a study's
preset is not meant to reach is "not at this scale". An error in the measuring code stays an error.
"""

import common.process  # noqa: F401

import argparse
import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

from common import experiment, report
from common.config import UserError, guarded
from common.plain import plain, read_json, write_atomic
from common.run import Run

Numbers = list | dict[str, list]
"""A number per seed, or several under their names. inf: it never came. None: this seed cannot tell."""


class Missing(UserError):
    """A run or a result that a claim needs is not there, or does not fit the others."""


@dataclass(frozen=True)
class Claim:
    """A falsifiable sentence of a paper, and what would show it in a study.

    source: figure, table or section. paper: the paper's own number, as text. presets: those that can test it.
    number: the needed results, in order -> Numbers. needs: results by name, those of other runs than main as "run/name"; by
    default the one of the file that the claim stands in. unit: what is counted, where number gives a single list.
    above, below: bounds that every seed must be beyond; within: (low, high), ends included; each a value, or one per name.
    note: the needed results -> a remark. min_seeds: 1 only for what has no seeds, such as a solver or an identity.
    not_run: why no preset measures it, in place of presets, number and bounds: it stays in the table.
    """

    id: str
    statement: str
    _: KW_ONLY
    source: str
    presets: tuple[str, ...] = ()
    number: Callable[..., Numbers] | None = None
    unit: str = ""
    above: float | dict[str, float] | None = None
    below: float | dict[str, float] | None = None
    within: tuple[float, float] | dict[str, tuple[float, float]] | None = None
    paper: str = ""
    needs: tuple[str, ...] = ()
    note: Callable[..., str] | None = None
    min_seeds: int = 3
    not_run: str = ""

    def __post_init__(self):
        given = {bool(part) for part in (self.presets, self.number, self.bounds)}
        if given != {not self.not_run}:
            raise ValueError(f"{self.id}: expected presets, number and a bound (above, below, within), or not_run")

    @property
    def bounds(self) -> list[dict]:
        """Every bound as {name, kind, value}, in the order of the names."""
        given = [(kind, getattr(self, kind)) for kind in ("above", "below", "within")]
        named = [(kind, v if isinstance(v, dict) else {self.unit: v}) for kind, v in given if v is not None]
        rows = [{"name": name, "kind": kind, "value": v} for kind, values in named for name, v in values.items()]
        names = list(dict.fromkeys(row["name"] for row in rows))
        return sorted(rows, key=lambda row: names.index(row["name"]))

    @property
    def expected(self) -> str:
        """The bounds in words."""
        return "; ".join(f"{row['name']} {report.bound_text(row)}".strip() for row in self.bounds)

    def values(self, *results: dict) -> dict[str, list]:
        """The numbers by name, a value per seed (None for NaN), from the needed results.

        Raises Missing where those that are judged have different numbers of seeds.
        """
        found = self.number(*results)
        named = found if isinstance(found, dict) else {self.unit: found}
        if unknown := {row["name"] for row in self.bounds} - set(named):
            raise KeyError(f"{self.id}: bounds for {sorted(unknown)}, numbers for {list(named)}")
        by_seed(*(named[row["name"]] for row in self.bounds))
        return {name: [_known(value) for value in values] for name, values in named.items()}

    def verdict(self, values: dict[str, list]) -> str:
        """Verdict on numbers by name."""
        judged = [values[row["name"]] for row in self.bounds]
        met = [self.met([column[seed] for column in judged]) for seed in range(len(judged[0]))]
        if len(met) < self.min_seeds:
            return "inconclusive"
        return "reproduced" if all(met) else "contradicted" if not any(m is not False for m in met) else "inconclusive"

    def met(self, numbers: list) -> bool | None:
        """Does a seed meet all bounds? numbers: one per bound. None where it cannot tell and nothing else refutes."""
        seen = [None if n is None else _meets(n, row) for n, row in zip(numbers, self.bounds, strict=True)]
        return False if False in seen else None if None in seen else True


@dataclass(frozen=True)
class Paper:
    """What claims.py says of a paper. full_scale: presets of the paper's own size; elsewhere verdicts are "at reduced scale".

    picture: the experiment whose figure opens the page, as "run/name". sentence: what it shows.
    """

    name: str
    title: str
    citation: str
    target: str
    full_scale: tuple[str, ...]
    picture: str
    sentence: str


class Study:
    """The folder runs/<paper>/<study>: runs, and over them the claims."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def preset(self) -> str:
        """The key `preset` of the main run's config, or else the folder's name."""
        main = Run(self.path / "main")
        return (main.config().get("preset") if main.config_path.exists() else None) or self.path.name

    def result(self, need: str) -> dict:
        """The result "run/name", or "name" of the run main; raises Missing for it, and later for a key it lacks."""
        path = self.file(need, "results", "json")
        if not path.is_file():
            raise Missing(f"found no {path}")
        try:
            result = json.loads(path.read_text(encoding="utf-8"), object_hook=lambda pairs: _Result(pairs, path))
        except (ValueError, RecursionError):
            raise Missing(f"found no valid JSON in {path}") from None
        if not isinstance(result, dict) or not isinstance(result["seeds"], list):
            raise Missing(f"found no result in {path}")
        return result

    def file(self, need: str, folder: str, suffix: str) -> Path:
        """Where an experiment's file lies, such as figures/loss.png of the run main."""
        run, _, name = need.rpartition("/")
        return self.path / (run or "main") / folder / f"{name}.{suffix}"


class _Result(dict):
    """Part of a result; a key that is not there counts as a missing result."""

    def __init__(self, pairs: dict, path: Path):
        super().__init__(pairs)
        self.path = path

    def __missing__(self, key: str):
        raise Missing(f"found no {key} in {self.path}, expected an analysis over all that its config names")


def by_seed(*columns: Sequence) -> list[tuple]:
    """The values of several columns, a tuple per seed; raises Missing where they have different numbers of seeds."""
    if len({len(column) for column in columns}) > 1:
        raise Missing(f"found {', '.join(str(len(c)) for c in columns)} seeds in what is compared, expected as many")
    return list(zip(*columns, strict=True))


def collect(paper: Paper, count: int) -> list[Claim]:
    """The CLAIMS of every experiment of a paper, C1 to C<count>; raises ValueError where one is missing or doubled."""
    found = []
    for path in sorted((experiment.ROOT / paper.name / "analysis").glob("[!_]*.py")):
        module = importlib.import_module(f"{paper.name}.analysis.{path.stem}")
        found += [replace(c, needs=c.needs or (path.stem,)) for c in getattr(module, "CLAIMS", [])]
    found.sort(key=lambda claim: _natural(claim.id))
    expected = [f"C{number}" for number in range(1, count + 1)]
    if (ids := [claim.id for claim in found]) != expected:
        raise ValueError(f"found the claims {', '.join(ids)}, expected C1 to C{count}, each once")
    return found


def judge(paper: Paper, claims: Sequence[Claim], study: Study) -> list[dict]:
    """A row of claims.json per claim."""
    return [_row(paper, claim, study) for claim in claims]


def _row(paper: Paper, claim: Claim, study: Study) -> dict:
    here = study.preset in claim.presets
    home = study.path if here or claim.not_run else study.path.parent / claim.presets[0]
    values, seeds = {}, []
    note = f"Not run: {claim.not_run}" if claim.not_run else f"Measured at preset {' or '.join(claim.presets)}"
    verdict, missing = "not at this scale", claim.needs[0]
    if here:
        values, seeds, note, missing = _measured(paper, claim, study)
        verdict = claim.verdict(values) if values else "inconclusive"
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "preset": study.preset,
        **headline(values),
        "expected": claim.expected,
        "verdict": verdict,
        "command": "" if claim.not_run else experiment.command(paper.name, missing, home),
        "reduced": study.preset not in paper.full_scale,
        "paper": claim.paper,
        "bounds": claim.bounds,
        "values": {name: [written(value) for value in column] for name, column in values.items()},
        "seeds": seeds,
        "note": note,
        "figure": claim.needs[0],
    }


def _measured(paper: Paper, claim: Claim, study: Study) -> tuple[dict, list, str, str]:
    """(values, seeds, note, the need whose command mends or makes it); values are empty where something is missing."""
    results, need = [], claim.needs[0]
    try:
        for need in claim.needs:
            results.append(study.result(need))
        seeds = [result["seeds"] for result in results]
        if differ := next((n for n, s in zip(claim.needs, seeds, strict=True) if len(s) != len(seeds[0])), None):
            raise Missing(
                f"found {len(seeds[0])} seeds in {claim.needs[0]} and another number in {differ}, expected as many"
            )
        values = claim.values(*results)
        return values, seeds[0], claim.note(*results) if claim.note else "", claim.needs[0]
    except Missing as missing:
        return {}, [], f"{missing}; make it with: {experiment.command(paper.name, need, study.path)}", need


def headline(values: dict[str, list]) -> dict:
    """measured and error of a row: mean and half-width of the 95% t-interval of the first numbers; as text with a never."""
    return report.headline([written(value) for value in next(iter(values.values()), [])])


def written(value: float | None) -> float | str | None:
    """A number as claims.json has it: inf as "never"."""
    return "never" if value == math.inf else plain(value)


def number_of(value: float | str | None) -> float | None:
    """Back from `written`."""
    return math.inf if value == "never" else value


def _known(value) -> float | None:
    return None if value is None or value != value else float(value)


def _meets(number: float, bound: dict) -> bool:
    value = bound["value"]
    if bound["kind"] == "within":
        return value[0] <= number <= value[1]
    return number > value if bound["kind"] == "above" else number < value


def _natural(text: str) -> list:
    """Sort key that puts C2 before C10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def index(root: str | Path = "runs") -> Path:
    """Write <root>/index.html over all studies that have claims; returns its path."""
    paths = sorted(Path(root).glob("*/*/claims.json"))
    if not paths:
        raise UserError(f"found no */*/claims.json in {root}, expected a study; make one with: make repro")
    mend = "make it anew with that paper's claims.py --study, or delete that file"
    studies = [(path.parent, Study(path.parent).preset, read_json(path, list, mend)) for path in paths]
    if bad := [path for path, (_, _, rows) in zip(paths, studies, strict=True) if not _are_rows(rows)]:
        raise UserError(f"found no claims in {bad[0]}, expected rows with a verdict each; {mend}")
    write_atomic(Path(root) / "index.html", report.index(studies))
    return Path(root) / "index.html"


def _are_rows(rows: list) -> bool:
    return bool(rows) and all(isinstance(row, dict) and {"verdict", "reduced"} <= row.keys() for row in rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", default="runs", help="folder of all runs (runs)")
    args = parser.parse_args(argv)
    return guarded(lambda: print(index(args.runs)))


if __name__ == "__main__":
    sys.exit(main())
