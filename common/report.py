"""Rows of claims.json as a page: HTML for paper and phone, Markdown, and a table for the terminal."""

import base64
import re
import struct
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from math import floor, log10
from pathlib import Path

from common.experiment import interval
from common.strip import number, papers, strip

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not at this scale")
INTERVAL = "± is the half-width of the 95% t-interval over seeds"
# The dots per inch at which common.plotting draws, and those of CSS.
DPI, CSS_DPI = 150, 96


def page(paper, rows: list[dict], figures: Sequence[dict], manifests: Sequence[dict], study: Path) -> str:
    """HTML of a study, with everything inside it.

    paper: a common.claims.Paper. figures: {name, caption, path of a PNG}, the one that opens the page first. manifests: those
    of the main runs.
    """
    drawn = [f | {"image": _embedded(f["path"]), "linked": _linked(f, rows)} for f in figures]
    return _render(
        "report.html.j2",
        paper=paper,
        place=" / ".join(study.parts[-2:]),
        rows=[row | {"label": label(row), "readings": readings(row)} for row in rows],
        counts=counts(rows),
        picture=drawn[0],
        figures=drawn[1:],
        linked={figure["name"] for figure in drawn},
        reduced=any(row["reduced"] for row in rows),
        twice=any("verdicts" in row for row in rows),
        interval=INTERVAL,
        origins=[_origin(manifest) for manifest in manifests if {"versions", "command", "start"} <= manifest.keys()],
    )


def index(studies: list[tuple[Path, str, list[dict]]]) -> str:
    """HTML over studies: (folder, preset, rows) each; links are relative to the folder two above."""
    lines = [
        {"paper": folder.parent.name, "study": folder.name, "preset": preset, "counts": counts(rows)}
        | {"reduced": any(row["reduced"] for row in rows)}
        for folder, preset, rows in studies
    ]
    return _render("index.html.j2", title="Turning Points", studies=lines, verdicts=VERDICTS)


def markdown(paper, rows: list[dict]) -> str:
    """The same table as Markdown; its head says what made it."""
    head = ("", "Claim", "Source", "Verdict", "Expected", "Measured", "Paper", "Seeds", "Note", "Command")
    lines = [head, ["---"] * len(head)]
    for row in rows:
        numbers = "; ".join(f"{reading['name']} {reading['summary']}".strip() for reading in readings(row)) or "–"
        cells = (row["id"], row["statement"], row["source"], f"**{label(row)}**", row["expected"] or "–", numbers)
        cells += (row["paper"] or "–", ", ".join(map(str, row["seeds"])) or "–", row["note"])
        command = f"`{_cell(row['command'])}`" if row["command"] else "–"
        lines.append([*(_cell(cell) for cell in cells), command])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    made = f"Made by `python {paper.name}/claims.py` from the results of the runs; not to be edited by hand."
    return "\n\n".join([f"# {paper.title}", made, paper.citation, summary(rows), table, f"{INTERVAL}."]) + "\n"


def terminal(rows: list[dict]) -> str:
    """The same table in at most 120 columns, statements cut where they must be, and the counts."""
    widths = [max(len(text(row)) for row in rows) for text in (lambda row: row["id"], label)]
    lines = []
    for row in rows:
        start = f"{row['id']:{widths[0]}}  {label(row):{widths[1]}}  {textwrap.shorten(shown(row), 24, placeholder='…'):24}  "
        lines.append(start + textwrap.shorten(row["statement"], 120 - len(start), placeholder="…"))
    return "\n".join([*lines, summary(rows)])


def summary(rows: list[dict]) -> str:
    """One line: how many claims, and how many of each verdict."""
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts(rows).items())
    scale = ", at reduced scale" if any(row["reduced"] for row in rows) else ""
    return f"{len(rows)} claims at preset {rows[0]['preset']}{scale}: {parts}."


def counts(rows: list[dict]) -> dict[str, int]:
    """Rows of each verdict, in the order of VERDICTS."""
    found = Counter(row["verdict"] for row in rows)
    return {verdict: found[verdict] for verdict in VERDICTS}


