"""The training command: resume after a kill, same numbers twice, replicas as if alone, mistakes in one or two lines."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from common import config
from common.config import UserError
from layernorm_grok import bench
from layernorm_grok.data import split
from layernorm_grok.evaluate import Trained
from layernorm_grok.grid import Grid, build, cells, stack_of
from layernorm_grok.train import Config, State, Train, done, held, main
from tests.papers import assert_same_run, last_weights, record

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "layernorm_grok/configs/smoke.yaml"
TRAIN = [sys.executable, str(ROOT / "layernorm_grok/train.py"), f"--config={SMOKE}", "--device=cpu", "--threads=1"]


def run(root: Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([*TRAIN, f"--root={root}", *flags], capture_output=True, text=True, cwd=ROOT, timeout=120)


def settings_with(tmp_path, **changes) -> Config:
    values = yaml.safe_load(SMOKE.read_text()) | {"root": str(tmp_path), "seeds": [0, 1], "device": "cpu"}
    for key, value in changes.items():
        values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
    values["grid"]["placement"] = [str(p) if p is not False else "off" for p in values["grid"]["placement"]]
    path = tmp_path / f"{values.get('name', 'config')}.yaml"
    path.write_text(yaml.safe_dump(values))
    return config.load(Config, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A smoke run that was never stopped, in which some replicas stop early."""
    root = tmp_path_factory.mktemp("whole")
    done = run(root, *STOPPING)
    assert done.returncode == 0, done.stderr
    return root / "layernorm_grok/smoke/main"


STOPPING = ("--train.level=0.02", "--train.in_a_row=2", "--train.stop_after=3")
"""A level that some replicas pass by chance and others do not, so that the stack shrinks on the way."""


def test_some_replicas_stop_early_and_their_rows_end_there(whole):
    last = {}
    for row in record(whole):
        last[row["cell"], row["seed"]] = row["step"]
    assert len(last) == 21
    assert min(last.values()) < 60
    assert len(set(last.values())) > 2


def test_the_same_command_twice_gives_the_same_numbers(whole, tmp_path):
    assert run(tmp_path, *STOPPING).returncode == 0
    assert_same_run(whole, tmp_path / "layernorm_grok/smoke/main")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(whole, tmp_path, number):
    folder = tmp_path / "layernorm_grok/smoke/main"
    command = [*TRAIN, f"--root={tmp_path}", *STOPPING]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "checkpoints/step_00000020").exists():
        time.sleep(0.01)
    process.send_signal(number)
    code = process.wait(timeout=60)
    assert code in ((-signal.SIGKILL,) if number == signal.SIGKILL else (130,))
    assert len(record(folder)) < len(record(whole))
    again = run(tmp_path, *STOPPING, "--resume=true")
    assert again.returncode == 0, again.stderr
    assert_same_run(whole, folder)
    ours, theirs = Trained(folder, "cpu"), Trained(whole, "cpu")
    for cell in theirs.cells:
        for seed in theirs.seeds:
            one, other = (t.model(cell, seed, 60).state_dict() for t in (ours, theirs))
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_replica_in_a_mixed_stack_is_as_if_trained_alone(tmp_path):
    grid = {"placement": ["off", "pre"], "alpha": [0.5, 1.5], "lr": [2e-3, 4e-3], "weight_decay": [0.5, 1.0]}
    together = settings_with(tmp_path, name="together", grid=grid, train={"steps": 20})
    main(together)
    chosen = next(
        c for c in cells(together.grid) if (c.placement, c.alpha, c.lr, c.weight_decay) == ("pre", 1.5, 2e-3, 0.5)
    )
    alone = {"placement": ["pre"], "alpha": [1.5], "lr": [2e-3], "weight_decay": [0.5]}
    solo = settings_with(tmp_path, name="solo", seeds=[1], grid=alone, train={"steps": 20})
    main(solo)
    whole, single = Trained(together.folder), Trained(solo.folder)
    one, other = whole.model(chosen.name, 1, 20), single.model("pre", 1, 20)
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("subtract", [False, True])
def test_batched_stack_equals_replicas_one_by_one(tmp_path, monkeypatch, optimizer, subtract):
    """The masked arithmetic of a GPU stack against the loop over replicas, in float64."""
    train = {"steps": 20, "optimizer": optimizer, "subtract_init": subtract, "save_every": 20}
    grid = {"placement": ["off", "pre", "mlp-pre", "attn-pre-v"], "alpha": [0.5, 2.0]}
    weights = []
    for batched in (True, False):
        settings = settings_with(tmp_path, name=f"b{batched}{optimizer}{subtract}", grid=grid, train=train)

        def doubled(models, trainable=None, batched=batched):
            from common.replicas import Replicas

            return Replicas([m.double() for m in models], trainable, batched)

        monkeypatch.setattr("layernorm_grok.grid.Replicas", doubled)
        main(settings)
        weights.append(last_weights(settings.folder))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-9, atol=1e-11, msg=name)


