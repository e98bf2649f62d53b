"""Claims: verdicts that no lucky seed can buy, rows as agreed, and a page that a real browser lays out well."""

import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common import claims, plotting, report
from common.claims import Claim, Measurement, Missing, Study, interval, judge, verdict_above, verdict_below
from common.run import Run, UserError

KEYS = {"id", "statement", "source", "preset", "measured", "error", "expected", "verdict", "command", "seeds", "note"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome found")


@dataclass
class Config:
    preset: str = "quick"


def claim(
    id="C1", measure=lambda study: Measurement(0.01634, 0.00121, "reproduced", 3), presets=("quick", "gpu"), **other
):
    command = "python paper/analysis/loss.py --config paper/configs/loss.yaml --run {study}/main"
    parts = {"statement": "The loss <falls> | at once", "source": "Fig 1", "expected": "below 0.02", "command": command}
    return Claim(id=id, presets=presets, measure=measure, **(parts | other))


@pytest.fixture
def study(tmp_path):
    """A finished main run at preset quick, with one result."""
    run = Run.create(tmp_path / "runs" / "paper" / "first" / "main", Config())
    run.result("loss", {"final": [0.1, 0.2]})
    run.finish()
    return Study(run.path.parent)


# The measure of belief


def test_interval_equals_the_t_interval_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = [0.12, 0.31, 0.27, 0.2]
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    mean, half_width = interval(values)
    assert math.isclose(mean - half_width, low) and math.isclose(mean + half_width, high)


def test_interval_of_one_seed_has_no_width():
    assert interval([0.5]) == (0.5, None)


def test_no_lucky_seed_makes_a_verdict():
    assert verdict_below([0.1, 0.2, 0.3], 0.5) == "reproduced"
    assert verdict_below([0.1, 0.2], 0.5) == "inconclusive"
    assert verdict_below([0.1, 0.2, 0.9], 0.5) == "inconclusive"
    assert verdict_below([0.6, 0.7, 0.9], 0.5) == "contradicted"
    assert verdict_below([0.1], 0.5, min_seeds=1) == "reproduced"
    assert verdict_below([], 0.5, min_seeds=0) == "inconclusive"


def test_a_value_on_the_threshold_or_not_a_number_is_on_no_good_side():
    assert verdict_below([0.5] * 3, 0.5) == verdict_above([0.5] * 3, 0.5) == "contradicted"
    assert verdict_below([0.1, 0.1, math.nan], 0.5) == verdict_above([math.nan] * 3, 0.5) == "inconclusive"


def test_above_mirrors_below():
    values = np.random.default_rng(0).normal(size=(50, 3))
    for row in values:
        assert verdict_above(row, 0.2) == verdict_below(-row, -0.2)


def test_a_verdict_of_another_name_is_refused():
    with pytest.raises(ValueError, match="confirmed"):
        Measurement(1.0, None, "confirmed", 3)


# Rows


def test_row_has_exactly_the_agreed_keys(study):
    (row,) = judge([claim()], study)
    assert set(row) == KEYS
    assert (row["measured"], row["error"], row["verdict"], row["preset"]) == (0.01634, 0.00121, "reproduced", "quick")
    assert row["command"].endswith(f"--run {study.path}/main")


def test_claim_of_another_preset_is_not_at_this_scale_and_not_measured(study):
    (row,) = judge([claim(measure=lambda study: 1 / 0, presets=("gpu", "paper"))], study)
    assert (row["verdict"], row["measured"], row["seeds"]) == ("not at this scale", None, 0)
    assert "gpu or paper" in row["note"]
    assert row["command"].endswith(f"{study.path.parent}/gpu/main")


def test_missing_result_is_inconclusive_and_says_how_to_make_it(study):
    (row,) = judge([claim(measure=lambda study: study.result("probe"))], study)
    assert row["verdict"] == "inconclusive"
    assert "probe" in row["note"] and row["command"] in row["note"]
    (row,) = judge([claim(measure=lambda study: study.result("loss", run="gone"))], study)
    assert row["verdict"] == "inconclusive" and "gone" in row["note"]


def test_an_error_in_the_measure_is_no_verdict(study):
    with pytest.raises(KeyError, match="finale"):
        judge([claim(measure=lambda study: study.result("loss")["finale"])], study)


def test_study_reads_its_runs_and_names_what_is_missing(study):
    assert study.result("loss") == {"final": [0.1, 0.2]}
    assert study.run().path == study.path / "main"
    with pytest.raises(Missing, match="other"):
        study.run("other")
    assert issubclass(Missing, UserError)


def test_preset_is_the_main_runs_or_else_the_folders_name(study, tmp_path):
    assert (study.preset, Study(tmp_path / "gpu").preset) == ("quick", "gpu")


def test_rows_come_in_the_order_a_reader_expects(study):
    rows = judge([claim(id) for id in ("C10", "C2", "B1", "C2b", "C1")], study)
    assert [row["id"] for row in rows] == ["B1", "C1", "C2", "C2b", "C10"]


# Text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.01634, 0.00121, "0.0163 ±\u00a00.0012"),
        (6321.3, 523.2, "6321 ±\u00a0523"),
        (3.2e-12, 1.1e-13, "3.2e−12 ±\u00a01.1e−13"),
        (-0.5, 0.25, "−0.50 ±\u00a00.25"),
        (0.25, None, "0.25"),
        (0.25, 0.0, "0.25"),
        (-15000.0, None, "−15000"),
        (None, None, "–"),
        ("yes", None, "yes"),
    ],
)
def test_measurements_are_rounded_to_their_error(value, error, text):
    assert report.shown({"measured": value, "error": error}) == text