def label(row: dict) -> str:
    """The verdict with the scale it holds at."""
    apart = row["reduced"] and row["verdict"] != "not at this scale"
    return row["verdict"] + (" at reduced scale" if apart else "")


def readings(row: dict) -> list[dict]:
    """Per named number of a row: {name, bound, summary, numbers, strip}, all but the last as text."""
    found = []
    for place, (name, column) in enumerate(row["values"].items()):
        bounds = [bound for bound in row["bounds"] if bound["name"] == name]
        found.append(
            {
                "name": name,
                "bound": " and ".join(bound_text(bound) for bound in bounds),
                "summary": shown(headline(column)),
                "numbers": ", ".join(map(number, column)),
                "strip": strip(column, row["seeds"], bounds, papers(row["paper"], name, place == 0)),
            }
        )
    return found


def bound_text(bound: dict) -> str:
    """A bound in words: "> 0.99", "from 1 to 2"."""
    value = bound["value"]
    if bound["kind"] == "within":
        return f"from {value[0]:.3g} to {value[1]:.3g}"
    return f"{'>' if bound['kind'] == 'above' else '<'} {value:.3g}"


def headline(column: Sequence) -> dict:
    """measured and error of a column of claims.json: mean and half-width of the 95% t-interval; as text with a never."""
    known = [value for value in column if value is not None]
    if known and "never" not in known:
        mean, error = interval(known)
        return {"measured": mean, "error": error}
    return {"measured": ", ".join(map(number, column)) or None, "error": None}


def shown(row: dict) -> str:
    """The measurement as text: "0.0163 ± 0.0012", with two digits of the error."""
    value, error = row["measured"], row["error"]
    if value is None or isinstance(value, str):
        return value or "–"
    if not error:
        return number(value)
    places = max(0, 1 - floor(log10(error)))
    pair = (f"{value:.{places}f}", f"{error:.{places}f}") if places < 8 else (f"{value:.3g}", f"{error:.2g}")
    # With minus signs and a hard space the pair can break before the ± only.
    return " ±\u00a0".join(pair).replace("-", "−")


def _cell(value) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _render(template: str, **values) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def _linked(figure: dict, rows: Sequence[dict]):
    """The caption in HTML, with links to the claims that it names, and to those that name the figure."""
    from markupsafe import Markup, escape

    mentioned = set(re.findall(r"\bC\d+\b", figure["caption"]))
    others = [row["id"] for row in rows if row["figure"] == figure["name"] and row["id"] not in mentioned]
    text = f"{figure['caption']} {', '.join(others)}".strip()
    ids = {row["id"] for row in rows}
    return Markup(re.sub(r"\bC\d+\b", lambda m: f'<a href="#{m[0]}">{m[0]}</a>' if m[0] in ids else m[0], escape(text)))


def _embedded(path: Path) -> dict | None:
    """A PNG as a data address, with its size in CSS pixels; None if there is no such file."""
    if not Path(path).exists():
        return None
    content = Path(path).read_bytes()
    width, height = (round(side * CSS_DPI / DPI) for side in struct.unpack(">II", content[16:24]))
    return {"source": f"data:image/png;base64,{base64.b64encode(content).decode()}", "width": width, "height": height}


def _origin(manifest: dict) -> dict[str, str]:
    """What the foot of the page says of a main run."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items() if version)
    commit = manifest["commit"][:12] if manifest["commit"] else "not in git"
    return {
        "Command": manifest["command"],
        "Machine": f"{manifest['device']}; {manifest['threads']} threads; {manifest['platform']}",
        "Main run": _duration(manifest),
        "Code": commit + (", with local changes" if manifest["dirty"] else ""),
        "Versions": versions,
    }


def _duration(manifest: dict) -> str:
    if manifest["state"] != "finished":
        return f"{manifest['state']}, started {manifest['start']}"
    start, end = (datetime.fromisoformat(manifest[key]) for key in ("start", "end"))
    minutes, seconds = divmod(round((end - start).total_seconds()), 60)
    return f"{minutes} min {seconds} s, on {start:%d %B %Y}" + (", resumed on the way" if manifest["resumed"] else "")
