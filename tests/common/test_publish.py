"""Publishing: two sets of seeds must agree, and a reader's study is compared by verdicts and intervals, not by bits."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from common import experiment, publish
from common.claims import Claim, Paper
from common.config import UserError
from common.publish import Judge, departures, expected, merged
from common.run import Run

PAPER = Paper("paper", "A paper", "Somebody", "make repro-paper", ("gpu",), "loss", "The loss falls.")
CLAIMS = [
    Claim("C1", "The loss falls.", source="Fig 1", presets=("quick",), number=lambda r: r["final"], unit="L / Var",
          below=0.5, paper="0.2", needs=("loss",), note=lambda r: f"{len(r['seeds'])} seeds"),
    Claim("C2", "It drops early.", source="Fig 2", presets=("quick",), needs=("loss", "width/curves"),
          number=lambda r, w: {"step": r["step"], "width / step": w["width"]}, below={"step": 2000, "width / step": 0.3}),
    Claim("C3", "At scale too.", source="Fig 3", presets=("gpu",), number=lambda r: r["final"], unit="L / Var", below=0.5,
          needs=("loss",)),
]  # fmt: skip


@dataclass
class Config:
    preset: str = "quick"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A repository with the configs of a paper, as the current folder."""
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    configs = tmp_path / "paper/configs"
    configs.mkdir(parents=True)
    for name in ("loss", "curves"):
        (configs / f"{name}.yaml").write_text(f"# All about {name}.\n#   python paper/analysis/{name}.py --config x\n")
    return tmp_path


def study(
    name="quick", seeds=(3, 4, 5), final=(0.1, 0.2, 0.3), step=(900, 1000, 1100), width=(0.2, 0.2, 0.1), **config
):
    main = Run.create(f"runs/paper/{name}/main", Config(**config))
    main.result("loss", {"seeds": seeds, "final": final, "step": [None if s == math.inf else s for s in step]})
    main.finish()
    other = Run.create(f"runs/paper/{name}/width", Config(**config))
    other.result("curves", {"seeds": seeds, "width": width})
    return str(main.path.parent)


def rows_of(path):
    return json.loads((experiment.ROOT / path / "claims.json").read_text())


def run(**settings):
    return publish.publish(PAPER, CLAIMS, Judge(**settings))


# A study


def test_a_study_gets_its_rows_tables_and_page(capsys):
    path = study()
    assert run() == 0
    rows = rows_of(path)
    assert [row["verdict"] for row in rows] == ["reproduced", "reproduced", "not at this scale"]
    assert all(f"**{row['verdict']}" in (experiment.ROOT / path / "claims.md").read_text() for row in rows)
    assert "L / Var" in (experiment.ROOT / path / "report.html").read_text()
    out = capsys.readouterr().out
    assert "C3" in out and out.splitlines()[-1] == f"{path}/report.html"


def test_a_missing_study_is_a_users_mistake_that_names_the_command():
    with pytest.raises(UserError, match="make repro-paper$"):
        run(study="runs/paper/nowhere")
    with pytest.raises(UserError, match="make repro-paper$"):
        run(study=study(), second="runs/paper/nowhere")


def test_the_command_line_gives_exit_codes(monkeypatch, capsys):
    def code(*flags):
        monkeypatch.setattr("sys.argv", ["claims.py", *flags])
        with pytest.raises(SystemExit) as left:
            publish.main(PAPER, CLAIMS)
        return left.value.code

    assert code() == 2 and "make repro-paper" in capsys.readouterr().err
    study()
    assert code("--save") == 0
    assert code("--against=results/paper/quick.json") == 0
    study("other", final=(0.6, 0.7, 0.8))
    assert code("--study", "runs/paper/other", "--against=results/paper/quick.json") == 1
    assert code("--against=nothing.json") == 2


def test_figures_are_the_picture_those_of_claims_and_then_the_rest_each_once():
    path = experiment.ROOT / study()
    for name in ("main/figures/loss", "main/figures/loss_more", "main/figures/extra", "width/figures/curves"):
        (path / f"{name}.png").parent.mkdir(exist_ok=True)
        (path / f"{name}.png").write_bytes(b"png")
    run_rows = [{"figure": "loss"}, {"figure": "width/curves"}, {"figure": "loss"}, {"figure": "gone"}]
    found = publish.figures(PAPER, run_rows, publish.Study(path))
    assert [figure["name"] for figure in found] == ["loss", "width/curves", "extra", "loss_more"]
    captions = ["All about loss.", "All about curves.", "", "All about loss."]
    assert [figure["caption"] for figure in found] == captions
    assert all(figure["path"].is_file() for figure in found)


def test_published_are_json_with_the_manifest_and_a_table():
    study()
    run(save=True)
    published = json.loads((experiment.ROOT / "results/paper/quick.json").read_text())
    assert set(published) == {"manifest", "claims"} and published["manifest"]["state"] == "finished"
    assert published["claims"] == rows_of("runs/paper/quick")
    table = (experiment.ROOT / "results/paper/quick.md").read_text()
    assert "python paper/claims.py" in table and "at reduced scale" in table and "| 0.2 |" in table


# Two sets of seeds


def test_sets_that_agree_give_one_verdict_over_all_seeds():
    study(), study("second", seeds=(6, 7, 8), final=(0.4, 0.2, 0.3))
    run(second="runs/paper/second", save=True)
    row = rows_of("runs/paper/quick")[0]
    assert (row["verdict"], row["verdicts"], row["seeds"]) == ("reproduced", ["reproduced"] * 2, [3, 4, 5, 6, 7, 8])
    assert row["values"] == {"L / Var": [0.1, 0.2, 0.3, 0.4, 0.2, 0.3]}
    mean, error = experiment.interval(row["values"]["L / Var"])
    assert (row["measured"], row["error"], row["note"]) == (mean, error, "3 seeds")
    published = json.loads((experiment.ROOT / "results/paper/quick.json").read_text())
    assert set(published) == {"manifest", "second_manifest", "claims"}
    assert "Two sets of seeds" in (experiment.ROOT / "runs/paper/quick/report.html").read_text()


