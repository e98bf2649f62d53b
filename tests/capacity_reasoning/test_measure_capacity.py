"""The table against contents read from the same models; mistakes end with 2 in a line or two, without a traceback."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from capacity_reasoning import measure_capacity
from capacity_reasoning.capacity import contents
from capacity_reasoning.evaluate import Trained
from common import config
from common.config import UserError
from tests.papers import ROOT


@pytest.fixture(scope="module")
def study(study_of):
    return study_of("capacity_reasoning")


def shown(capsys, run, *flags) -> list[list[str]]:
    """Lines of the table, in words, without its heads and what is said beneath it."""
    argv = [f"--run={run}", "--device=cpu", "--threads=1", *flags]
    capsys.readouterr()
    measure_capacity.main(config.parse(measure_capacity.Config, argv))
    lines = [
        line for line in capsys.readouterr().out.splitlines()[2:] if not line.startswith("two-hop losses near chance")
    ]
    return [line.replace(" +- ", " ").replace(",", "").split() for line in lines]


def test_subjects_whose_two_hop_loss_is_near_chance_are_named(study, capsys):
    """After twelve steps every one is above chance; a one-hop run has no such line."""
    told = {}
    for name in ("latent", "main"):
        measure_capacity.main(
            config.parse(measure_capacity.Config, [f"--run={study / name}", "--device=cpu", "--threads=1"])
        )
        told[name] = capsys.readouterr().out.splitlines()[-1]
    assert told["latent"].startswith("two-hop losses near chance") and "parent" in told["latent"]
    assert "chance" not in told["main"]


def test_every_row_tells_the_contents_of_the_run(study, capsys):
    run = Trained(study / "latent", "cpu", 1)
    lines, rows = shown(capsys, run.run.path), contents(run)
    assert len(lines) == len(rows[0]) == (1 + 3 + 3) * 5
    for line, *seeds in zip(lines, *rows, strict=True):
        first, found = seeds[0], [row.found for row in seeds]
        assert line[:3] == [first.hops, first.storage, first.scheme]
        bits = np.array([one.bits for one in found])
        half = 4.302653 * bits.std(ddof=1) / np.sqrt(3)
        dataset, baseline = (
            np.mean(values) for values in zip(*((c.dataset, c.selection.sum()) for c in found), strict=True)
        )
        expected = [bits.mean(), half, dataset, baseline, bits.mean() / run.P, half / run.P, 0]
        assert [float(cell) for cell in line[3:]] == pytest.approx(expected, abs=0.51)
        assert [float(cell) for cell in line[7:9]] == pytest.approx(expected[4:6], abs=6e-4)


def test_storage_scheme_and_subjects_are_chosen(study, capsys):
    (line, *parts) = shown(capsys, study / "latent", "--scheme=corrected", "--storage=big_hash", "--by_subject=true")[
        :9
    ]
    assert line[:3] == ["train_twohop", "big_hash", "corrected"]
    assert [part[0] for part in parts] == list(Trained(study / "latent", "cpu", 1).support[0].subjects)
    assert sum(float(part[1]) for part in parts) == pytest.approx(float(line[3]), abs=5)


def test_a_checkpoint_is_chosen(study, capsys):
    run = Trained(study / "main", "cpu", 1)
    first = np.mean([seed[4].found.bits for seed in contents(run, step=run.steps[0])])
    (line,) = shown(capsys, study / "main", "--scheme=corrected", f"--step={run.steps[0]}")
    assert float(line[3]) == pytest.approx(first, abs=0.51)
    (last,) = shown(capsys, study / "main", "--scheme=corrected")
    assert line[3] != last[3]


def test_questions_that_were_drawn_have_a_standard_error(study, capsys):
    (line,) = shown(capsys, study / "main", "--scheme=corrected", "--questions=100")
    assert float(line[-1]) > 0


def test_columns_end_where_their_heads_do_and_one_seed_has_no_interval():
    assert measure_capacity.measured([1234.4]) == "1,234"
    head, *lines = measure_capacity.table(
        [list(measure_capacity.HEAD), ["a", "b", "c", "1", "2", "3", "4.0", "0.1"]]
    ).splitlines()
    assert [len(line) for line in lines] == [len(head)]
    assert head.index("dataset") + len("dataset") == lines[0].index("2") + 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--storage=double"], r"found storage double for a run of orders \[1\], expected one of one_hop"),
        (["--scheme=best"], "found scheme best, expected one of optimal, enumerate"),
        (["--step=7"], r"found no checkpoint of step 7 in .* expected one of \[0, "),
    ],
)
def test_what_does_not_fit_the_run_is_refused(study, capsys, flags, told):
    with pytest.raises(UserError, match=told):
        shown(capsys, study / "main", *flags)


def command(run, *flags) -> subprocess.CompletedProcess:
    argv = [
        sys.executable,
        "capacity_reasoning/measure_capacity.py",
        f"--run={run}",
        "--device=cpu",
        "--threads=1",
        *flags,
    ]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_a_run_that_is_not_there_is_refused(study, capsys):
    with pytest.raises(UserError, match=r"found no run at .*nowhere, expected one of those beside it \("):
        shown(capsys, study / "nowhere")


def test_a_copy_that_lost_its_splits_ends_with_2_in_a_line_or_two(study, tmp_path):
    lost = shutil.copytree(study / "latent", tmp_path / "lost")
    (lost / "splits.npz").unlink()
    done = command(lost)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: found no readable") and len(done.stderr.splitlines()) <= 2


def test_the_command_prints_a_table(study):
    done = command(study / "cot", "--scheme", "corrected")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("N = 60, R = 4, P = 6,512, 3 seeds")
    kinds = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert kinds == ["questions", "train_onehop", "train_twohop", "2.1-hop"]
