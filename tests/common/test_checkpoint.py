"""A checkpoint is whole or passed over: bits survive, damage is named, a kill costs the one being written at most."""

import hashlib
import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from common import config
from common.checkpoint import Checkpointer, Schedule, logarithmic
from common.config import UserError

ROOT = Path(__file__).parents[2]


@dataclass
class Settings:
    name: str = "main"
    """Folder."""


FILES = ("weights.safetensors", "state.pt", "manifest.json")


def weights_of(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"a.weight": torch.randn(3, 4, 5, generator=generator), "step": torch.full((2,), step)}


def state_of(step: int) -> dict:
    rng = torch.Generator().manual_seed(step).get_state()
    return {"rng": [rng], "count": step, "lr": 1 / (step + 1), "name": "adam", "done": False, "best": None}


def equal(ours, theirs) -> bool:
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


def saved(folder, *steps: int, keep_states: int = 2) -> Checkpointer:
    keeper = Checkpointer(folder, keep_states)
    for step in steps:
        keeper.save(step, weights_of(step), state_of(step))
    return keeper


def is_checkpoint_of(found, step: int) -> bool:
    return found[0] == step and equal(found[1], weights_of(step)) and equal(found[2], state_of(step))


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """An empty place of either kind."""
    return tmp_path / "checkpoints" if request.param == "local" else f"memory://{uuid.uuid4()}/checkpoints"


def test_what_is_saved_comes_back_bit_for_bit(folder):
    keeper = saved(folder, 0, 500, 1000)
    assert is_checkpoint_of(Checkpointer(folder).latest(), 1000)
    assert keeper.steps() == [0, 500, 1000]
    assert equal(keeper.weights(0), weights_of(0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int64", "bool"])
def test_every_type_of_number_survives(tmp_path, dtype):
    weights = {"x": (torch.randn(7, generator=torch.Generator().manual_seed(0)) * 9).to(getattr(torch, dtype))}
    keeper = Checkpointer(tmp_path)
    keeper.save(1, weights, {"x": weights["x"]})
    _, ours, state = keeper.latest()
    assert equal(ours, weights) and equal(state["x"], weights["x"])


def test_tied_and_strided_weights_are_saved(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    weights = {"embedding": shared, "readout": shared, "transposed": shared.T}
    keeper = Checkpointer(tmp_path)
    keeper.save(1, weights, {})
    assert equal(keeper.weights(1), weights)


def test_an_empty_place_has_no_latest(folder):
    assert Checkpointer(folder).latest() is None and Checkpointer(folder).steps() == []


def test_saving_a_step_again_replaces_it(folder):
    keeper = saved(folder, 1, 2)
    keeper.save(2, weights_of(7), state_of(7))
    assert keeper.steps() == [1, 2] and equal(keeper.weights(2), weights_of(7))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "first", "middle", "last"])
def test_damage_is_named_and_the_newest_whole_one_is_used(tmp_path, file, damage):
    keeper = saved(tmp_path, 1, 2, 3)
    path = tmp_path / "step_00000003" / file
    content = bytearray(path.read_bytes())
    # One bit of a digest, not of the step, which the folder's name tells as well.
    where = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1 if file != "manifest.json" else -10}
    if damage in where:
        content[where[damage]] ^= 1
    path.write_bytes({"truncated": content[:-20], "emptied": b""}.get(damage, content))
    if damage == "removed":
        path.unlink()
    if (file, damage) == ("manifest.json", "removed"):
        assert keeper.steps() == [1, 2] and is_checkpoint_of(keeper.latest(), 2)
        return
    with pytest.warns(UserWarning, match="passed over step_00000003 \\("):
        assert is_checkpoint_of(keeper.latest(), 2)


def test_every_flipped_bit_of_a_weights_file_is_seen(tmp_path):
    keeper = saved(tmp_path, 1)
    path = tmp_path / "step_00000001" / "weights.safetensors"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(UserError, match="step_00000001 .* broken .*checksum of weights.safetensors differs"):
            keeper.weights(1)


