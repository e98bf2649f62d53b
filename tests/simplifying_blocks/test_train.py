"""The training command: schedules, batches in parts and over processes, resume, mistakes in one or two lines; the generator."""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from common import config
from common.config import UserError
from simplifying_blocks import generate, train
from simplifying_blocks.data import Data
from simplifying_blocks.evaluate import Trained
from simplifying_blocks.losses import IGNORED
from simplifying_blocks.model import generate as continuation
from simplifying_blocks.objective import test as loss_on
from simplifying_blocks.prepare import prepare
from simplifying_blocks.recipe import Model
from simplifying_blocks.train import Config, Train, rate
from tests.papers import ROOT, flags, last_weights, record
from tests.simplifying_blocks.smoke import TINY

CPU = torch.device("cpu")
BASE = TINY | {"device": "cpu", "threads": 1, "preset": "smoke", "train.eps": 1e-3}
"""An epsilon at which Adam does not blow up the rounding of gradients that are zero, such as those of the keys' biases."""


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A folder of two packages of text: this repository's own code."""
    root = tmp_path_factory.mktemp("text")
    for package in ("common", "simplifying_blocks"):
        shutil.copytree(ROOT / package, root / package, ignore=lambda _, names: [n for n in names if n[-3:] != ".py"])
    return root


@pytest.fixture
def base(text, tmp_path) -> dict:
    return values_of(text, tmp_path)


def values_of(text: Path, root: Path, **changes) -> dict:
    """Flags of a run below `root` that learns the texts of a folder."""
    source = {"data.source": "files", "data.folder": str(text), "data.cache": str(text.parent / "cache")}
    return BASE | source | {"root": str(root)} | changes


def settings_of(*values: dict) -> Config:
    """The settings of flags, later ones first, without the parser: it takes longer than a run of this size."""
    groups: dict[str, dict] = {"": {}, "data": {}, "model": {}, "train": {}}
    for key, value in {key: value for each in values for key, value in each.items()}.items():
        group, _, name = key.rpartition(".")
        groups[group][name] = value
    sections = {"data": Data(**groups["data"]), "model": Model(**groups["model"]), "train": Train(**groups["train"])}
    return Config(**groups[""], **sections)


def trained(*values: dict) -> Path:
    """Train in this process; the run's folder."""
    settings = settings_of(*values)
    train.main(settings)
    return settings.folder


def refused(command, argv: list[str], monkeypatch, capsys) -> str:
    """What a script says that refuses its command line."""
    function, Settings = command
    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    with pytest.raises(SystemExit) as left:
        config.main(function, Settings)
    told = capsys.readouterr().err
    message = told[told.index("error: ") :].strip()
    assert left.value.code == 2 and len(message.splitlines()) <= 2 and "found" in message and "expected" in message
    return message


# Schedules


SCHEDULES = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rate_rises_in_a_line_and_falls_by_the_closed_form(name):
    c = Train(steps=100, lr=2.0, end_lr=0.5, warmup=0.1, schedule=name)
    assert [rate(c, now) for now in range(1, 11)] == pytest.approx([0.2 * now for now in range(1, 11)])
    for now in range(11, 102):
        assert rate(c, now) == pytest.approx(0.5 + 1.5 * SCHEDULES[name]((now - 10) / 91))
    assert rate(c, 101) == pytest.approx(0.5)


def test_wsd_stays_up_and_falls_in_a_line_over_its_last_share():
    c = Train(steps=100, lr=2.0, end_lr=0.5, warmup=0.1, schedule="wsd", decay=0.2)
    assert {rate(c, now) for now in range(10, 82)} == {2.0}
    for now in range(81, 102):
        assert rate(c, now) == pytest.approx(0.5 + 1.5 * (101 - now) / 20)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("end_lr", [0.0, 1.0, 5.0])
def test_rate_peaks_at_lr_where_the_warm_up_ends(schedule, warmup, decay, end_lr):
    c = Train(steps=20, lr=2.0, end_lr=end_lr, warmup=warmup, schedule=schedule, decay=decay)
    rates, top = [rate(c, now) for now in range(1, 21)], max(round(20 * warmup), 1)
    assert rates[top - 1] == max(rates) == 2.0
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0


# What a run records


