"""A run folder loses nothing: not to a kill, not to a second process, not to a changed setting."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from common import config, manifest
from common.plain import plain, write_atomic
from common.run import Run, UserError

ROOT = Path(__file__).parents[2]


@dataclass
class Train:
    steps: int = 100
    """Steps."""
    lr: float = 1e-3
    """Learning rate."""


@dataclass
class Config:
    name: str = "main"
    """Folder."""
    resume: bool = False
    """Go on."""
    train: Train = field(default_factory=Train)
    """Training."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "abrupt_learning" / "quick" / "main"


def python(code: str, *arguments: str) -> subprocess.Popen:
    """A process that runs `code` with common importable; its output is a pipe."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def rows_without_time(run: Run) -> list[dict]:
    return run.metrics().drop(columns="time").to_dict("records")


def test_a_new_run_holds_its_config_and_manifest(path):
    settings = Config(train=Train(7, 1e-5))
    run = Run.create(path, settings, device=torch.device("cpu"))
    assert config.load(Config, run.config_path) == settings
    manifest = run.manifest
    assert manifest["state"] == "running" and manifest["versions"]["torch"] == torch.__version__
    assert manifest["threads"] == torch.get_num_threads() and "cores" in manifest["device"]
    assert {"command", "commit", "dirty", "start"} <= manifest.keys() and manifest["end"] is None
    run.finish()
    assert Run.open(path).finished and Run.open(path).manifest["end"] >= manifest["start"]


def test_an_existing_run_is_refused_with_the_two_ways_out(path):
    Run.create(path, Config())
    with pytest.raises(UserError, match="found a run at .*--resume; or .*--name"):
        Run.create(path, Config())


def test_a_resumed_run_goes_on(path):
    first = Run.create(path, Config())
    first.log(1, loss=1.0)
    first.finish("interrupted")
    again = Run.create(path, Config(resume=True), resume=True)
    again.log(2, loss=0.5)
    assert rows_without_time(again) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    assert again.manifest["state"] == "running" and len(again.manifest["resumed"]) == 1
    assert again.manifest["start"] == first.manifest["start"]


def test_a_finished_run_comes_back_untouched(path):
    Run.create(path, Config()).finish()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert Run.create(path, Config(), resume=True).finished
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    with pytest.raises(UserError, match="found a finished run"):
        Run.create(path, Config())


def test_a_changed_setting_is_named_at_resume(path):
    Run.create(path, Config()).finish("interrupted")
    with pytest.raises(UserError, match="train.steps: found 200, expected 100 as in .*config.yaml"):
        Run.create(path, Config(train=Train(steps=200)), resume=True)


def test_a_run_killed_before_its_config_was_written_can_be_resumed(path):
    path.mkdir(parents=True)
    (path / ".config.yaml.123").write_text("name: ma")
    assert Run.create(path, Config(), resume=True).config()["name"] == "main"


@pytest.mark.parametrize("error, state", [(KeyboardInterrupt, "interrupted"), (ValueError, "failed")])
def test_how_a_run_ended_is_recorded(path, error, state):
    with pytest.raises(error), Run.create(path, Config()):
        raise error
    assert Run.open(path).manifest["state"] == state


def test_a_missing_run_is_named_with_those_beside_it(path):
    Run.create(path, Config())
    with pytest.raises(UserError) as error:
        Run.open(path.with_name("mian"))
    assert "mian" in str(error.value) and "(main)" in str(error.value)
    assert "python abrupt_learning/train.py --config abrupt_learning/configs/quick.yaml" in str(error.value)


def test_floats_come_back_bit_for_bit(path):
    run = Run.create(path, Config())
    values = [0.1 + 0.2, 1e-320, math.pi * 1e30, -0.0, 1 / 3]
    for step, value in enumerate(values):
        run.log(step, loss=value)
    read = run.metrics()["loss"].tolist()
    assert [value.hex() for value in read] == [value.hex() for value in values]


def test_numbers_that_are_not_finite_are_null_in_the_file_and_nan_in_the_table(path):
    run = Run.create(path, Config())
    run.log(1, loss=math.nan, norm=1.0, accuracy=torch.tensor(math.nan))
    run.log(2, loss=math.inf, norm=np.float64("-inf"), accuracy=None)
    assert "NaN" not in run.metrics_path.read_text() and "Infinity" not in run.metrics_path.read_text()
    table = run.metrics()
    assert table["loss"].isna().all() and table["accuracy"].isna().all() and table["loss"].dtype == float
    assert table["norm"].isna().tolist() == [False, True]


def test_tensors_and_arrays_are_plain_numbers_in_json():
    values = {"a": torch.tensor(2), "b": np.arange(3), "c": (torch.ones(2, 1), math.nan), 4: np.float64(0.1)}
    assert plain(values) == {"a": 2, "b": [0, 1, 2], "c": [[[1.0], [1.0]], None], "4": 0.1}
    assert type(plain(values)["4"]) is float


def test_each_row_is_on_disk_when_log_returns(path):
    run = Run.create(path, Config())
    for step in range(3):
        run.log(step, seed=0, loss=1.0)
        assert len(run.metrics_path.read_text().splitlines()) == step + 1


def test_wherever_the_last_line_is_torn_the_rows_before_it_stay(path):
    run = Run.create(path, Config())
    for step in range(3):
        run.log(step, loss=1 / (step + 1))
    whole = run.metrics_path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start + 1, len(whole)):
        run.metrics_path.write_bytes(whole[:end])
        with pytest.warns(UserWarning, match="torn last line"):
            assert run.metrics()["step"].tolist() == [0, 1]
    with pytest.warns(UserWarning, match="torn last line"):
        run.truncate(math.inf)
    assert run.metrics_path.read_bytes() == whole[:start]


def test_truncate_keeps_the_bytes_of_the_rows_up_to_the_step(path):
    run = Run.create(path, Config())
    for step in range(5):
        for seed in range(2):
            run.log(step, seed=seed, loss=0.1)
    lines = run.metrics_path.read_bytes().splitlines(keepends=True)
    run.truncate(2)
    assert run.metrics_path.read_bytes() == b"".join(lines[:6])
    run.log(3, seed=0, loss=0.2)
    assert run.metrics()["step"].tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_a_damaged_line_in_the_middle_is_a_clear_error(path):
    run = Run.create(path, Config())
    run.metrics_path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match="damaged line 2 in .*metrics.jsonl"):
        run.metrics()


def test_a_run_without_metrics_says_how_to_make_them(path):
    with pytest.raises(UserError, match="found no .*metrics.jsonl.*train.py"):
        Run.create(path, Config()).metrics()


LOGGING = """
import sys
from common.run import Run
run = Run(sys.argv[1])
for step in range(int(sys.argv[2]), 10**9):
    run.log(step, loss=step / 7, text="x" * 100_000)
    print(step, flush=True)
