"""Rows of claims.json as a page: HTML for paper and phone, Markdown, and a table for the terminal."""

import base64
import struct
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from math import floor, log10
from pathlib import Path

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not at this scale")
# The dots per inch at which common.plotting draws, and those of CSS.
DPI, CSS_DPI = 150, 96


def page(rows: list[dict], title: str, intro: str, figures: Sequence, manifest: dict, study: Path) -> str:
    """HTML of a study, with everything inside it. figures: (heading, caption, path of a PNG)."""
    return _render(
        "report.html.j2",
        title=title,
        intro=intro.split("\n\n"),
        place=" / ".join(study.parts[-2:]),
        rows=[row | {"shown": shown(row)} for row in rows],
        counts=counts(rows),
        figures=[(heading, caption, _embedded(path)) for heading, caption, path in figures],
        origin=_origin(manifest),
    )


def index(studies: list[tuple[Path, str, list[dict]]]) -> str:
    """HTML over studies: (folder, preset, rows) each; links are relative to the folder two above."""
    lines = [
        {"paper": folder.parent.name, "study": folder.name, "preset": preset, "counts": counts(rows)}
        for folder, preset, rows in studies
    ]
    return _render("index.html.j2", title="Turning points", studies=lines, verdicts=VERDICTS)


def markdown(rows: list[dict], title: str, intro: str) -> str:
    """The same table as Markdown."""
    head = ("", "Claim", "Verdict", "Expected", "Measured", "Preset", "Seeds", "Command")
    lines = [head, ["---"] * len(head)]
    for row in rows:
        claim = f"{row['statement']} ({row['source']})" + (f"<br>{row['note']}" if row["note"] else "")
        cells = (row["id"], claim, f"**{row['verdict']}**", row["expected"], shown(row), row["preset"], row["seeds"])
        lines.append([*(_cell(cell) for cell in cells), f"`{_cell(row['command'])}`"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    foot = "± is the half-width of the 95% t-interval over seeds."
    return "\n\n".join([f"# {title}", intro, summary(rows), table, foot]) + "\n"


def terminal(rows: list[dict]) -> str:
    """The same table in at most 120 columns, statements cut where they must be, and the counts."""
    width = max(len(row["id"]) for row in rows)
    lines = []
    for row in rows:
        start = f"{row['id']:{width}}  {row['verdict']:17}  {textwrap.shorten(shown(row), 24, placeholder='…'):24}  "
        lines.append(start + textwrap.shorten(row["statement"], 120 - len(start), placeholder="…"))
    return "\n".join([*lines, summary(rows)])


def summary(rows: list[dict]) -> str:
    """One line: how many claims, and how many of each verdict."""
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts(rows).items())
    return f"{len(rows)} claims at preset {rows[0]['preset']}: {parts}."


def counts(rows: list[dict]) -> dict[str, int]:
    """Rows of each verdict, in the order of VERDICTS."""
    found = Counter(row["verdict"] for row in rows)
    return {verdict: found[verdict] for verdict in VERDICTS}


def shown(row: dict) -> str:
    """The measurement as text: "0.0163 ± 0.0012", with two digits of the error."""
    value, error = row["measured"], row["error"]
    if value is None or isinstance(value, str):
        return value or "–"
    if not error:
        return (f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}").replace("-", "−")
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


def _embedded(path: Path) -> dict | None:
    """A PNG as a data address, with its size in CSS pixels; None if there is no such file."""
    if not Path(path).exists():
        return None
    content = Path(path).read_bytes()
    width, height = (round(side * CSS_DPI / DPI) for side in struct.unpack(">II", content[16:24]))
    return {"source": f"data:image/png;base64,{base64.b64encode(content).decode()}", "width": width, "height": height}


def _origin(manifest: dict) -> dict[str, str]:
    """What the foot of the page says of the main run."""
    if not manifest:
        return {}
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