def test_a_run_starts_at_the_uniform_loss_and_tells_text_size_and_diagnostics(base):
    settings = settings_of(base, {"model.std": 1e-5, "seeds": [3, 5]})
    train.main(settings)
    first = [row for row in record(settings.folder) if row["step"] == 0]
    assert [row["seed"] for row in first] == [3, 5]
    for row in first:
        assert row["valid_iid"] == pytest.approx(math.log(512), rel=1e-4)
        assert row["corpus"] == prepare(settings.data).digest
        assert row["parameters"] == train.count_parameters(train.build(settings, 512, 3))
        assert {"attention_entropy/0", "attention_entropy/1", "rms/2"} <= row.keys()


def assert_rows_stand_once(folder: Path, c: Train, seeds: list[int]) -> None:
    """Of train loss, and of held-out loss, at each step due, a row per seed in their order."""
    rows = record(folder)
    for key, every in (("loss", c.log_every), ("valid_iid", c.evaluate_every), ("rms/0", c.probe_every)):
        due = {now for now in range(c.steps + 1) if now % every == 0 or now == c.steps}
        expected = [(now, seed) for now in sorted(due - ({0} if key == "loss" else set())) for seed in seeds]
        assert [(row["step"], row["seed"]) for row in rows if key in row] == expected
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_each_row_stands_once_and_the_last_tests_on_more_windows_and_on_packages(base):
    values = {
        "train.steps": 7,
        "train.log_every": 3,
        "train.evaluate_every": 2,
        "train.probe_every": 4,
        "seeds": [0, 1],
    }
    settings = settings_of(base, values, {"train.final_windows": 9})
    train.main(settings)
    assert_rows_stand_once(settings.folder, settings.train, [0, 1])
    rows = record(settings.folder)
    assert {row["step"] for row in rows if {"final", "packages"} & row.keys()} == {7}
    corpus, model = prepare(settings.data), Trained(settings.folder, "cpu").model(1)
    for key, split, most in (("valid_iid", "valid_iid", 4), ("final", "valid_iid", 9), ("packages", "valid", 4)):
        loss = loss_on(settings, corpus, model, corpus.windows(split, 16), most)
        assert rows[-1][key] == pytest.approx(loss, rel=1e-6)
    assert rows[-1]["bits_per_byte"] == pytest.approx(corpus.bits_per_byte(rows[-1]["final"], "valid_iid"))


@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_held_out_loss_is_the_same_each_time_and_training_lowers_it(base, objective):
    still = {"train.lr": 1e-30, "train.weight_decay": 0, "model.objective": objective}
    losses = [row["valid_iid"] for row in record(trained(base, still)) if "valid_iid" in row]
    assert len(losses) == 3 and len(set(losses)) == 1
    learns = {"train.lr": 1e-2, "train.steps": 40, "train.batch": 16, "train.evaluate_windows": 64, "name": "learns"}
    seldom = {"train.final_windows": 64, "train.evaluate_every": 40, "train.probe_every": 40, "train.save_every": 40}
    rows = record(trained(base, learns, seldom, {"model.objective": objective}))
    assert rows[-1]["valid_iid"] < rows[0]["valid_iid"] - 0.3 and math.isfinite(rows[-1]["packages"])


def test_a_seed_learns_as_if_alone(base):
    pair = trained(base, {"seeds": [4, 7]})
    alone = trained(base, {"seeds": [7], "name": "alone"})
    assert [row for row in record(pair) if row["seed"] == 7] == record(alone)


# Parts of a batch


@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_a_batch_in_parts_learns_what_it_does_at_once(base, objective):
    values = base | {"model.objective": objective, "train.steps": 3, "train.lr": 1e-2, "train.clip": 0.1}
    folders = [trained(values, {"train.micro_batch": size, "name": f"size{size}"}) for size in (0, 1, 3)]
    settings, (whole, *parts) = settings_of(values), [last_weights(folder) for folder in folders]
    corpus = prepare(settings.data)
    before = train.build(settings, corpus.vocabulary, 0).state_dict()
    assert all((whole[name][0] - before[name]).abs().max() > 1e-4 for name in ("token.weight", "position.weight"))
    for part in parts:
        for name, value in whole.items():
            torch.testing.assert_close(part[name], value, rtol=0, atol=1e-5, msg=name)
    ours, *others = ([row["loss"] for row in record(folder) if "loss" in row] for folder in folders)
    assert all(other == pytest.approx(ours, rel=1e-6) for other in others)
    targets = train.Batches(settings, corpus, 0, CPU).draw(1)[1]
    assert (len(set((targets != IGNORED).sum(1).tolist())) > 1) == (objective == "mlm")


