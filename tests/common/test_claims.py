"""Claims: verdicts that no lucky seed can buy, bounds that are told as they are judged, rows as agreed."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from common import claims, experiment, report
from common.claims import Claim, Missing, Paper, Study, by_seed, collect, judge
from common.config import UserError
from common.experiment import interval
from common.run import Run

PAPER = Paper("paper", "A paper", "Somebody", "make repro-paper", ("gpu",), "loss", "The loss falls.")
KEYS = {
    "id", "statement", "source", "preset", "measured", "error", "expected", "verdict", "command",
    "reduced", "paper", "bounds", "values", "seeds", "note", "figure",
}  # fmt: skip


@dataclass
class Config:
    preset: str = "quick"


def claim(number=lambda loss: loss["final"], **changes):
    parts = {"source": "Fig 1", "presets": ("quick", "gpu"), "unit": "L / Var", "needs": ("loss",)}
    bounds = {} if {"above", "below", "within"} & set(changes) else {"below": 0.5}
    return Claim("C1", "The loss <falls> | at once.", number=number, **(parts | bounds | changes))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A finished main run at preset quick, with one result; configs that name the scripts."""
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    (tmp_path / "paper/configs").mkdir(parents=True)
    for name, script in (("loss", "loss"), ("width", "curves"), ("probe", "probe")):
        header = f"# Loss.\n#   python paper/analysis/{script}.py --config paper/configs/{name}.yaml\n"
        (tmp_path / f"paper/configs/{name}.yaml").write_text(header)
    run = Run.create(tmp_path / "runs" / "paper" / "first" / "main", Config())
    run.result("loss", {"seeds": [3, 4, 5], "final": [0.1, 0.2, 0.3]})
    run.finish()
    return Study(run.path.parent)


def verdict(numbers, **bounds):
    made = claim(lambda: numbers, **bounds)
    return made.verdict(made.values())


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
    assert verdict([0.1, 0.2, 0.3], below=0.5) == "reproduced"
    assert verdict([0.1, 0.2], below=0.5) == "inconclusive"
    assert verdict([0.1, 0.2, 0.9], below=0.5) == "inconclusive"
    assert verdict([0.6, 0.7, 0.9], below=0.5) == "contradicted"
    assert verdict([0.1], below=0.5, min_seeds=1) == "reproduced"
    assert verdict([], below=0.5, min_seeds=0) != "contradicted"


def test_bounds_are_strict_but_for_an_interval_which_holds_its_ends():
    assert verdict([0.5] * 3, below=0.5) == verdict([0.5] * 3, above=0.5) == "contradicted"
    assert verdict([0.5, 0.6, 0.7], within=(0.5, 0.7)) == "reproduced"
    assert verdict([0.4, 0.8, 0.9], within=(0.5, 0.7)) == "contradicted"


def test_never_is_beyond_every_step_and_unknown_is_on_no_side():
    assert verdict([math.inf] * 3, above=5000) == "reproduced"
    assert verdict([math.inf, 1, 2], below=5000) == "inconclusive"
    for unknown in (None, math.nan):
        assert verdict([unknown, 0.1, 0.1], below=0.5) == "inconclusive"
        assert verdict([unknown, 0.9, 0.9], below=0.5) == "inconclusive"
        assert verdict([unknown] * 3, above=0.5) == "inconclusive"


def test_every_condition_must_hold_in_the_same_seed():
    bounds = {"below": {"width / t_drop": 0.33}, "within": {"plateau": (0.97, 1.03)}}
    assert verdict({"width / t_drop": [0.1] * 3, "plateau": [1.0] * 3}, **bounds) == "reproduced"
    assert verdict({"width / t_drop": [0.1] * 3, "plateau": [1.0, 1.0, 0.9]}, **bounds) == "inconclusive"
    assert verdict({"width / t_drop": [0.9, 0.1, 0.9], "plateau": [1.0, 0.9, 0.9]}, **bounds) == "contradicted"
    # One bound refutes a seed even where the other cannot be told.
    assert verdict({"width / t_drop": [0.9] * 3, "plateau": [None] * 3}, **bounds) == "contradicted"


def test_the_bounds_in_words_are_those_that_judge():
    made = claim(lambda: {}, below={"a": 0.5, "b": 2}, above={"a": 0.1}, within={"c": (1, 2)})
    assert made.expected == "a > 0.1; a < 0.5; b < 2; c from 1 to 2"
    assert claim(below=0.25).expected == "L / Var < 0.25"