def test_norms_that_a_placement_leaves_unused_stay_as_they_are(whole):
    trained = Trained(whole)
    for cell, unused in (("off", ["ln1", "ln2"]), ("mlp-pre", ["ln1"]), ("attn-pre", ["ln2"])):
        state = trained.model(cell, 0, 60).state_dict()
        for norm in unused:
            assert torch.equal(state[f"layers.0.{norm}.weight"], torch.ones(32))
            assert torch.equal(state[f"layers.0.{norm}.bias"], torch.zeros(32))
    assert not torch.equal(trained.model("mlp-pre", 0, 60).state_dict()["layers.0.ln2.weight"], torch.ones(32))


def test_all_cells_of_a_seed_share_split_and_weights_and_weight_norm_counts_what_is_used():
    settings = config.load(Config, SMOKE)
    stack, labels = stack_of(settings, torch.device("cpu"))
    first = labels.index({"cell": "off", "seed": 1})
    for number, row in enumerate(labels):
        if row["seed"] == 1:
            assert torch.equal(stack.train[number], stack.train[first])
            for name in ("embed", "layers.0.qkv", "layers.0.fc2", "unembed"):
                assert torch.equal(stack.replicas.params[name][number], stack.replicas.params[name][first])
    norms = (stack.replicas.flat * stack.used).norm(dim=1)
    pre = labels.index({"cell": "pre", "seed": 1})
    assert float(norms[pre] ** 2 - norms[first] ** 2) == pytest.approx(2 * 32, rel=1e-3)