def test_bf16_trains_close_to_single_precision(base):
    rows = [record(trained(base, {"precision": name, "name": name})) for name in ("fp32", "bf16")]
    single, half = ([row["loss"] for row in each if "loss" in row] for each in rows)
    assert half == pytest.approx(single, rel=1e-2) and half != single


def test_precision_of_accelerates_own_config_does_not_count(base, monkeypatch):
    plain = record(trained(base))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert record(trained(base, {"name": "other"})) == plain


# The optimiser


def learner(settings: Config) -> train.Learner:
    return train.learner_of(settings, prepare(settings.data), 0, CPU, Accelerator(cpu=True))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("embeddings", [True, False])
def test_without_gradient_a_step_is_weight_decay_and_spares_norms_biases_and_gains(base, optimizer, embeddings):
    values = {"train.optimizer": optimizer, "train.decay_embeddings": embeddings, "train.weight_decay": 0.5}
    settings = settings_of(base, values, {"model.block": "sas", "model.biases": "all", "model.std_Q": 0.02})
    model = train.build(settings, 512, 0)
    before = {name: p.detach().clone().add_(1.0) for name, p in model.named_parameters()}
    model.load_state_dict(before, strict=False)
    optimiser = train.optimizer_of(settings.train, model)
    for group in optimiser.param_groups:
        group["lr"] = 0.1 * group["ratio"]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    seen = set()
    for name, parameter in model.named_parameters():
        kind = next((kind for kind in ("token", "position", "norm", "bias", "gains") if kind in name), "matrix")
        kept = kind in ("norm", "bias", "gains") or kind in ("token", "position") and not embeddings
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if kept else 0.95), msg=name)
        seen.add(kind)
    assert seen == {"token", "position", "norm", "bias", "gains", "matrix"}


def test_a_small_beta_is_a_small_rate_of_values_and_projections(base):
    """He & Hofmann, Appendix A, for a step of SGD: alpha W_0 + beta dW moves as plain W at beta^2 times the rate."""
    sgd = {"train.optimizer": "sgd", "train.lr": 0.5, "train.weight_decay": 0, "train.clip": 0, "train.warmup": 0}
    block = {"model.block": "skipless", "model.trainable": [], "model.init_V": "identity", "model.init_P": "identity"}
    scaled = learner(settings_of(base, sgd, block, {"model.beta_V": 0.3, "model.beta_P": 0.3}))
    plain = {"model.alpha_V": "off", "model.alpha_P": "off", "model.beta_V": 1.0, "model.beta_P": 1.0}
    settings = settings_of(base, sgd, block, plain, {"train.vp_lr_ratio": 0.09})
    literal, wrong = learner(settings), learner(settings_of(base, sgd, block, plain))
    ids = literal.batches.draw(9)[0]
    torch.testing.assert_close(literal.model(ids), scaled.model(ids))
    for each in (scaled, literal, wrong):
        train.step(settings if each is not wrong else settings_of(base, sgd), each, Accelerator(cpu=True), 1)
    torch.testing.assert_close(literal.model(ids), scaled.model(ids), rtol=1e-5, atol=1e-6)
    assert (wrong.model(ids) - scaled.model(ids)).abs().max() > 1e-4


def test_a_step_is_clipped_gradient_descent(base):
    sgd = {"train.optimizer": "sgd", "train.lr": 0.5, "train.weight_decay": 0, "train.clip": 1e-3, "train.warmup": 0}
    settings = settings_of(base, sgd)
    one = learner(settings)
    before = copy.deepcopy(one.model)
    inputs, targets = one.batches.draw(1)
    exact_loss = torch.nn.functional.cross_entropy(before(inputs).mT, targets)
    exact_loss.backward()
    loss, norm = train.step(settings, one, Accelerator(cpu=True), 1).tolist()
    exact = torch.cat([p.grad.flatten() for p in before.parameters()]).norm()
    assert norm == pytest.approx(float(exact), rel=1e-5) and norm > 1e-3
    assert loss == pytest.approx(exact_loss.item(), rel=1e-6)
    for ours, theirs in zip(one.model.parameters(), before.parameters(), strict=True):
        # A step of so small a gradient is near the last digit of the weights.
        torch.testing.assert_close(ours, theirs - 0.5 * 1e-3 / exact * theirs.grad, rtol=1e-5, atol=1e-7)


