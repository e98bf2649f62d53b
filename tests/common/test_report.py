"""The report: numbers rounded to their error, strips that show what was judged, a page that a real browser lays out well."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import claims, report
from common.claims import Paper
from common.strip import leading, papers, strip

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome found")
PAPER = Paper("paper", "A <title>", "Somebody & others", "make repro-paper", ("gpu",), "loss", "The loss <falls>.")


def row(id="C1", verdict="reproduced", values=None, **changes):
    """A row of claims.json whose claim bounds the number x from above."""
    values = {"x": [0.1, 0.2, 0.3]} if values is None else values
    first = next(iter(values.values()), [])
    parts = {
        "id": id, "statement": "The loss <falls> | at once", "source": "Fig 1", "preset": "quick",
        **report.headline(first), "expected": "x < 0.5", "verdict": verdict,
        "command": "python paper/analysis/loss.py --config paper/configs/loss.yaml --run runs/paper/quick/main",
        "reduced": True, "paper": "0.25", "bounds": [{"name": "x", "kind": "below", "value": 0.5}], "values": values,
        "seeds": [3, 4, 5, 6, 7, 8][: len(first)], "note": "a note", "figure": "loss",
    }  # fmt: skip
    return parts | changes


ROWS = [
    row("C1", values={"x": [0.1, 0.2, 0.3], "a second number with a long name / its reference": [1, 20, 400]}),
    row("C2", "contradicted", {"x": ["never"] * 3}, reduced=False),
    row("C10", "inconclusive", {"x": [0.1, "never", None]}, figure="wd_sweep/width", paper="about ten"),
    row("C11", "not at this scale", {}, note=""),
]


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
        (1e9, None, "1e+09"),
        (None, None, "–"),
        ("600, never", None, "600, never"),
    ],
)
def test_measurements_are_rounded_to_their_error(value, error, text):
    assert report.shown({"measured": value, "error": error}) == text


def test_a_never_is_told_and_not_averaged():
    assert report.headline([1, 2, 3])["measured"] == 2
    assert report.headline([600, "never", None]) == {"measured": "600, never, –", "error": None}
    assert report.headline([]) == report.headline([None]) | {"measured": None}


def test_terminal_table_fits_120_columns():
    lines = report.terminal([*ROWS, row("C22", statement="word " * 60)]).splitlines()
    assert len(lines) == 6 and max(map(len, lines)) <= 120
    assert lines[-1] == (
        "5 claims at preset quick, at reduced scale: 2 reproduced, 1 contradicted, 1 inconclusive, 1 not at this scale."
    )


def test_reduced_scale_stands_beside_every_verdict_but_the_one_that_says_so_itself():
    assert [report.label(r).endswith("at reduced scale") for r in ROWS] == [True, False, True, False]
    lines = report.terminal(ROWS).splitlines()
    assert [" at reduced scale " in line for line in lines[:4]] == [True, False, True, False]


def test_markdown_has_every_column_of_every_row_and_says_what_made_it():
    text = report.markdown(PAPER, ROWS)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11}
    assert "by hand" in text and "python paper/claims.py" in text
    assert "**reproduced at reduced scale**" in table[2] and "a second number" in table[2] and "| 3, 4, 5 |" in table[2]


# Strips


@pytest.mark.parametrize(
    "bounds",
    [
        [{"kind": "above", "value": 0.4}],
        [{"kind": "below", "value": 0.4}],
        [{"kind": "within", "value": [0.2, 0.7]}],
        [{"kind": "above", "value": 0.1}, {"kind": "below", "value": 0.4}],
    ],
)
@pytest.mark.parametrize("scale", [1, 1e-9, -3, 1e6])
def test_a_dot_is_on_the_shaded_side_where_its_number_meets_the_bound(bounds, scale):
    values = (scale * np.random.default_rng(0).random(40)).round(12).tolist()
    for bound in bounds:
        bound = bound | {
            "name": "x",
            "value": (scale * np.sort(np.atleast_1d(bound["value"]) * np.sign(scale))).tolist(),
        }
        bound["value"] = bound["value"] if bound["kind"] == "within" else bound["value"][0]
        drawn = strip(values, range(40), [bound])
        (stretch,) = drawn["passing"]
        for value, dot in zip(values, drawn["dots"], strict=True):
            inside = min(dot["x"] - stretch["x"], stretch["x"] + stretch["width"] - dot["x"])
            # Places are rounded to a tenth of a pixel.
            assert inside > -0.11 if claims._meets(value, bound) else inside < 0.11
            assert 0 < dot["x"] < drawn["end"] <= drawn["width"]


def test_numbers_over_decades_get_a_logarithmic_axis():
    bound = [{"name": "x", "kind": "above", "value": 1.0}]
    drawn = strip([1e-4, 1e-2, 1], [3, 4, 5], bound)
    xs = [dot["x"] for dot in drawn["dots"]]
    assert drawn["logarithmic"] and abs((xs[1] - xs[0]) - (xs[2] - xs[1])) < 0.5
    assert not strip([1, 2, 3], [3, 4, 5], bound)["logarithmic"]
    assert not strip([-1e-4, 1e-2, 1], [3, 4, 5], bound)["logarithmic"]


def test_never_and_unknown_stand_apart_at_the_right():
    drawn = strip([1, "never", None], [3, 4, 5], [])
    assert [dot["x"] > drawn["end"] for dot in drawn["dots"]] == [False, True, True]
    assert [dot["hollow"] for dot in drawn["dots"]] == [False, False, True]
    assert [dot["text"] for dot in drawn["dots"]] == ["seed 3: 1", "seed 4: never", "seed 5: –"]
    assert "never" in drawn["gutter"]
    assert strip(["never"] * 3, [3, 4, 5], [])["dots"][0]["x"] > 0


def test_a_solver_has_one_number_for_all_seeds():
    assert strip([1.5], [3, 4, 5], [])["dots"][0]["text"] == "1.5"


def test_equal_numbers_of_three_seeds_are_three_dots():
    assert len({(dot["x"], dot["y"]) for dot in strip([0.0] * 3, [3, 4, 5], [])["dots"]}) == 3


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.967 (Fig 2)", 0.967),
        ("5.6e-3 at 7x7", 0.0056),
        ("-0.5", -0.5),
        ("~30", 30),
        ("1800, 2600, 5400, 6200", None),
        ("600/725", None),
        ("12-layer model", None),
        ("1 to 3", None),
        ("7x7", None),
        ("3 of 4 heads", 3),
        ("about ten", None),
        ("", None),
    ],
)
def test_the_papers_number_is_marked_where_it_is_one(text, number):
    assert leading(text) == number


def test_the_papers_number_is_marked_on_the_strip_that_it_names():
    assert papers("width / t_drop 0.13", "width / t_drop", False) == 0.13
    assert papers("width / t_drop 0.13", "plateau", True) is None
    assert (papers("0.06", "plateau", True), papers("0.06", "end", False)) == (0.06, None)
    assert papers("0.06", "", True) == 0.06


def test_a_paper_far_away_does_not_squeeze_the_seeds():
    near, far = (strip([0.1, 0.2, 0.3], [3, 4, 5], [], paper) for paper in (0.35, 1800))
    assert far["dots"][2]["x"] - far["dots"][0]["x"] > near["dots"][2]["x"] - near["dots"][0]["x"] > 100
    assert far["paper"]["x"] <= far["end"] and near["dots"][2]["x"] < near["paper"]["x"]


# The page


@pytest.fixture
def figures(tmp_path):
    """One figure that is drawn, and one that is not."""
    drawn = tmp_path / "loss.png"
    Image.new("RGB", (975, 400), "navy").save(drawn)
    return [
        {"name": "loss", "caption": "The loss & all (claims C1, C99).", "path": drawn},
        {"name": "wd_sweep/width", "caption": "Width.", "path": tmp_path / "none.png"},
    ]


@pytest.fixture
def page(tmp_path, figures):
    manifest = {
        "versions": {"torch": "2.6", "numpy": None}, "commit": "0123456789abcdef", "dirty": False, "command": "python x",
        "device": "CPU", "threads": 1, "platform": "Linux", "state": "finished", "resumed": [],
        "start": "2026-01-01T00:00:00", "end": "2026-01-01T00:01:02",
    }  # fmt: skip
    path = tmp_path / "runs/paper/quick/report.html"
    path.parent.mkdir(parents=True)
    path.write_text(report.page(PAPER, ROWS, figures, [manifest, {}], path.parent))
    return path


def test_page_is_one_file_with_everything_in_it(page):
    text = page.read_text()
    assert not re.search(r"<script [^>]*src|<link|@import|url\(|src=\"(?!data:image/png;base64,)|https?://", text)
    assert "A &lt;title&gt;" in text and "The loss &lt;falls&gt; | at once" in text
    assert "Not drawn in this study" in text
    assert "torch 2.6" in text and "1 min 2 s" in text
    assert "built-in method" not in text


def test_picture_and_sentence_come_before_the_counts_and_the_claims(page):
    text = page.read_text()
    places = [text.index(part) for part in ("The loss &lt;falls&gt;.", "data:image/png", "4 claims", 'id="C1"')]
    assert places == sorted(places)
    assert text.count("data:image/png") == 1


def test_every_link_on_the_page_leads_somewhere(page):
    text = page.read_text()
    links, ids = re.findall(r'href="#([^"]+)"', text), re.findall(r' id="([^"]+)"', text)
    assert set(links) <= set(ids) and len(ids) == len(set(ids))
    # Each claim links to its figure; a caption links to the claims it names and to the others of that figure.
    assert links.count("figure-loss") == 3 and links.count("figure-wd_sweep-width") == 1
    assert re.findall(r"<figcaption>(.*)</figcaption>", text)[0] == (
        'The loss &amp; all (claims <a href="#C1">C1</a>, C99). <a href="#C2">C2</a>, <a href="#C11">C11</a>'
    )


def test_numbers_bounds_and_the_papers_number_are_text_too(page):
    text = " ".join(page.read_text().split())
    assert "x &lt; 0.5" in text and "0.1, 0.2, 0.3; mean 0.20" in text and "0.1, never, –" in text
    assert '<td data-label="Paper">about ten</td>' in text
    assert "Not measured here. Expected: x &lt; 0.5" in text


def test_page_without_a_manifest_or_figures_beside_the_picture(tmp_path, figures):
    text = report.page(PAPER, ROWS, figures[1:], [{}], tmp_path)
    assert "Versions" not in text and "<h2>Figures" not in text


def test_index_links_every_study_relative_to_itself(page, tmp_path):
    other = tmp_path / "runs/other_paper/gpu"
    other.mkdir(parents=True)
    (other / "report.html").write_text("")
    for study in (page.parent, other):
        (study / "claims.json").write_text(json.dumps(ROWS))
    path = claims.index(tmp_path / "runs")
    links = re.findall(r'href="([^"]+)"', path.read_text())
    assert links == ["other_paper/gpu/report.html", "paper/quick/report.html"]
    assert all((path.parent / link).is_file() for link in links)
    assert "at reduced scale" in path.read_text()


def test_index_over_nothing_is_a_users_mistake(tmp_path, capsys):
    assert claims.main([str(tmp_path)]) == 2
    assert "make repro" in capsys.readouterr().err


LOOK = """
<body style="margin: 0">{frames}<script>
function look(frame) {{
  const inner = frame.contentDocument, root = inner.documentElement;
  const all = [...inner.querySelectorAll("td, th, p, img, svg, code, caption, button")];
  const shown = () => [...inner.querySelectorAll(".claims tbody")].filter(e => e.offsetHeight).map(e => e.id);
  const seen = {{
    scroll: root.scrollWidth, client: root.clientWidth,
    right: Math.max(...all.map(e => e.getBoundingClientRect().right)),
    verdicts: [...inner.querySelectorAll("td.verdict")].map(e => e.firstChild.textContent.trim()),
    images: [...inner.images].map(image => image.complete && image.naturalWidth > 0),
    row: getComputedStyle(inner.querySelector("tbody tr")).display,
    dots: [...inner.querySelectorAll("circle")].map(e => e.getBoundingClientRect().width > 4),
    all: shown(),
  }};
  inner.querySelector("button[value=inconclusive]").click();
  return {{...seen, filtered: shown(), pressed: inner.querySelectorAll("[aria-pressed=true]").length}};
}}
addEventListener("load", () => {{
  document.body.dataset.seen = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
}});
</script></body>
"""


def browse(tmp_path, *arguments):
    """Run the browser headless, off the network, on a profile of its own; returns what it prints."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--disable-component-update", "--no-first-run", "--hide-scrollbars"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def seen(tmp_path, page: Path, widths: list[int]) -> list[dict]:
    """What windows of so many CSS pixels show: headless Chromium has none below 500, hence the frames."""
    content = html.escape(page.read_text())
    style = "border: 0; display: block; height: 900px; width:"
    frames = "".join(f'<iframe style="{style} {width}px" srcdoc="{content}"></iframe>' for width in widths)
    outer = tmp_path / "frames.html"
    outer.write_text(LOOK.format(frames=frames))
    dump = browse(tmp_path, "--virtual-time-budget=5000", "--window-size=1300,900", "--dump-dom", outer.as_uri())
    return json.loads(html.unescape(re.search(r'data-seen="([^"]+)"', dump)[1]))


@needs_browser
def test_browser_shows_all_of_it_without_sideways_scrolling_and_filters(tmp_path, page):
    widths = [1280, 390, 360]
    for width, look in zip(widths, seen(tmp_path, page, widths), strict=True):
        assert look["scroll"] <= look["client"] == width
        assert look["right"] <= width
        assert look["verdicts"] == list(report.VERDICTS)
        assert look["images"] == [True]
        assert len(look["dots"]) == 12 and all(look["dots"])
        # A row of the table on a screen, a card on a phone.
        assert look["row"] == ("table-row" if width > 1000 else "grid")
        assert look["all"] == ["C1", "C2", "C10", "C11"]
        assert look["filtered"] == ["C10"] and look["pressed"] == 1


@needs_browser
def test_printed_page_is_a4(tmp_path, page):
    printed = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={printed}", page.as_uri())
    width, height = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed.read_bytes()).groups())
    # A4 is 210 x 297 mm; a point is 1/72 inch.
    assert abs(width - 210 / 25.4 * 72) < 1 and abs(height - 297 / 25.4 * 72) < 1