"""


def test_a_kill_while_logging_tears_at_most_the_last_line(path):
    run, begin = Run.create(path, Config()), 0
    for _ in range(4):
        process = python(LOGGING, str(path), str(begin))
        process.stdout.readline()
        time.sleep(0.05)
        process.kill()
        process.communicate()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = run.metrics()["step"].tolist()
            run.truncate(math.inf)
        assert steps == list(range(len(steps))) and len(steps) > begin
        begin = len(steps)
        assert run.metrics_path.read_bytes().endswith(b"\n")


HOLDING = """
import sys, time
from tests.common.test_run import Config, Run
run = Run.create(sys.argv[1], Config())
print("ready", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_kept_out_until_the_first_has_gone(path):
    process = python(HOLDING, str(path))
    process.stdout.readline()
    with pytest.raises(UserError, match="another process writing"):
        Run.create(path, Config(), resume=True)
    process.kill()
    process.communicate()
    assert not Run.create(path, Config(), resume=True).finished


KILLED_WRITING = """
import sys
from common.plain import write_atomic
for step in range(10**9):
    write_atomic(sys.argv[1], b"ab"[step % 2 :][:1] * 3_000_000)
    if step == 2:
        print("ready", flush=True)
"""


def test_a_kill_while_writing_leaves_the_old_content_or_the_new(tmp_path):
    for round in range(4):
        process = python(KILLED_WRITING, str(tmp_path / "file"))
        process.stdout.readline()
        time.sleep(0.013 * round)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert (tmp_path / "file").read_bytes() in (b"a" * 3_000_000, b"b" * 3_000_000)


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", "old")

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_atomic(tmp_path / "file", "new")
    assert error.value.filename == str(tmp_path / "file")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_results_read_back_and_a_missing_one_names_its_analysis(path):
    run = Run.create(path, Config())
    run.result("probe", {"accuracy": torch.tensor([0.25, math.nan]), "seeds": 3})
    assert run.read("probe") == {"accuracy": [0.25, None], "seeds": 3}
    assert (path / "results" / "probe.json").is_file()
    with pytest.raises(UserError, match="found no .*patch.json; make it with the analysis patch and --run"):
        run.read("patch")


def test_a_figure_is_saved_with_the_data_drawn(path):
    run = Run.create(path, Config())
    figure = Figure()
    figure.subplots().plot([1, 2])
    run.figure("loss", figure, {"loss": np.array([1.0, 2.0])})
    assert (path / "figures" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (path / "figures" / "loss.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((path / "figures" / "loss.json").read_text()) == {"loss": [1.0, 2.0]}


def test_a_mirror_gets_every_row_and_the_end(path):
    seen = []

    class Mirror:
        def log(self, step, row):
            seen.append((step, row["loss"]))

        def finish(self):
            seen.append("finish")

    run = Run.create(path, Config(), mirror=Mirror())
    run.log(1, loss=0.5)
    run.finish()
    assert seen == [(1, 0.5), "finish"]


def test_a_run_whose_folder_is_replaced_stops_and_leaves_the_new_one_alone(path):
    first = Run.create(path, Config())
    first.log(1, loss=1.0)
    shutil.rmtree(path)
    second = Run.create(path, Config())
    second.log(1, loss=2.0)
    with pytest.raises(UserError, match="deleted or replaced while this run wrote"), first:
        first.log(2, loss=1.0)
    second.log(2, loss=2.0)
    assert second.manifest["state"] == "running"
    second.finish()
    assert [row["loss"] for row in rows_without_time(Run.open(path))] == [2.0, 2.0]


def test_a_run_whose_folder_is_gone_stops_without_making_it_anew(path):
    run = Run.create(path, Config())
    shutil.rmtree(path)
    with pytest.raises(UserError, match="deleted or replaced"), run:
        run.log(1, loss=1.0)
    assert not path.exists()


@pytest.mark.parametrize("left", ["metrics.jsonl", "manifest.json", "checkpoints"])
def test_without_its_config_a_run_is_not_gone_on_with(path, left):
    run = Run.create(path, Config())
    run.log(1, loss=1.0)
    run.finish("interrupted")
    (path / "checkpoints").mkdir()
    for name in {"config.yaml", "metrics.jsonl", "manifest.json", "checkpoints"} - {left}:
        there = path / name
        there.rmdir() if there.is_dir() else there.unlink()
    with pytest.raises(UserError, match="found no .*config.yaml, but what a run with one has written"):
        Run.create(path, Config(train=Train(lr=0.5)), resume=True)


def test_where_a_run_lies_is_no_part_of_what_it_computes(path, capsys):
    @dataclass
    class Placed(Config):
        root: str = "runs"
        study: str = "quick"
        device: str = "cpu"
        threads: int = 0

    Run.create(path, Placed()).finish("interrupted")
    moved = path.with_name("moved")
    path.rename(moved)
    assert Run.create(moved, Placed("moved", root="elsewhere", study="slow"), resume=True).config()["name"] == "main"
    assert capsys.readouterr().err == ""
    Run.create(moved, Placed(threads=2), resume=True)
    told = capsys.readouterr().err
    assert "goes on with threads 2, was 0: other rounding" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:-1], lambda lines: [*lines, lines[-1]], lambda lines: lines[1:]]
)
def test_an_ended_run_whose_record_has_changed_says_so(path, change):
    run = Run.create(path, Config())
    for step in range(4):
        run.log(step, loss=1.0)
    run.finish()
    run.metrics_path.write_text("".join(change(run.metrics_path.read_text().splitlines(keepends=True))))
    with pytest.raises(UserError, match=r"found [35] rows in .*metrics.jsonl, expected 4"):
        Run.open(path).metrics()
    with pytest.raises(UserError, match=r"found [35] rows"):
        Run.create(path, Config(), resume=True)


def test_code_inside_of_another_repository_has_no_commit(tmp_path, monkeypatch):
    """As where the package is installed, not editable, into the .venv of somebody's project."""
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    inside = tmp_path / ".venv" / "site-packages"
    inside.mkdir(parents=True)
    monkeypatch.setattr(manifest, "ROOT", inside)
    assert manifest.manifest()["commit"] is None and manifest.manifest()["dirty"] is None
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    assert len(manifest.manifest()["commit"]) == 40


def test_what_killed_writes_have_left_is_swept_at_the_next_resume(path):
    Run.create(path, Config()).finish("interrupted")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (path / "results").mkdir()
    left = [path / f".manifest.json.{gone.pid}", path / "results" / f".loss.json.{gone.pid}"]
    alive = path / f".config.yaml.{os.getppid()}"
    for file in (*left, alive):
        file.write_text("{")
    Run.create(path, Config(), resume=True)
    assert not any(file.exists() for file in left) and alive.exists()