# Resume


def cut(folder: Path, step: int) -> None:
    """Make a run what it was when killed somewhere after its checkpoint of that step."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps({k: v for k, v in manifest.items() if k not in ("rows", "checkpoint", "end")} | {"state": "running"})
    )


SPLIT = {"train.steps": 8, "train.save_every": 4, "train.log_every": 3, "train.batch": 8, "train.micro_batch": 3}
SPLIT |= {"model.objective": "mlm", "model.block": "sas", "seeds": [0, 1], "train.lr": 1e-2}
"""Sums that a checkpoint cuts in two, parts of unequal size and number of targets, and two seeds."""


def assert_close_run(first: Path, second: Path) -> None:
    """Same rows, numbers to 1e-5 of their size; weights close."""
    ours, theirs = record(first), record(second)
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("corpus", None) == other.pop("corpus", None)
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    for name, value in last_weights(first).items():
        torch.testing.assert_close(last_weights(second)[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("step", [0, 4])
def test_a_run_killed_before_or_after_its_first_checkpoint_resumes_to_the_same_rows(base, step):
    values = base | SPLIT
    whole, other = trained(values), trained(values, {"name": "other"})
    cut(other, step)
    if step == 0:
        # Rows up to the first checkpoint, but none of it.
        lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
        (other / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 3))
    trained(values, {"name": "other", "resume": True})
    assert record(other) == record(whole)
    assert_rows_stand_once(other, settings_of(values).train, [0, 1])


# Several processes


def launch(values: dict, *more: str) -> list[str]:
    """Two processes on the CPU; port 0: a free one."""
    accelerate = Path(sys.executable).with_name("accelerate")
    launcher = [accelerate, "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--main_process_port=0"]
    return [*map(str, launcher), "simplifying_blocks/train.py", *flags(values), *more]


def run_two(values: dict, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(launch(values, *more), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def one(text, tmp_path_factory) -> Path:
    """A run of one process."""
    return trained(values_of(text, tmp_path_factory.mktemp("one")), SPLIT)


@pytest.fixture(scope="module")
def two(text, tmp_path_factory) -> Path:
    """The same by two processes."""
    values = values_of(text, tmp_path_factory.mktemp("two")) | SPLIT
    done = run_two(values)
    assert done.returncode == 0, done.stderr
    return settings_of(values).folder


def test_two_processes_give_the_record_and_the_weights_of_one(one, two):
    assert_close_run(one, two)
    assert_rows_stand_once(two, settings_of(BASE, SPLIT).train, [0, 1])
    # Another sum of the same numbers: two processes it was.
    assert record(one) != record(two)


def test_a_run_of_two_processes_goes_on_in_one(one, two, text, tmp_path):
    values = values_of(text, tmp_path) | SPLIT
    folder = settings_of(values).folder
    shutil.copytree(two, folder)
    cut(folder, 4)
    trained(values_of(text, two.parents[2]), SPLIT, {"root": str(tmp_path), "resume": True})
    assert_close_run(one, folder)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two(one, text, tmp_path):
    values = values_of(text, tmp_path) | SPLIT
    folder = settings_of(values).folder
    shutil.copytree(one, folder)
    cut(folder, 4)
    done = run_two(values, "--resume")
    assert done.returncode == 0, done.stderr
    assert_close_run(one, folder)
    again = run_two(values, "--resume")
    assert again.returncode == 0 and "finished" in again.stdout, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGINT, True)])
def test_two_processes_stop_together_and_one_goes_on(text, tmp_path, number, to_all):
    """The signal comes to the launcher, or, as from a terminal's Ctrl-C, to all of its processes."""
    seldom = {"train.save_every": 100, "train.evaluate_every": 300, "train.probe_every": 300}
    values = values_of(text, tmp_path) | SPLIT | seldom | {"train.steps": 600}
    whole, folder = trained(values, {"name": "whole"}), settings_of(values).folder
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(launch(values), cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        while process.poll() is None and not (folder / "checkpoints/step_00000100").exists():
            time.sleep(0.01)
        os.killpg(process.pid, number) if to_all else process.send_signal(number)
        code = process.wait(timeout=120)
    told, last = (tmp_path / "log").read_text(), record(folder)[-1]["step"]
    assert code != 0 and 100 <= last < 600, told
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["state"] == "interrupted" and manifest["checkpoint"] == last
    trained(values, {"resume": True})
    for ours, theirs in zip(record(folder), record(whole), strict=True):
        assert ours["step"] == theirs["step"] and ours.keys() == theirs.keys()
        if "loss" in ours:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_a_batch_that_processes_do_not_share_evenly_leaves_no_folder(base, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refused((train.main, Config), flags(base | {"train.batch": 3}), monkeypatch, capsys)
    assert "train.batch 3 for 2 processes" in message and "--train.batch 4" in message
    assert not settings_of(base).folder.exists()


@pytest.mark.slow
def test_the_launcher_passes_on_what_a_process_refuses(base):
    done = run_two(base | {"train.batch": 3})
    assert done.returncode != 0 and "found train.batch 3 for 2 processes" in done.stderr


# Mistakes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.qk_norm": "rms", "model.std_Q": 0.0}, ["zero queries", "model.std_Q"]),
        ({"model.block": "sas", "model.qk_norm": "rms"}, ["zero queries", "model.std_Q"]),
        ({"model.heads": 3}, ["model.heads 3", "model.d 16"]),
        ({"train.context": 8000}, ["tokens of text", "context + 1 = 8001", "data.valid_megabytes", "shorter context"]),
        ({"data.vocabulary": 100_000}, ["data.vocabulary 100000", "mend"]),
        ({"train.batch": 10**9}, ["GiB", "smaller"]),
        ({"train.schedule": "warm"}, ["train.schedule", "cosine"]),
    ],
)
def test_a_mistake_is_told_and_leaves_no_run(base, monkeypatch, capsys, changes, words):
    monkeypatch.setattr(sys, "argv", ["train.py", *flags(base | changes)])
    with pytest.raises(SystemExit) as left:
        config.main(train.main, Config)
    told = capsys.readouterr().err.strip()
    assert left.value.code == 2 and len(told.splitlines()) <= 2
    assert all(word in told for word in words), told
    assert not settings_of(base).folder.exists()