def test_a_claim_without_a_bound_or_with_a_bound_on_nothing_is_an_error():
    with pytest.raises(ValueError, match="and a bound"):
        Claim("C1", "True.", source="", presets=("quick",), number=list)
    with pytest.raises(KeyError, match="width"):
        claim(lambda: {"plateau": [1]}, below={"width": 1}).values()


@pytest.mark.parametrize("given", [[], ["presets"], ["number"], ["above"], ["presets", "above"], ["number", "above"]])
def test_a_claim_that_is_not_measured_in_full_says_why_none_of_it_is(given):
    parts = {"presets": ("quick",), "number": list, "above": 0.5}
    with pytest.raises(ValueError, match="C1: expected presets, number and a bound.*or not_run"):
        Claim("C1", "True.", source="", **{key: parts[key] for key in given})
    with pytest.raises(ValueError, match="C1: expected"):
        Claim("C1", "True.", source="", not_run="no network", **parts)


@pytest.mark.parametrize("part", [{"presets": ("quick",)}, {"number": list}, {"above": 0.5}, {"within": (0, 1)}])
def test_a_claim_that_is_not_run_has_nothing_of_one_that_is(part):
    assert Claim("C1", "True.", source="", not_run="no network").expected == ""
    with pytest.raises(ValueError, match="C1: expected"):
        Claim("C1", "True.", source="", not_run="no network", **part)


def test_columns_of_other_lengths_are_told():
    assert by_seed([1, 2], [3, 4]) == [(1, 3), (2, 4)]
    with pytest.raises(Missing, match="2, 3 seeds"):
        by_seed([1, 2], [1, 2, 3])


# Rows


def test_row_has_exactly_the_agreed_keys(study):
    (row,) = judge(PAPER, [claim(paper="0.06", note=lambda loss: f"of {len(loss['final'])}")], study)
    assert set(row) == KEYS
    assert (row["verdict"], row["preset"], row["reduced"], row["seeds"]) == ("reproduced", "quick", True, [3, 4, 5])
    assert math.isclose(row["measured"], 0.2) and math.isclose(row["error"], 0.2484, rel_tol=1e-3)
    assert row["values"] == {"L / Var": [0.1, 0.2, 0.3]} and row["note"] == "of 3" and row["paper"] == "0.06"
    assert row["command"] == f"python paper/analysis/loss.py --config paper/configs/loss.yaml --run {study.path}/main"


def test_a_never_is_written_as_a_word_and_not_averaged(study):
    (row,) = judge(PAPER, [claim(lambda loss: [600, math.inf, None], above=1)], study)
    assert row["values"] == {"L / Var": [600, "never", None]}
    assert row["measured"] == "600, never, –" and row["error"] is None
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_full_scale_is_not_reduced(study, monkeypatch):
    monkeypatch.setattr(Study, "preset", "gpu")
    assert judge(PAPER, [claim()], study)[0]["reduced"] is False


def test_claim_of_another_preset_is_not_at_this_scale_and_not_measured(study):
    (row,) = judge(PAPER, [claim(lambda loss: 1 / 0, presets=("gpu", "paper"))], study)
    assert (row["verdict"], row["measured"], row["seeds"]) == ("not at this scale", None, [])
    assert "gpu or paper" in row["note"]
    assert row["command"].endswith(f"{study.path.parent}/gpu/main")


def unrun(**changes) -> Claim:
    parts = {"source": "Table 1", "paper": "78.4", "needs": ("loss",), "not_run": "the <books> are withdrawn"}
    return Claim("C2", "It reads books.", **(parts | changes))


@pytest.mark.parametrize("preset", ["quick", "gpu", "nowhere"])
def test_a_claim_that_is_not_run_is_at_no_preset_and_says_why(study, monkeypatch, preset):
    monkeypatch.setattr(Study, "preset", preset)
    (row,) = judge(PAPER, [unrun()], study)
    assert set(row) == KEYS and row["preset"] == preset and row["paper"] == "78.4"
    assert (row["verdict"], row["note"]) == ("not at this scale", "Not run: the <books> are withdrawn")
    assert row["command"] == row["expected"] == ""
    assert row["bounds"] == row["seeds"] == [] and row["values"] == {} and row["measured"] is row["error"] is None


def test_a_claim_that_is_not_run_needs_no_result_and_no_config(study):
    (row,) = judge(PAPER, [unrun(needs=("books/perplexity",))], study)
    assert row["verdict"] == "not at this scale" and "perplexity" not in row["note"]