def test_the_step_equals_torch_adamw(tmp_path):
    """Twenty float32 steps of one cell against torch.optim.AdamW and torch's cross-entropy in float64."""
    settings = settings_with(tmp_path, seeds=[0], grid={"placement": ["pre"]}, train={"steps": 20})
    main(settings)
    model = build(settings, cells(settings.grid)[0], 0).double()
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1.0, betas=(0.9, 0.98), eps=1e-8)
    rows, targets = split(settings.data, 0)[0], settings.data.targets()
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(rows).logits, targets[rows]).backward()
        optimiser.step()
    ours = Trained(settings.folder).model("pre", 0, 20)
    for (name, a), (_, b) in zip(ours.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(a.double(), b.detach(), rtol=2e-3, atol=2e-5, msg=name)


def test_temperature_trains_as_scale_does_and_reports_the_logits_as_they_are(tmp_path):
    rows = {}
    for readout in ("scale", "temperature"):
        grid = {"placement": ["off"], "alpha": [1.5]}
        settings = settings_with(tmp_path, name=readout, grid=grid, train={"readout": readout, "steps": 20})
        main(settings)
        rows[readout] = record(settings.folder)
    for ours, other in zip(rows["scale"], rows["temperature"], strict=True):
        assert ours["test_margin"] == pytest.approx(1.5 * other["test_margin"], rel=1e-5)
        assert {k: v for k, v in ours.items() if k != "test_margin"} == {
            k: v for k, v in other.items() if k != "test_margin"
        }


def test_subtracting_the_initial_output_starts_at_the_uniform_loss(tmp_path):
    settings = settings_with(tmp_path, grid={"placement": ["off"]}, train={"subtract_init": True, "steps": 2})
    main(settings)
    first = record(settings.folder)[0]
    assert first["train_loss"] == pytest.approx(math.log(24), rel=1e-5)


def test_rules_for_learning_rate_and_decay():
    grid = Grid(alpha=[0.5], lr=[1e-3, 2e-3], lr_rule=["fixed", "inv_alpha2"], decay_rule=["fixed", "constant_product"])
    found = {(c.lr, c.weight_decay) for c in cells(grid)}
    assert found == {(1e-3, 1.0), (4e-3, 1.0), (4e-3, 0.25), (2e-3, 1.0), (2e-3, 0.5), (8e-3, 1.0), (8e-3, 0.125)}
    assert len({c.name for c in cells(grid)}) == 8
    product = Grid(alpha=[0.5], lr=[1e-3], lr_rule=["fixed", "inv_alpha2"], decay_rule=["inv_alpha2_product"])
    assert {(c.lr, c.weight_decay) for c in cells(product)} == {(1e-3, 4.0), (4e-3, 1.0)}


def stops(accuracies: list[float], **changes) -> list[bool]:
    """Whether a replica is done after each evaluation."""
    settings, count, found = Train(**changes), 0, []
    for accuracy in accuracies:
        count = held(settings, count, accuracy)
        found.append(done(settings, count))
    return found


def test_a_replica_stops_after_evaluations_in_a_row_and_a_wait_from_the_first_of_them():
    accuracies = [0.95, 0.95, 0.1, 0.95, 0.95, 0.95, 0.2, 0.2, 0.2]
    assert stops(accuracies, level=0.9, in_a_row=3, stop_after=4) == [False] * 7 + [True, True]
    assert stops(accuracies, level=0.9, in_a_row=3, stop_after=1) == [False] * 5 + [True] * 4
    assert not any(stops([1.0] * 50, level=0.9, in_a_row=1, stop_after=0))


def test_what_a_state_saves_restores_it(tmp_path):
    settings = settings_with(tmp_path)
    state, other = (State.start(settings, torch.device("cpu")) for _ in range(2))
    stack = state.whole.subset(state.members)
    stack.replicas.flat.add_(1.0)
    stack.t_train[3], state.held[1] = 7, 2
    state.leave(stack, [3])
    state.members = state.running
    other.restore(state.save())
    assert (other.running, other.members, other.stopped, other.held) == (
        state.running, state.members, [3], state.held
    )  # fmt: skip
    assert torch.equal(other.whole.replicas.flat, state.whole.replicas.flat) and int(other.whole.t_train[3]) == 7
    assert {name: w.shape for name, w in other.weights().items()} == {n: w.shape for n, w in state.weights().items()}


def test_a_stack_that_keeps_what_has_stopped_gives_the_same_record(tmp_path, monkeypatch):
    """As on a GPU, where a smaller stack costs a new graph."""
    stopping = {"steps": 40, "level": 0.02, "in_a_row": 2, "stop_after": 3}
    rows = []
    for name, share in (("exact", 1.0), ("lazy", 0.5)):
        monkeypatch.setattr(
            State,
            "shrinks",
            lambda self, share=share: len(self.running) <= min(share * len(self.members), len(self.members) - 1),
        )
        settings = settings_with(tmp_path, name=name, train=stopping)
        main(settings)
        rows.append(record(settings.folder))
    assert rows[0] == rows[1] and len({row["step"] for row in rows[0]}) > 5
    assert_same_run(*(tmp_path / "layernorm_grok/smoke" / name for name in ("exact", "lazy")))


def test_the_bench_times_the_step_and_the_test_pass_of_training(tmp_path):
    settings = settings_with(
        tmp_path, seeds=[0], grid={"placement": ["pre"]}, train={"steps": 10, "evaluate_every": 10}
    )
    main(settings)
    last = record(settings.folder)[-1]
    rows = bench.our_steps(settings, torch.device("cpu"), 10)()
    expected = ["train_loss", "train_accuracy", "weight_norm", "gradient_norm", "update_norm"]
    expected += ["test_loss", "test_accuracy", "test_margin"]
    assert last["step"] == 10 and rows == [[last[key] for key in expected]]


def test_frozen_norms_and_undecayed_norms(tmp_path):
    frozen = settings_with(tmp_path, name="frozen", grid={"placement": ["pre"]}, model={"frozen_norms": True})
    main(frozen)
    assert torch.equal(Trained(frozen.folder).model("pre", 0, 60).state_dict()["layers.0.ln2.weight"], torch.ones(32))
    rates = {}
    for decayed in (True, False):
        train = {"decay_norms": decayed, "steps": 30}
        settings = settings_with(tmp_path, name=f"decay{decayed}", grid={"placement": ["pre"]}, train=train)
        main(settings)
        rates[decayed] = Trained(settings.folder).model("pre", 0, 30).state_dict()["layers.0.ln2.weight"].norm()
    assert rates[False] > rates[True]


def test_the_effective_rank_term_lowers_the_rank_and_spares_the_other_cells(tmp_path):
    grid = {"placement": ["off"], "er_strength": [0.0, 0.5]}
    settings = settings_with(tmp_path, name="er", grid=grid, train={"er_start": 20, "steps": 60})
    main(settings)
    plain = settings_with(tmp_path, name="plain", grid={"placement": ["off"]}, train={"steps": 60})
    main(plain)
    trained, other = Trained(settings.folder), Trained(plain.folder)
    from layernorm_grok.losses import effective_rank_penalty

    def rank(run, cell):
        model = run.model(cell, 0, 60)
        return float(effective_rank_penalty(model(run.pairs[0][0]).prelogits))

    assert rank(trained, "er_strength=0.5") < rank(trained, "er_strength=0") - 0.5
    assert rank(trained, "er_strength=0") == pytest.approx(rank(other, "off"), rel=1e-6)


def test_the_train_loss_of_m_falls_at_p_23(tmp_path):
    settings = settings_with(tmp_path, seeds=[0], grid={"placement": ["mlp-pre"]})
    main(settings)
    rows = record(settings.folder)
    assert rows[0]["train_loss"] == pytest.approx(math.log(24), rel=0.1)
    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]