def test_terminal_table_fits_120_columns(study, capsys):
    claims.print_table(judge([claim("C1"), claim("C22", statement="word " * 60)], study))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 120
    assert lines[-1] == "2 claims at preset quick: 2 reproduced, 0 contradicted, 0 inconclusive, 0 not at this scale."


# The page


FOUND = (1.5, math.nan, "two of three", None)


@pytest.fixture
def page(study):
    """report.html of a study with four verdicts, a figure, and one that is not there."""
    fig, ax = plotting.axes()
    plotting.seed_lines(ax, range(100), np.random.default_rng(0).normal(size=(3, 100)), label="loss", color="red")
    drawn = plotting.save(fig, study.path / "main" / "figures" / "loss", {})
    measured = zip(("C1", "C2", "C10", "C11"), FOUND, report.VERDICTS, strict=True)
    made = {id: Measurement(value, 0.1, verdict, 3, "a note") for id, value, verdict in measured}
    rows = judge([claim(id, lambda study, found=found: found) for id, found in made.items()], study)
    figures = [("Loss", "Every seed.", drawn), ("Width", "Not made.", study.path / "none.png")]
    return claims.write(study, rows, "A <title>", "One.\n\nTwo & more.", figures)


def test_page_is_one_file_with_everything_in_it(page):
    text = page.read_text()
    assert not re.search(r"<script|<link|@import|url\(|src=\"(?!data:image/png;base64,)|https?://", text)
    assert "A &lt;title&gt;" in text and "The loss &lt;falls&gt; | at once" in text
    assert "<p>One.</p>" in text and "<p>Two &amp; more.</p>" in text
    assert "Not drawn in this study" in text
    assert "torch" in text and "0 min" in text