def test_a_missing_or_broken_step_lists_those_there_are(tmp_path):
    keeper = saved(tmp_path, 1, 2, 3)
    with pytest.raises(UserError, match=re.escape("no checkpoint of step 5") + ".*" + re.escape("[1, 2, 3]")):
        keeper.weights(5)
    (tmp_path / "step_00000002" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape("broken") + ".*" + re.escape("[1, 3]")):
        keeper.weights(2)


def test_states_are_kept_for_the_newest_and_weights_for_all(folder):
    keeper = saved(folder, 1, 2, 3, 4, 5)
    stateful = [step for step in keeper.steps() if "state.pt" in keeper.place.files()[f"step_{step:08d}"]]
    assert stateful == [4, 5]
    assert all(equal(keeper.weights(step), weights_of(step)) for step in range(1, 6))


def test_with_all_states_broken_there_is_nothing_to_resume_and_every_one_is_named(folder):
    keeper = saved(folder, 1, 2, 3)
    for step in (2, 3):
        keeper.place.replace(f"step_{step:08d}", "state.pt", b"x")
    with pytest.warns(UserWarning) as told:
        assert keeper.latest() is None
    (message,) = (str(warning.message) for warning in told)
    assert all(f"step_0000000{step}" in message for step in (1, 2, 3)) and "not kept" in message


def test_a_broken_manifest_does_not_stop_later_saves(tmp_path):
    keeper = saved(tmp_path, 1, 2)
    (tmp_path / "step_00000001" / "manifest.json").write_text("{")
    keeper = saved(tmp_path, 3, 4)
    assert is_checkpoint_of(keeper.latest(), 4)


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.float32, lambda: 0, Path("x")])
def test_a_state_that_could_not_be_read_again_is_refused_at_the_save(tmp_path, value):
    keeper = Checkpointer(tmp_path)
    with pytest.raises(TypeError, match=re.escape("state['adam'][1]: found")):
        keeper.save(1, {}, {"adam": [0, value]})
    assert keeper.steps() == []


def test_code_in_a_state_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    keeper = saved(tmp_path / "checkpoints", 1, 2)
    for content in (pickle.dumps(Trap(), protocol=2), zipped_pickle(Trap())):
        digest = hashlib.sha256(content).hexdigest()
        keeper.place.replace("step_00000002", "state.pt", content)
        manifest = json.loads(keeper.place.read("step_00000002", "manifest.json"))
        manifest["sha256"]["state.pt"] = digest
        keeper.place.replace("step_00000002", "manifest.json", json.dumps(manifest).encode())
        with pytest.warns(UserWarning, match="step_00000002 .*more than tensors and plain values"):
            assert is_checkpoint_of(keeper.latest(), 1)
    assert not (tmp_path / "sprung").exists()


def zipped_pickle(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Crash(BaseException):
    """The end of the process, as far as the code under test is concerned."""


def test_an_end_at_any_system_call_of_a_save_leaves_a_whole_newest(tmp_path, monkeypatch):
    """Stop the fourth save at its first, second, ... call that changes the disk, until it gets through."""
    calls_left = [0]

    def counted(function):
        def call(*arguments, **options):
            calls_left[0] -= 1
            if calls_left[0] < 0:
                raise Crash
            return function(*arguments, **options)

        return call

    for name in ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    outcomes = []
    for calls in range(1000):
        calls_left[0] = 10**9
        folder = tmp_path / str(calls)
        keeper = saved(folder, 1, 2, 3)
        calls_left[0] = calls
        try:
            saved(folder, 4)
        except Crash:
            calls_left[0] = 10**9
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = keeper.latest()
            assert is_checkpoint_of(found, found[0])
            assert all(equal(keeper.weights(step), weights_of(step)) for step in keeper.steps())
            outcomes.append(found[0])
            saved(folder, 5)
            assert sorted(path.name for path in folder.iterdir()) == [f"step_{step:08d}" for step in [*keeper.steps()]]
            continue
        break
    assert set(outcomes) == {3, 4} and outcomes == sorted(outcomes)


KILLED_SAVING = """
import sys
import torch
from tests.common.test_checkpoint import Checkpointer, state_of, weights_of
keeper = Checkpointer(sys.argv[1])
for step in range(keeper.steps()[-1] + 1 if keeper.steps() else 0, 10**9):
    keeper.save(step, weights_of(step) | {"large": torch.zeros(10**6)}, state_of(step))
    print(step, flush=True)
"""


def test_a_kill_while_saving_leaves_a_whole_newest(tmp_path):
    for pause in (0.1, 0.123):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED_SAVING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(pause)
        process.kill()
        process.communicate()
        step, weights, state = Checkpointer(tmp_path).latest()
        weights.pop("large")
        assert is_checkpoint_of((step, weights, state), step)
    keeper = saved(tmp_path, 10**7)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:08d}" for step in keeper.steps()]


