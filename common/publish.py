"""What <paper>/claims.py does: judge a study, write its page and tables, publish them, compare a study with those published."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import config, experiment, report
from common.claims import Claim, Paper, Study, headline, judge, number_of
from common.config import UserError
from common.limits import Place
from common.plain import write_atomic, write_json
from common.run import Run

LEVEL = 0.99
"""Of the interval in which a reader's mean is expected, given the published seeds."""


@dataclass
class Judge:
    """Settings of <paper>/claims.py."""

    study: Place | None = None
    """Folder of the study; runs/<paper>/quick by default."""
    second: Place | None = None
    """Another study of the same preset, from other seeds: a claim on which the two differ is inconclusive."""
    save: bool = False
    """Also publish: results/<paper>/<preset>.json and .md."""
    against: Place | None = None
    """A published JSON to compare the study with, such as results/<paper>/quick.json; exit code 1 where something departs."""


def main(paper: Paper, claims: Sequence[Claim]) -> None:
    """Entry point of a paper's claims.py."""
    config.main(lambda settings: publish(paper, claims, settings), Judge)


def publish(paper: Paper, claims: Sequence[Claim], settings: Judge) -> int:
    """Write claims.json, claims.md and report.html into the study, print the table; returns the exit code.

    Raises UserError where a study is missing, where two do not belong together, and for an unusable published file.
    """
    study = _study(paper, settings.study or f"runs/{paper.name}/quick")
    rows, manifests = judge(paper, claims, study), [Run(study.path / "main").manifest]
    if settings.second:
        other = _study(paper, settings.second)
        rows = merged(rows, judge(paper, claims, other))
        manifests.append(Run(other.path / "main").manifest)
    _write(paper, rows, study, manifests)
    if settings.save:
        _save(paper, rows, study.preset, manifests)
    print(report.terminal(rows))
    print(study.path / "report.html")
    return _compare(rows, Path(settings.against)) if settings.against else 0


def _study(paper: Paper, path: str) -> Study:
    study = Study(path)
    if not (study.path / "main").is_dir():
        raise UserError(f"found no run {study.path / 'main'}, expected a study with one; make it with: {paper.target}")
    for path in sorted(study.path.glob("*/manifest.json")):
        if (name := Run(path.parent).manifest.get("paper")) not in (None, paper.name):
            raise UserError(
                f"found a run of {name} in {study.path}, expected a study of {paper.name}; give another --study"
            )
    return study


def _write(paper: Paper, rows: list[dict], study: Study, manifests: list[dict]) -> None:
    write_json(study.path / "claims.json", rows)
    write_atomic(study.path / "claims.md", report.markdown(paper, rows))
    page = report.page(paper, rows, figures(paper, rows, study), manifests, study.path)
    write_atomic(study.path / "report.html", page)


def _save(paper: Paper, rows: list[dict], preset: str, manifests: list[dict]) -> None:
    home = Path("results") / paper.name
    published = dict(zip(("manifest", "second_manifest"), manifests, strict=False)) | {"claims": rows}
    write_json(home / f"{preset}.json", published)
    write_atomic(home / f"{preset}.md", report.markdown(paper, rows))


def figures(paper: Paper, rows: Sequence[dict], study: Study) -> list[dict]:
    """{name, caption, path} of the picture of the paper, of the claims' figures in their order, and of all others drawn.

    name: "run/name", or "name" of the run main. The picture comes first even where it is not drawn.
    """
    drawn = sorted(study.path.glob("*/figures/*.png"), key=lambda path: (path.parts[-3] != "main", path))
    others = [f"{'' if path.parts[-3] == 'main' else path.parts[-3] + '/'}{path.stem}" for path in drawn]
    names = dict.fromkeys([*(row["figure"] for row in rows), *others])
    named = [paper.picture, *(name for name in names if name in others and name != paper.picture)]
    return [
        {"name": name, "caption": _caption(paper, name), "path": study.file(name, "figures", "png")} for name in named
    ]


def _caption(paper: Paper, name: str) -> str:
    """First line of the header of the experiment's config; a second figure of one (<experiment>_<part>) has its too."""
    stem = name.rpartition("/")[2]
    while stem:
        path = experiment.ROOT / paper.name / "configs" / f"{stem}.yaml"
        if path.is_file():
            return path.read_text(encoding="utf-8").split("\n")[0].lstrip("# ")
        stem = stem.rpartition("_")[0]
    return ""


def merged(first: Sequence[dict], second: Sequence[dict]) -> list[dict]:
    """Rows over two disjoint sets of judging seeds; raises UserError where the presets differ or seeds are shared.

    A claim on which the sets differ is inconclusive. Numbers and seeds of both stand in a row, `verdicts` has one of each.
    """
    return [_merged(a, b) for a, b in zip(first, second, strict=True)]