def test_a_folder_of_too_little_text(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "texts").mkdir()
    for name in "abc":
        (tmp_path / "texts" / f"{name}.py").write_text(f"def {name}(): return {name!r}\n" * 3)
    values = base | {"data.folder": str(tmp_path / "texts"), "data.cache": str(tmp_path / "cache")}
    message = refused((train.main, Config), flags(values), monkeypatch, capsys)
    assert "data.vocabulary 512" in message and "more text" in message


def test_a_text_that_has_changed_is_told_and_the_run_goes_on_once_it_is_back(text, tmp_path, monkeypatch, capsys):
    shutil.copytree(text, tmp_path / "text", copy_function=shutil.copy2)
    values = values_of(tmp_path / "text", tmp_path)
    folder, whole = trained(values), trained(values, {"name": "whole"})
    cut(folder, 2)
    added = tmp_path / "text/simplifying_blocks/added.py"
    added.write_text("".join(f"x{number} = {number}\n" for number in range(1000)))
    message = refused((train.main, Config), flags(values | {"resume": True}), monkeypatch, capsys)
    assert "as in the run" in message and "bring back" in message
    with pytest.raises(UserError, match="as in the run"):
        assert Trained(whole, "cpu").corpus
    added.unlink()
    trained(values, {"resume": True})
    assert record(folder) == record(whole)


def test_a_hub_that_does_not_answer_is_told(tmp_path):
    values = BASE | {"data.source": "hub", "data.cache": str(tmp_path / "cache"), "root": str(tmp_path)}
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "simplifying_blocks/train.py", *flags(values)]
    done = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "found no tokenizer in" in done.stderr and "--data.source local" in done.stderr


def test_divergence_is_told(base):
    with pytest.raises(UserError, match="every seed diverged by step 2; lower --train.lr"):
        trained(base, {"train.optimizer": "sgd", "train.lr": 1e30, "train.clip": 0})


# The generator


@pytest.fixture(scope="module")
def writer(text, tmp_path_factory) -> Path:
    """A run that has learned a little, of two seeds."""
    values = {"train.steps": 30, "train.lr": 1e-2, "seeds": [5, 6], "model.block": "sas", "train.save_every": 10}
    return trained(values_of(text, tmp_path_factory.mktemp("writer")), values)