def test_no_space_is_one_line_and_costs_nothing_that_was_there(tmp_path, monkeypatch, capsys):
    keeper = saved(tmp_path, 1)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SystemExit) as left:
            config.main(lambda settings: keeper.save(2, {"large": torch.zeros(10**6)}, {}), Settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = capsys.readouterr().err
    assert left.value.code == 2 and message.count("\n") == 1
    assert "weights.safetensors: file size limit reached" in message
    assert is_checkpoint_of(keeper.latest(), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_without_its_manifest_a_remote_checkpoint_does_not_exist():
    keeper = saved(f"memory://{uuid.uuid4()}", 1, 2)
    keeper.place.remove("step_00000002", "manifest.json")
    assert keeper.steps() == [1] and is_checkpoint_of(keeper.latest(), 1)


def test_a_remote_manifest_is_written_last(monkeypatch):
    keeper = Checkpointer(f"memory://{uuid.uuid4()}")
    written = []
    monkeypatch.setattr(keeper.place, "replace", lambda name, file, content: written.append(file))
    keeper.place.write("step_00000001", {"manifest.json": b"", "weights.safetensors": b"", "state.pt": b""})
    assert written == ["weights.safetensors", "state.pt", "manifest.json"]


def test_a_file_address_is_a_place_too(tmp_path):
    assert is_checkpoint_of(saved(f"file://{tmp_path}/checkpoints", 1, 2, 3).latest(), 3)
    assert is_checkpoint_of(Checkpointer(tmp_path / "checkpoints").latest(), 3)


@pytest.mark.parametrize("every, total", [(1, 5), (500, 1500), (400, 1500), (2000, 1500)])
@pytest.mark.parametrize("also", [(), (0, 3, 450, 1500)])
def test_a_schedule_is_every_multiple_the_end_and_what_is_added(every, total, also):
    schedule = Schedule(every, total, also)
    steps = [step for step in range(total + 1) if step in schedule]
    assert steps == sorted({*range(0, total + 1, every), total, *also} & set(range(total + 1)))
    assert [schedule.after(step) for step in range(total)] == [
        min(s for s in steps if s > step) for step in range(total)
    ]


def test_a_schedule_of_many_steps_is_no_list_of_them():
    assert 999_999_999 in Schedule(1, 10**9) and Schedule(1, 10**9).after(7) == 8


@pytest.mark.parametrize("total", [1, 7, 100, 4096])
@pytest.mark.parametrize("per_decade", [1, 4, 10])
def test_logarithmic_has_equal_ratios(total, per_decade):
    steps = logarithmic(total, per_decade)
    exact = {round(10 ** (k / per_decade)) for k in range(10 * per_decade)}
    assert steps == sorted({step for step in exact if step <= total} | {total})


def test_a_schedule_of_nothing_is_a_users_mistake():
    with pytest.raises(UserError, match="expected at least 1"):
        logarithmic(10, 0)