def _merged(a: dict, b: dict) -> dict:
    if a["preset"] != b["preset"]:
        raise UserError(f"found presets {a['preset']} and {b['preset']}, expected two studies of one")
    if shared := sorted(set(a["seeds"]) & set(b["seeds"])):
        raise UserError(f"{a['id']}: found {shared} among the seeds of both studies, expected disjoint ones")
    names = {**a["values"], **b["values"]}
    values = {name: [*_column(a, name), *_column(b, name)] for name in names}
    verdicts = [a["verdict"], b["verdict"]]
    return (
        a
        | headline({name: [number_of(value) for value in column] for name, column in values.items()})
        | {"verdict": verdicts[0] if verdicts[0] == verdicts[1] else "inconclusive", "verdicts": verdicts}
        | {"values": values, "seeds": a["seeds"] + b["seeds"], "note": _note(a, b)}
    )


def _column(row: dict, name: str) -> list:
    """Numbers of a row under a name; where it lacks the name, None for each seed that it judged."""
    judged = next(iter(row["values"].values()), [])
    return row["values"].get(name, [None] * len(judged))


def _note(a: dict, b: dict) -> str:
    """What the sets say, each under its seeds where they differ."""
    differ = a["verdict"] != b["verdict"]
    if not differ and a["note"] == b["note"]:
        return a["note"]
    parts = []
    for row in (a, b):
        said = ", ".join(filter(None, (row["verdict"] if differ else "", row["note"])))
        parts.append(f"seeds {', '.join(map(str, row['seeds'])) or 'not judged'}: {said}")
    return "; ".join(parts)


def _compare(rows: list[dict], path: Path) -> int:
    try:
        published = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))["claims"]}
        theirs, ours = {row["preset"] for row in published.values()}, rows[0]["preset"]
        if theirs != {ours}:
            raise UserError(f"found preset {ours} in the study and {', '.join(theirs)} in {path}, expected the same")
        lines = {row["id"]: departures(row, published.get(row["id"])) for row in rows}
        lines |= {id: ["not among this study's claims"] for id in published if id not in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"found no published claims in {path} ({type(error).__name__}: {error})") from None
    departing = {id: found for id, found in lines.items() if found}
    for id, found in departing.items():
        print(f"{id} departs: {'; '.join(found)}")
    numbers = sum(len(row["values"]) for row in rows)
    print(
        f"{len(lines) - len(departing)} of {len(lines)} claims agree with {path}, {len(departing)} depart "
        f"({numbers} numbers compared, each with a {LEVEL:.0%} interval)"
    )
    return 1 if departing else 0


def departures(row: dict, published: dict | None) -> list[str]:
    """What departs in a reader's row from the published one: the verdict, and numbers beyond what its seeds let expect."""
    if published is None:
        return ["not among the published claims"]
    verdicts = {published["verdict"], *published.get("verdicts", [])}
    found = [] if row["verdict"] in verdicts else [f"verdict {row['verdict']}, published {published['verdict']}"]
    for name, reference in published["values"].items():
        if text := _departs(row["values"].get(name, []), reference):
            found.append(f"{name} {text}".strip())
    return found


def _departs(values: Sequence, reference: Sequence) -> str | None:
    """How a column departs from the published one, if it does."""
    (ours, ours_never), (theirs, theirs_never) = _split(values), _split(reference)
    if not ours and not ours_never:
        return "has no number" if theirs or theirs_never else None
    if ours_never and not ours and not theirs_never:
        return "never came in any seed, published in each"
    if theirs_never and not theirs and not ours_never:
        return "came in every seed, published in none"
    if not ours or not theirs:
        return None
    mean, (low, high) = float(np.mean(ours)), expected(theirs, len(ours))
    if low <= mean <= high:
        return None
    return f"{report.number(mean)}, expected from {report.number(low)} to {report.number(high)}"


def expected(reference: Sequence[float], count: int) -> tuple[float, float]:
    """Interval in which the mean of `count` new seeds is expected, from the reference's N: mean ± t s sqrt(1/N + 1/count).

    One reference, such as a solver's, says nothing of the scatter: everything is expected. Where all of them agree, a
    relative 1e-6 is.
    """
    from scipy.special import stdtrit

    n, mean = len(reference), float(np.mean(reference))
    if n < 2:
        return -math.inf, math.inf
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * np.std(reference, ddof=1) * math.sqrt(1 / n + 1 / count))
    half = max(half, 1e-6 * abs(mean))
    return mean - half, mean + half


def _split(column: Sequence) -> tuple[list[float], int]:
    """The numbers of a column, and how many are "never"."""
    return [v for v in column if isinstance(v, int | float)], sum(v == "never" for v in column)