def written(run: Path, **changes) -> list[str]:
    settings = generate.Settings(run=str(run), device="cpu", threads=1, **changes)
    return generate.continuations(Trained(run, "cpu"), settings)


def test_cached_greedy_text_is_the_uncached_one(writer):
    trained_run = Trained(writer, "cpu")
    corpus = trained_run.corpus
    for seed, step in ((5, 30), (6, 10)):
        ids = corpus.encode("def main(")
        length = 16 - len(ids)
        slow = continuation(trained_run.model(seed, step), torch.tensor([ids]), length, cached=False)[0].tolist()
        [fast] = written(writer, prompt="def main(", length=length, temperature=0.0, seed=seed, step=step)
        assert fast == "def main(" + corpus.decode(slow)


def test_draws_choose_the_text_and_the_seed_chooses_the_model(writer):
    first = written(writer, prompt="def ", length=12, samples=3)
    assert first == written(writer, prompt="def ", length=12, samples=3, seed=5, step=30) and len(set(first)) == 3
    assert not {*first} & {*written(writer, prompt="def ", length=12, samples=3, draws=1)}
    assert first != written(writer, prompt="def ", length=12, samples=3, seed=6)
    assert all(text.startswith("def ") for text in first)


def test_a_low_temperature_is_greedy(writer):
    greedy = written(writer, prompt="def ", length=8, temperature=0.0)
    assert written(writer, prompt="def ", length=8, temperature=1e-6, samples=2) == 2 * greedy


def test_an_empty_prompt_starts_a_document(writer):
    run = Trained(writer, "cpu")
    made = continuation(run.model(5), torch.tensor([[run.corpus.end]]), 15)[0].tolist()
    assert written(writer, length=15, temperature=0.0) == [run.corpus.decode(made)]


def test_the_command_prints_prompt_and_continuation(writer, monkeypatch, capsys):
    argv = [f"--run={writer}", "--prompt", "def main(", "--length=4", "--device=cpu", "--temperature=0", "--samples=2"]
    monkeypatch.setattr(sys, "argv", ["generate.py", *argv])
    with pytest.raises(SystemExit) as left:
        config.main(generate.main, generate.Settings)
    [text, _] = written(writer, prompt="def main(", length=4, temperature=0.0, samples=2)
    assert left.value.code == 0 and capsys.readouterr().out == f"--- 1 of 2\n{text}\n--- 2 of 2\n{text}\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--length=16", "--prompt=x"],
            ["prompt of 1 tokens and 16 more", "at most 16 together", "--length 15", "alibi"],
        ),
        (["--length=1", "--prompt", "9 " * 16], ["a shorter --prompt"]),
        (["--length=4", "--seed=0"], ["no seed 0", "[5, 6]"]),
        (["--length=4", "--step=7"], ["no checkpoint of step 7", "[10, 20, 30]"]),
        (["--length=4", "--temperature=-1"], ["temperature", "from 0"]),
        (["--length=4", "--run=runs/nowhere/here"], ["no run at runs/nowhere/here"]),
    ],
)
def test_mistakes_of_the_generator(writer, monkeypatch, capsys, argv, words):
    command = (generate.main, generate.Settings)
    message = refused(command, [f"--run={writer}", "--device=cpu", *argv], monkeypatch, capsys)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("positions", ["sinusoidal", "rope", "alibi", "none"])
def test_positions_with_an_end_bound_the_text_and_others_do_not(base, positions):
    folder = trained(base, {"model.positions": positions, "train.steps": 2})
    if positions in ("alibi", "none"):
        assert written(folder, prompt="def ", length=40)
        with pytest.raises(UserError, match="GiB.*--length"):
            written(folder, length=10**9, samples=10**6)
    else:
        with pytest.raises(UserError, match="at most 16 together"):
            written(folder, prompt="def ", length=40)


def test_the_generator_refuses_a_masked_model_and_a_run_without_checkpoint(base):
    masked = trained(base, {"model.objective": "mlm"})
    with pytest.raises(UserError, match="masked language model.*expected a run with model.objective clm"):
        written(masked, length=4)
    begun = trained(base, {"name": "begun"})
    cut(begun, 0)
    with pytest.raises(UserError, match="found no checkpoint yet.*--resume"):
        written(begun, length=4)