def test_divergence_is_told(tmp_path):
    with pytest.raises(UserError, match="--grid.lr"):
        main(settings_with(tmp_path, train={"optimizer": "sgd", "loss": "mse", "steps": 20}, grid={"lr": [1e20]}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.hedas", "4"], ["model.hedas", "model.heads"]),
        (["--model.heads", "5"], ["model.heads", "model.d"]),
        (["--grid.placement", "[mlp]", "--data.op2", "xor"], ["vocabulary", "op2"]),
        (["--data.op1", "mod"], ["op1", "sum"]),
        (["--data.P", "2", "--data.train_fraction", "0.9"], ["train_fraction", "larger P"]),
        (["--data.train_fraction", "1.0"], ["train_fraction"]),
        (["--train.eps", "0"], ["relu", "--train.eps 1e-8", "--model.act gelu"]),
        (["--grid.placement", "[post, pre]"], ["post", "a run for each"]),
        (["--grid.placement", "[attn-pree]"], ["attn-pree", "attn-pre"]),
        (["--grid.alpha", "[0.0]"], ["grid.alpha"]),
        (["--grid.weight_decay", "[-1.0]"], ["grid.weight_decay"]),
        (["--grid.lr_reference", "0.0"], ["grid.lr_reference"]),
        (["--model.heads", "0"], ["heads"]),
        (["--train.beta2", "1.5"], ["train.beta2"]),
        (["--train.stop_after", "-1"], ["train.stop_after"]),
        (["--seeds", "[1, 1]"], ["seeds"]),
        (["--train.steps", "0"], ["train.steps"]),
        (["--device", "cuda"], ["cuda", "--device cpu"]),
    ],
)
def test_a_mistake_is_told_in_two_lines_at_most(tmp_path, flags, words):
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(UserError) as error:
        main(config.parse(Config, [f"--config={SMOKE}", f"--root={tmp_path}", *flags]))
    assert len(str(error.value).splitlines()) <= 2
    for word in words:
        assert word in str(error.value)


def test_a_mistake_exits_with_2_and_no_traceback(tmp_path):
    done = run(tmp_path, "--train.eps", "0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(("act", "expected"), [("gelu", 0.466), ("relu", 0.442)])
def test_the_first_updates_have_the_norms_of_the_authors_runs(tmp_path, act, expected):
    """Golden numbers that no generator changes: ||update|| at steps 1 and 2, by which the figures' runs are known as GELU."""
    following = {"gelu": 0.4305, "relu": 0.396}[act]
    values = {"preset": "golden", "root": str(tmp_path), "seeds": [0], "device": "cpu", "model": {"act": act}}
    path = tmp_path / "golden.yaml"
    path.write_text(yaml.safe_dump(values | {"train": {"steps": 2, "evaluate_every": 1}}))
    settings = config.load(Config, path)
    main(settings)
    first, second = record(settings.folder)
    # With ReLU the dead units, 8 to 12% of the weights by seed, do not move: seeds differ by 3%.
    close = {"gelu": 0.01, "relu": 0.03}[act]
    assert first["update_norm"] == pytest.approx(expected, rel=close)
    assert second["update_norm"] == pytest.approx(following, rel=close)
    assert first["train_loss"] == pytest.approx(4.74, abs=0.03)
    assert first["weight_norm"] == pytest.approx(31.84, rel=0.005)