def test_json_and_markdown_say_the_same_as_the_page(page):
    rows = json.loads((page.parent / "claims.json").read_text())
    assert [row["id"] for row in rows] == ["C1", "C2", "C10", "C11"]
    assert {frozenset(row) for row in rows} == {frozenset(KEYS)}
    table = [line for line in (page.parent / "claims.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}
    assert all(f"**{row['verdict']}**" in line for row, line in zip(rows, table[2:], strict=True))


def test_page_without_a_main_run_has_no_origin(tmp_path):
    study = Study(tmp_path / "runs" / "paper" / "quick")
    path = claims.write(study, judge([claim()], study), "Title", "Intro", [])
    assert "Versions" not in path.read_text() and "Figures" not in path.read_text()


def test_index_links_every_study_relative_to_itself(page, study, tmp_path):
    other = Study(tmp_path / "runs" / "other_paper" / "gpu")
    claims.write(other, judge([claim(presets=("paper",))], other), "Title", "Intro", [])
    path = claims.index(tmp_path / "runs")
    links = re.findall(r'href="([^"]+)"', path.read_text())
    assert links == ["other_paper/gpu/report.html", "paper/first/report.html"]
    assert all((path.parent / link).is_file() for link in links)


def test_index_over_nothing_is_a_users_mistake(tmp_path, capsys):
    assert claims.main([str(tmp_path)]) == 2
    assert "make repro" in capsys.readouterr().err


LOOK = """
<body style="margin: 0"><iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
  const boxes = [...inner.querySelectorAll("td, th, p, img, code, caption")].map(e => e.getBoundingClientRect());
  document.body.dataset.seen = JSON.stringify({{
    scroll: root.scrollWidth, client: root.clientWidth,
    right: Math.max(...boxes.map(box => box.right)),
    claims: inner.querySelectorAll("table.claims tbody").length,
    verdicts: [...inner.querySelectorAll("td.verdict")].map(e => e.innerText),
    images: [...inner.images].map(image => image.complete && image.naturalWidth > 0),
    row: getComputedStyle(inner.querySelector("tbody tr")).display,
  }});
}});
</script></body>
"""


def browse(tmp_path, *arguments):
    """Run the browser headless, off the network, on a profile of its own; returns what it prints."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += [
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    return subprocess.run([BROWSER, *flags, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


def seen(tmp_path, page: Path, width: int) -> dict:
    """What a window of that many CSS pixels shows: headless Chromium has none below 500, hence the frame."""
    frame = tmp_path / f"frame{width}.html"
    frame.write_text(LOOK.format(width=width, page=html.escape(page.read_text())))
    dump = browse(
        tmp_path, "--virtual-time-budget=5000", f"--window-size={max(width, 500)},900", "--dump-dom", frame.as_uri()
    )
    return json.loads(html.unescape(re.search(r'data-seen="([^"]+)"', dump)[1]))


@needs_browser
@pytest.mark.parametrize(("width", "row"), [(1200, "table-row"), (390, "grid"), (360, "grid")])
def test_browser_shows_all_of_it_without_sideways_scrolling(tmp_path, page, width, row):
    look = seen(tmp_path, page, width)
    assert look["scroll"] <= look["client"] == width
    assert look["right"] <= width
    assert look["claims"] == 4
    assert look["verdicts"] == list(report.VERDICTS)
    assert look["images"] == [True]
    # A row of the table on a screen, a card on a phone.
    assert look["row"] == row


@needs_browser
def test_browser_draws_the_page_dark_on_white(tmp_path, page):
    shot = tmp_path / "shot.png"
    browse(tmp_path, "--window-size=1200,900", f"--screenshot={shot}", page.as_uri())
    with plotting.Image.open(shot) as image:
        grey = np.asarray(image.convert("L"))
    assert np.median(grey) == 255
    assert 0.01 < (grey < 128).mean() < 0.2


@needs_browser
def test_printed_page_is_a4(tmp_path, page):
    printed = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={printed}", page.as_uri())
    width, height = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed.read_bytes()).groups())
    # A4 is 210 x 297 mm; a point is 1/72 inch.
    assert abs(width - 210 / 25.4 * 72) < 1 and abs(height - 297 / 25.4 * 72) < 1