def test_sets_that_differ_are_inconclusive_and_the_note_says_which_said_what():
    study(), study("second", seeds=(6, 7, 8), final=(0.6, 0.7, 0.9))
    run(second="runs/paper/second")
    row = rows_of("runs/paper/quick")[0]
    assert row["verdict"] == "inconclusive" and row["verdicts"] == ["reproduced", "contradicted"]
    assert row["note"] == "seeds 3, 4, 5: reproduced, 3 seeds; seeds 6, 7, 8: contradicted, 3 seeds"


def test_a_set_that_lacks_a_result_does_not_leave_the_verdict_to_the_other():
    study(), study("second", seeds=(6, 7, 8))
    (experiment.ROOT / "runs/paper/second/main/results/loss.json").unlink()
    run(second="runs/paper/second")
    row = rows_of("runs/paper/quick")[0]
    assert row["verdict"] == "inconclusive" and row["seeds"] == [3, 4, 5] and "not judged: inconclusive" in row["note"]


def test_sets_must_be_of_one_preset_and_of_disjoint_seeds():
    study(), study("shared", seeds=(5, 6, 7)), study("other", seeds=(6, 7, 8), preset="gpu")
    with pytest.raises(UserError, match=r"\[5\] among the seeds of both"):
        run(second="runs/paper/shared")
    with pytest.raises(UserError, match="quick and gpu"):
        run(second="runs/paper/other")


def test_a_name_that_one_set_lacks_is_unknown_there():
    one = {
        "id": "C1",
        "preset": "quick",
        "verdict": "reproduced",
        "note": "",
        "seeds": [3],
        "values": {"a": [1], "b": [2]},
    }
    (row,) = merged([one], [one | {"seeds": [4], "values": {"a": [5]}}])
    assert row["values"] == {"a": [1, 5], "b": [2, None]}


# A reader's study


def published_row(values=(0.1, 0.2, 0.3, 0.15, 0.25, 0.2), verdict="reproduced", **changes):
    return {"id": "C1", "verdict": verdict, "values": {"x": list(values)}} | changes


def test_other_bits_within_the_interval_agree():
    assert departures(published_row((0.11, 0.21, 0.28)), published_row()) == []
    assert departures(published_row((0.11, None, 0.28)), published_row()) == []


def test_each_kind_of_departure_is_told():
    (text,) = departures(published_row(verdict="inconclusive"), published_row())
    assert text == "verdict inconclusive, published reproduced"
    (text,) = departures(published_row((0.9, 0.8, 0.7)), published_row())
    assert text.startswith("x 0.8, expected from ")
    assert departures(published_row(), None) == ["not among the published claims"]
    assert departures(published_row(()), published_row()) == ["x has no number"]
    assert departures(published_row(values={}), published_row()) == ["x has no number"]


def test_the_verdict_of_either_set_will_do():
    reference = published_row(verdict="inconclusive", verdicts=["reproduced", "contradicted"])
    for verdict in ("reproduced", "contradicted", "inconclusive"):
        assert departures(published_row(verdict=verdict), reference) == []
    assert departures(published_row(verdict="not at this scale"), reference)


def test_nevers_depart_where_all_are_and_none_was_or_the_reverse():
    never, some, none = ("never",) * 3, ("never", 1.0, 2.0), (1.0, 2.0, 1.5)
    agree = [(never, some), (some, never), (some, none), (none, some), (never, never)]
    assert all(departures(published_row(ours), published_row(theirs)) == [] for ours, theirs in agree)
    assert "never came" in departures(published_row(never), published_row(none))[0]
    assert "published in none" in departures(published_row(none), published_row(never))[0]


def test_numbers_that_all_agree_leave_a_relative_millionth():
    reference = published_row((3.0,) * 6)
    assert departures(published_row((3.0, 3.0, 3.000001)), reference) == []
    assert departures(published_row((3.0, 3.0, 2.0)), reference)
    # One number says nothing of the scatter.
    assert departures(published_row((3.1,)), published_row((3.0,))) == []


def test_the_interval_holds_99_of_100_means_of_new_seeds():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(2000):
        low, high = expected(rng.normal(5, 2, 6), 3)
        inside.append(low <= rng.normal(5, 2, 3).mean() <= high)
    assert 0.98 < np.mean(inside) < 0.998


def test_the_comparison_says_a_line_for_what_departs_and_the_counts(capsys):
    study(), study("reader", final=(1.1, 1.2, 1.3), width=(0.2, 0.21, 0.12))
    run(save=True)
    capsys.readouterr()
    assert run(study="runs/paper/reader", against="results/paper/quick.json") == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].startswith("C1 departs: verdict contradicted, published reproduced; L / Var 1.2, expected from ")
    assert lines[1].startswith("2 of 3 claims agree with results/paper/quick.json, 1 depart (3 numbers")


def test_another_preset_or_a_damaged_file_is_a_users_mistake(home):
    study(), study("other", preset="gpu")
    run(save=True)
    with pytest.raises(UserError, match="preset gpu in the study and quick"):
        run(study="runs/paper/other", against="results/paper/quick.json")
    (home / "damaged.json").write_text('{"claims": [')
    with pytest.raises(UserError, match="damaged.json"):
        run(against="damaged.json")
    (home / "other.json").write_text('{"claims": [{"id": "C1", "preset": "quick"}]}')
    with pytest.raises(UserError, match="other.json"):
        run(against="other.json")
