"""The training command: resume after a kill, same command same numbers, mistakes in one or two lines."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from abrupt_learning.data import sample
from abrupt_learning.train import Config, State, build, main, replicas_of, step
from common import config
from common.config import UserError
from common.device import generator
from common.run import Run
from tests.papers import assert_same_run, last_weights, record

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "abrupt_learning/configs/smoke.yaml"
TRAIN = [sys.executable, str(ROOT / "abrupt_learning/train.py"), f"--config={SMOKE}"]


def command(root: Path, *flags: str) -> list[str]:
    return [*TRAIN, f"--root={root}", *flags]


def run(root: Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(root, *flags), capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A smoke run that was never stopped."""
    root = tmp_path_factory.mktemp("whole")
    done = run(root)
    assert done.returncode == 0, done.stderr
    return root / "abrupt_learning/smoke/main"


def test_the_same_command_twice_gives_the_same_numbers(whole, tmp_path):
    assert run(tmp_path).returncode == 0
    assert_same_run(whole, tmp_path / "abrupt_learning/smoke/main")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(whole, tmp_path, number):
    folder = tmp_path / "abrupt_learning/smoke/main"
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "checkpoints/step_00000020").exists():
        time.sleep(0.01)
    process.send_signal(number)
    code = process.wait(timeout=60)
    assert code in ((-signal.SIGKILL,) if number == signal.SIGKILL else (130,))
    assert len(record(folder)) < len(record(whole))
    again = run(tmp_path, "--resume=true")
    assert again.returncode == 0, again.stderr
    assert_same_run(whole, folder)


def test_a_broken_newest_checkpoint_is_named_and_the_one_before_serves(whole, tmp_path):
    assert run(tmp_path).returncode == 0
    folder = tmp_path / "abrupt_learning/smoke/main"
    broken = sorted((folder / "checkpoints").iterdir())[-1] / "weights.safetensors"
    broken.write_bytes(broken.read_bytes()[:-10])
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"state": "interrupted"}))
    again = run(tmp_path, "--resume=true")
    assert again.returncode == 0, again.stderr
    assert "step_00000060" in again.stderr
    assert_same_run(whole, folder)


def test_an_existing_run_is_refused_and_a_finished_one_says_so(whole):
    root = whole.parents[2]
    refused, finished = run(root), run(root, "--resume=true")
    assert refused.returncode == 2
    assert "--resume" in refused.stderr and "--name" in refused.stderr
    assert finished.returncode == 0
    assert "finished" in finished.stdout


@pytest.mark.parametrize("sizes", [[[4, 4]], [[3, 3], [4, 4]]])
def test_a_state_restored_steps_as_the_one_saved(tmp_path, sizes):
    settings = settings_with(tmp_path, data={"sizes": sizes})
    first, second = (State.start(settings, torch.device("cpu")) for _ in range(2))
    for _ in range(3):
        step(settings, first)
    second.restore(first.save())
    for state in (first, second):
        step(settings, state)
    assert first.window.any() and torch.equal(first.window, second.window)
    assert torch.equal(first.replicas.flat, second.replicas.flat)


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_a_stack_steps_as_its_replicas_one_by_one(tmp_path, kind):
    """What a GPU does is what a CPU does."""
    settings = settings_with(tmp_path, model={"kind": kind})
    stacked, apart = (State.start(settings, torch.device("cpu")) for _ in range(2))
    stacked.replicas.batched, apart.replicas.batched = True, False
    for state in (stacked, apart):
        step(settings, state)
    torch.testing.assert_close(stacked.window, apart.window)
    gradients = stacked.replicas.mean, apart.replicas.mean
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)
    assert gradients[0].any()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.hiden_size", "64"], ["model.hiden_size", "model.hidden_size"]),
        (["--model.n_layer", "two"], ["model.n_layer", "two"]),
        (["--model.n_head", "5"], ["model.n_head", "model.hidden_size"]),
        (["--data.p_mask", "1.5"], ["data.p_mask", "1.5"]),
        (["--model.positions", "15"], ["model.positions", "15", "16 cells"]),
        (["--train.components", "[tokens]"], ["tokens", "token"]),
        (["--train.components", "[token]"], ["--train.start_from"]),
        (["--train.components", "[token]", "--train.start_from", "nowhere/main"], ["nowhere/main"]),
        (["--device", "cuda"], ["cuda", "--device cpu"]),
    ],
)
def test_a_mistake_is_told_in_two_lines_at_most_with_exit_code_2(tmp_path, flags, words):
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("CUDA is there")
    done = run(tmp_path, *flags)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_an_unwritable_root_is_told(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = run(blocked)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) <= 2