def test_tables_show_why_a_claim_is_not_run_and_no_empty_command(study):
    rows = judge(PAPER, [claim(presets=("gpu",)), unrun()], study)
    text = report.markdown(PAPER, rows)
    measured, not_run = text.splitlines()[-4:-2]
    cells = [cell.strip() for cell in not_run.strip("|").split("|")]
    assert "Not run: the <books> are withdrawn" in cells and "**not at this scale**" in cells
    assert cells[-1] == "–" and "``" not in text and measured.endswith("/gpu/main` |")
    assert cells[4] == "–" and "L / Var < 0.5" in measured
    assert "2 not at this scale" in report.terminal(rows)


def test_the_page_shows_why_a_claim_is_not_run_and_nothing_to_expect_or_to_type(study):
    rows = judge(PAPER, [claim(presets=("gpu",)), unrun()], study)
    figure = {"name": "loss", "caption": "", "path": study.path / "none.png"}
    page = report.page(PAPER, rows, [figure], [], study.path)
    measured, not_run = (page.partition(f'<tbody id="{id}"')[2].partition("</tbody>")[0] for id in ("C1", "C2"))
    assert "Not run: the &lt;books&gt; are withdrawn" in not_run and "78.4" in not_run
    assert "Not measured here." in not_run and "Not measured here." in measured
    for shown in ("Expected:", "<code>"):
        assert shown in measured and shown not in not_run


def test_missing_result_is_inconclusive_and_names_the_command_of_that_result(study):
    (row,) = judge(PAPER, [claim(lambda loss, probe: [], needs=("loss", "probe"))], study)
    assert row["verdict"] == "inconclusive" and row["command"] in row["note"]
    assert "analysis/probe.py --config paper/configs/probe.yaml" in row["command"]
    (row,) = judge(PAPER, [claim(lambda width: [], needs=("wide/width",))], study)
    expected = f"analysis/curves.py --config paper/configs/width.yaml --run {study.path}/wide"
    assert row["verdict"] == "inconclusive" and expected in row["command"]


def test_a_key_that_a_result_lacks_counts_as_missing(study):
    (row,) = judge(PAPER, [claim(lambda loss: loss["finale"])], study)
    assert row["verdict"] == "inconclusive" and "no finale" in row["note"] and "loss.yaml" in row["note"]


def test_results_with_other_numbers_of_seeds_are_inconclusive_with_the_reason(study):
    Run(study.path / "main").result("probe", {"seeds": [3, 4]})
    (row,) = judge(PAPER, [claim(lambda loss, probe: [1 / 0], needs=("loss", "probe"))], study)
    assert row["verdict"] == "inconclusive" and "3 seeds in loss" in row["note"] and "probe" in row["note"]


@pytest.mark.parametrize("other", [[0.1] * 2, [0.1] * 4])
def test_numbers_over_other_seeds_are_inconclusive_with_the_reason(study, other):
    (row,) = judge(PAPER, [claim(lambda loss: {"a": loss["final"], "b": other}, below={"a": 1, "b": 1})], study)
    assert row["verdict"] == "inconclusive" and f"found 3, {len(other)} seeds" in row["note"]


def test_an_error_in_the_measure_is_no_verdict(study):
    with pytest.raises(ZeroDivisionError):
        judge(PAPER, [claim(lambda loss: 1 / 0)], study)


# The claims of a paper


def write_scripts(folder, **scripts):
    (folder / "paper/analysis").mkdir(parents=True)
    for name, ids in scripts.items():
        made = f'[Claim(i, "s", source="", presets=("quick",), number=list, above=0) for i in {ids}]'
        (folder / f"paper/analysis/{name}.py").write_text(f"from common.claims import Claim\nCLAIMS = {made}\n")


def test_claims_are_collected_in_order_and_need_the_result_of_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    paper = Paper("paper_a", "", "", "", (), "loss", "")
    write_scripts(tmp_path, loss=["C10", "C1"], probe=[f"C{i}" for i in range(2, 10)])
    (tmp_path / "paper").rename(tmp_path / "paper_a")
    found = collect(paper, 10)
    assert [c.id for c in found] == [f"C{i}" for i in range(1, 11)]
    assert found[0].needs == ("loss",) and found[1].needs == ("probe",)


@pytest.mark.parametrize(("name", "ids"), [("paper_b", ["C1", "C3"]), ("paper_c", ["C1", "C1", "C2", "C3"])])
def test_a_missing_or_doubled_id_is_an_error(name, ids, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_scripts(tmp_path, loss=ids)
    (tmp_path / "paper").rename(tmp_path / name)
    with pytest.raises(ValueError, match="C1 to C3, each once"):
        collect(Paper(name, "", "", "", (), "loss", ""), 3)


def test_index_without_a_study_names_the_command(tmp_path):
    with pytest.raises(UserError, match="make repro"):
        claims.index(tmp_path)
