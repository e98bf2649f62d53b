"""The mirror is off unless asked for; W&B offline leaves the history in the run folder, without account or network."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from common.mirror import Mirror, Wandb, mirror
from common.run import UserError

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys
from common.mirror import Wandb, mirror
from common.run import Run
run = Run.create(sys.argv[1], Wandb(sys.argv[2]))
run.mirror = mirror(Wandb(sys.argv[2]), run.path, {"train": {"lr": 0.5}})
for step in (50, 100):
    for seed in (0, 1):
        run.log(step, seed=seed, loss=step + seed, gap=float("nan"))
run.finish()
print(sorted({"wandb", "trackio"} & set(sys.modules)))
"""


def train(path: Path, mode: str) -> str:
    """Output of a short run in its own process, without account."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    clean["HOME"] = str(path.parent)
    command = [sys.executable, "-c", TRAIN, str(path), mode]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout


def records(path: Path):
    """Records of a .wandb file: 7 bytes of header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        whole, last = 1, 4
        if kind in (whole, last):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def test_off_imports_nothing_and_leaves_nothing(tmp_path):
    assert mirror(Wandb(), tmp_path, {}) is None
    assert train(tmp_path / "run", "off").split() == ["[]"]
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"config.yaml", "manifest.json", "metrics.jsonl"}


def test_offline_leaves_the_whole_history_in_the_run_folder(tmp_path):
    train(tmp_path / "run", "offline")
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    history = [record.history for record in records(log) if record.WhichOneof("record_type") == "history"]
    rows = [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in row.item} for row in history]
    rows = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert rows == [{"step": step, f"loss/seed{seed}": step + seed} for step in (50, 100) for seed in (0, 1)]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_rows_of_one_step_are_told_apart_by_seed_and_text():
    sent = []
    copy = Mirror(lambda step, numbers: sent.append((step, numbers)), lambda: None)
    copy.log(5, {"step": 5, "seed": 1, "component": "attention", "loss": 0.5, "gap": None, "time": 9.0})
    copy.log(6, {"step": 6, "loss": 0.25, "time": 9.5})
    assert sent == [(5, {"loss/seed1/attention": 0.5}), (6, {"loss": 0.25})]


def test_a_missing_library_names_the_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    with pytest.raises(UserError, match="found no trackio; mend with: pip install trackio"):
        mirror(Wandb("offline", backend="trackio"), tmp_path, {})
    with pytest.raises(UserError, match="--wandb.mode offline"):
        mirror(Wandb("online", backend="trackio"), tmp_path, {})


def test_trackio_keeps_its_record_in_the_run_folder(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="trackio is an extra")
    import sqlite3

    code = """
import sys
from common.mirror import Wandb, mirror
copy = mirror(Wandb("offline", backend="trackio"), sys.argv[1], {"lr": 0.5})
copy.log(50, {"step": 50, "seed": 0, "loss": 0.25})
copy.finish()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], cwd=ROOT, check=True)
    (database,) = (tmp_path / "run" / "trackio").glob("*.db")
    ((step, metrics),) = sqlite3.connect(database).execute("select step, metrics from metrics").fetchall()
    assert step == 50 and json.loads(metrics) == {"loss/seed0": 0.25}