def test_initial_weights_do_not_depend_on_the_company():
    settings = config.load(Config, SMOKE)
    stack, _ = replicas_of(settings, torch.device("cpu"))
    for r, seed in enumerate(settings.seeds):
        alone = torch.cat([p.detach().flatten() for p in build(settings, seed, torch.device("cpu")).parameters()])
        assert torch.equal(stack.flat[r], alone)


def settings_with(tmp_path, **changes) -> Config:
    values = yaml.safe_load(SMOKE.read_text()) | {"root": str(tmp_path), "seeds": [0, 1]}
    for key, value in changes.items():
        values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return config.load(Config, path)


def test_a_component_run_moves_that_component_alone(whole, tmp_path):
    parts = {"components": ["token", "attention"], "start_from": str(whole), "steps": 10}
    settings = settings_with(tmp_path, name="components", train=parts)
    main(settings)
    trained = last_weights(settings.folder)
    source = last_weights(whole)
    for r, part in enumerate(["token", "token", "attention", "attention"]):
        for name, value in trained.items():
            wanted = part == "token" and "word_embeddings" in name or part == "attention" and ".attention." in name
            assert torch.equal(value[r], source[name][r % 2]) != wanted, (part, name)
    assert {(row["component"], row["seed"]) for row in record(settings.folder)} == {
        (part, seed) for part in ("token", "attention") for seed in (0, 1)
    }


def test_a_mixture_draws_every_size_and_tests_each(tmp_path):
    data = {"sizes": [[3, 3], [4, 4]]}
    settings = settings_with(tmp_path, name="mixture", data=data, train={"steps": 20, "evaluate_every": 10})
    main(settings)
    tests = [row for row in record(settings.folder) if "loss_3x3" in row]
    assert len(tests) == 4
    assert all(row["loss_4x4"] > 0 for row in tests)


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_gpt_trains_and_its_loss_falls(tmp_path, attention):
    settings = settings_with(
        tmp_path, name="gpt", model={"kind": "gpt", "attention": attention}, train={"steps": 40, "evaluate_every": 20}
    )
    main(settings)
    rows = record(settings.folder)
    losses = [row["loss"] for row in rows if "loss" in row and row["seed"] == 0]
    assert losses[-1] < losses[0]
    assert sum("accuracy_observed" in row for row in rows) == 4


def test_a_row_is_the_ratio_of_its_windows_sums(tmp_path):
    """A batch of one matrix often hides nothing: it adds nothing, and only a window without any hidden entry has no mean."""
    settings = settings_with(
        tmp_path, seeds=[0], data={"p_mask": 0.05}, train={"batch_size": 1, "steps": 40, "log_every": 10}
    )
    main(settings)
    table = Run.open(settings.folder).metrics()
    stream = generator("cpu", 0, "data")
    shown = torch.stack([sample(settings.data, 1, stream).observed for _ in range(40)]).view(4, 10, 16)
    some = (~shown).flatten(1).any(1)
    assert not (~shown).any(-1).all() and table["loss_masked"].notna().tolist() == some.tolist()
    hidden, size = (~shown).flatten(1).sum(1).numpy(), 160
    total = (table["loss_observed"] * (size - hidden) + table["loss_masked"].fillna(0) * hidden) / size
    assert total.tolist() == pytest.approx(table["loss"].tolist(), rel=1e-5)


def test_random_streams_of_another_device_are_told(tmp_path):
    """Those of CUDA have 16 bytes."""
    state = State.start(settings_with(tmp_path), torch.device("cpu"))
    saved = state.save()
    saved["generators"][0] = torch.zeros(16, dtype=torch.uint8)
    with pytest.raises(UserError, match="another kind of device than cpu.*--device"):
        state.restore(saved)


def test_divergence_of_every_seed_is_told(tmp_path):
    settings = settings_with(tmp_path, train={"lr": 1e30, "steps": 10})
    with pytest.raises(UserError, match="--train.lr"):
        main(settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graphed_run_equals_an_eager_one(tmp_path, monkeypatch, precision):
    graphed = settings_with(tmp_path, name="graphed", device="cuda", precision=precision)
    main(graphed)
    monkeypatch.setattr("abrupt_learning.train.graphed", lambda step, *_, **__: step)
    eager = settings_with(tmp_path, name="eager", device="cuda", precision=precision)
    main(eager)
    assert_same_run(graphed.folder, eager.folder)


def test_settings_that_cannot_work_are_told(tmp_path):
    for flags in (["--train.log_every", "0"], ["--seeds", "[]"], ["--seeds", "[1, 1]"], ["--train.steps", "0"]):
        with pytest.raises(UserError, match="expected"):
            config.parse(Config, [f"--config={SMOKE}", *flags])


def test_entries_beyond_the_vocabulary_are_told(tmp_path, capsys):
    main(settings_with(tmp_path, data={"rank": 3}, train={"steps": 2}))
    assert "beyond data.limit 1.0 and clamped" in capsys.readouterr().err
