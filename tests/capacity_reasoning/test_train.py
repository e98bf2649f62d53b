"""The training command: resume, seeds of their own, processes, what a checkpoint holds, mistakes in one or two lines."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from capacity_reasoning import capacity, data, train
from capacity_reasoning.data import Questions, Sampler
from capacity_reasoning.evaluate import Trained
from capacity_reasoning.examine import ONE_HOP
from capacity_reasoning.facts.questions import Rows
from capacity_reasoning.train import Config, State, curriculum, differentiate, share_of
from common import config, experiment
from common.config import UserError
from common.run import Run
from tests.capacity_reasoning.tiny import BASE, questions_of, settings_of
from tests.papers import ROOT, assert_same_run, flags, last_weights, record

CPU = torch.device("cpu")
TWO = {"mix.orders": [1, 2], "mix.hop_ratio": 1.0}
CAUSAL = {"data.packing": "causal", "data.context": 64, "data.template": "paper"}
KINDS = {
    "schedulefree": {},
    "two_hop": TWO,
    "adamw": TWO | {"optim.name": "adamw_cosine"},
    "cot": TWO | {"data.cot": True, "optim.name": "adamw_linear"},
    "causal": TWO | CAUSAL,
    "text": TWO | {"data.backend": "text"},
}


@pytest.fixture
def base(tmp_path) -> dict:
    return {"root": str(tmp_path)}


def trained(*values: dict) -> Path:
    """Train in this process; the run's folder."""
    settings = settings_of(*values)
    train.main(settings)
    return settings.folder


def refused(values: dict, monkeypatch, capsys) -> str:
    """What the script says that refuses its command line."""
    monkeypatch.setattr(sys, "argv", ["train.py", *flags(BASE | values)])
    with pytest.raises(SystemExit) as left:
        config.main(train.main, Config)
    message = capsys.readouterr().err.strip()
    assert left.value.code == 2 and len(message.splitlines()) <= 2 and "Traceback" not in message
    return message


# Resume


@pytest.fixture
def few_questions_at_a_time(monkeypatch):
    """So that a run has several chunks, and its resume begins inside of one."""
    monkeypatch.setattr(data, "CHUNK", 40)


@pytest.mark.usefixtures("few_questions_at_a_time")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_resumes_as_if_never_stopped(base, kind, monkeypatch):
    whole, parts = base | KINDS[kind], base | KINDS[kind] | {"name": "parts"}
    calls, literal = [], State.save

    def killed(self):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return literal(self)

    expected = trained(whole)
    monkeypatch.setattr(State, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(parts)
    # Rows go on to step 6, the newest checkpoint is that of step 4.
    assert record(settings_of(parts).folder)[-1]["step"] == 6
    assert_same_run(expected, trained(parts, {"resume": True}))


@pytest.mark.usefixtures("few_questions_at_a_time")
@pytest.mark.parametrize("kind", ["two_hop", "adamw"])
@pytest.mark.parametrize("at", [1, 6, 11])
def test_a_run_interrupted_at_any_step_resumes_as_if_never_stopped(base, kind, at, monkeypatch):
    whole, parts = base | KINDS[kind], base | KINDS[kind] | {"name": "parts"}
    expected = trained(whole)
    with monkeypatch.context() as patch:
        patch.setattr(train, "stopping", lambda team, stop, now: now == at)
        with pytest.raises(KeyboardInterrupt):
            trained(parts)
    folder = settings_of(parts).folder
    assert Run.open(folder).manifest["checkpoint"] == at
    assert_same_run(expected, trained(parts, {"resume": True}))


@pytest.mark.usefixtures("few_questions_at_a_time")
def test_a_curriculum_goes_on_where_it_was(base, monkeypatch):
    """Seed by seed two hops begin between the first row and the last, and are seen in the gradient from there on."""
    learns = TWO | {"optim.lr": 0.05, "optim.warmup": 0}
    rows = record(trained(base, learns, {"mix.until_onehop": 1e-9, "name": "never"}))
    losses = [row["train_onehop"] for row in rows if row["step"] in (1, 12)]
    changes = learns | {"mix.until_onehop": sum(losses) / len(losses)}
    expected, begun = trained(base, changes), []

    def watched(settings, state, rows):
        curriculum(settings, state, rows)
        begun.append(list(state.two_hop))

    monkeypatch.setattr(train, "curriculum", watched)
    with monkeypatch.context() as patch:
        patch.setattr(train, "stopping", lambda team, stop, now: now == 11)
        with pytest.raises(KeyboardInterrupt):
            trained(base, changes, {"name": "parts"})
    assert begun[0] == [0.0, 0.0] and begun[-1] == [0.5, 0.5]
    assert_same_run(expected, trained(base, changes, {"name": "parts", "resume": True}))


# Seeds


def test_a_seed_learns_as_if_alone(base):
    pair, alone = trained(base, {"seeds": [4, 7]}), trained(base, {"seeds": [7], "name": "alone"})
    assert [row for row in record(pair) if row["seed"] == 7] == record(alone)
    ours, theirs = last_weights(pair), last_weights(alone)
    assert all(torch.equal(ours[name][1], theirs[name][0]) for name in ours)
    first = Trained(pair, "cpu").stack(0).flat
    assert (first[0] != first[1]).float().mean() > 0.9


def test_a_seed_that_diverges_stops_and_leaves_the_others_as_they_would_be(base, capsys, monkeypatch):
    alone, literal = trained(base, {"name": "alone", "seeds": [1]}), State.start.__func__

    def broken(cls, settings, questions, device):
        state = literal(cls, settings, questions, device)
        with torch.no_grad():
            state.replicas.flat[0] = torch.inf
        return state

    monkeypatch.setattr(State, "start", classmethod(broken))
    both = trained(base, {"name": "both"})
    assert [row for row in record(both) if row["step"] > 0] == [row for row in record(alone) if row["step"] > 0]
    assert capsys.readouterr().err.count("diverged by step 1, and stopped: seeds [0]") == 1
    with pytest.raises(UserError, match="every seed diverged by step 1; lower --optim.lr"):
        trained(base, {"name": "one", "seeds": [0]})


# What a run records


def test_a_run_starts_at_the_uniform_loss_and_learns(base):
    settings = settings_of(base, TWO, {"model.init": 1e-6, "train.evaluation": 10**6})
    train.main(settings)
    first = [row for row in record(settings.folder) if row["step"] == 0]
    questions = questions_of(TWO)
    assert [row["seed"] for row in first] == settings.seeds
    for row, q in zip(first, questions, strict=True):
        # One token for an attribute, three for a relation; as many of either.
        assert row["train_onehop"] == pytest.approx(2 * math.log(q.vocabulary), rel=1e-4)
    learnt = record(trained(base, {"name": "learns", "train.steps": 150, "train.batch": 32, "optim.lr": 0.03}))
    before, after = ([row["train_onehop"] for row in learnt if row["step"] == at] for at in (0, 150))
    assert all(new < 0.6 * old for new, old in zip(after, before, strict=True))


@pytest.mark.parametrize("kind", ["two_hop", "adamw"])
def test_a_checkpoint_holds_the_weights_to_evaluate(base, kind):
    settings = settings_of(base, KINDS[kind], {"train.evaluation": 10**6})
    train.main(settings)
    run = Trained(settings.folder, "cpu")
    last = [row for row in record(settings.folder) if row["step"] == 12]
    for mode in (ONE_HOP, "train_twohop"):
        nats = [losses.nats.mean() for losses in run.losses(mode)]
        assert nats == pytest.approx([row[mode] for row in last], rel=1e-6)
    _, _, state = experiment.checkpointer(settings, Run.open(settings.folder)).latest()
    names = dict(run.stack().params)
    trained_at = state["stack"]["flat"]
    kept = torch.cat([value.detach().flatten(1) for value in names.values()], 1)
    # What schedule-free takes its gradient at is another point.
    assert torch.equal(kept, trained_at) == (kind == "adamw")


def test_rows_and_checkpoints_are_those_of_the_schedule(base):
    settings = settings_of(base)
    train.main(settings)
    assert sorted({row["step"] for row in record(settings.folder)}) == [0, 1, 3, 6, 9, 12]
    assert Trained(settings.folder, "cpu").steps == settings.train.save_at == [0, 1, 4, 8, 12]


def test_bf16_trains_close_to_single_precision(base):
    rows = [record(trained(base, {"precision": name, "name": name})) for name in ("fp32", "bf16")]
    single, half = ([row["loss"] for row in each if "loss" in row] for each in rows)
    assert half == pytest.approx(single, rel=2e-2) and half != single


def test_text_and_tables_lead_to_like_losses(base, monkeypatch):
    """Other random questions of one law: after 120 steps the same loss but for their noise."""
    monkeypatch.setattr(data, "CHUNK", 60 * 32)
    seldom = TWO | {
        "train.steps": 120,
        "train.batch": 32,
        "optim.lr": 0.03,
        "train.evaluation": 10**6,
        "train.save_linear": 2,
    }
    ends = []
    for backend in ("tables", "text"):
        rows = record(trained(base, seldom, {"data.backend": backend, "name": backend}))
        ends.append([[row[mode] for mode in (ONE_HOP, "train_twohop")] for row in rows if row["step"] in (0, 120)])
    (start, end), (other_start, other_end) = ((np.array(each[:2]), np.array(each[2:])) for each in ends)
    assert (start == other_start).all()
    assert (end < 0.8 * start).all() and (np.abs(end - other_end) < 0.05 * start).all()
    assert (end != other_end).all()


# Exposures


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 400), (TWO, 800), (TWO | {"mix.hop_ratio": 1 / 3}, 1600), ({"mix.orders": [2]}, 1600)],
    ids=str,
)
def test_exposures_become_steps(changes, steps):
    """40 people of 8 facts, 320 in all, and 1280 tuples of two hops, 10 times each, 8 questions a step."""
    assert settings_of(changes, {"train.exposures": 10.0}).train.steps == steps


def test_each_fact_is_asked_as_often_as_exposures_say():
    changes = TWO | {"train.exposures": 20.0}
    settings, questions = settings_of(changes), questions_of(changes)
    sampler, asked = Sampler(settings, questions), 0
    for step in range(1, settings.train.steps + 1):
        # Compact one-hop questions are four tokens long, those of two hops five.
        asked += int((sampler.draw(step, [0.5, 0.5]).where[0, :, 0] == 3).sum())
    # Binomial.
    assert asked / 320 == pytest.approx(20, abs=5 * (settings.train.steps * 8 / 4) ** 0.5 / 320)


# Several processes


@pytest.mark.parametrize("changes", [TWO, TWO | CAUSAL], ids=["rows", "causal"])
def test_parts_of_a_batch_give_the_loss_and_gradient_of_the_whole(changes):
    settings, questions = settings_of(changes), questions_of(changes)
    state = State.start(settings, questions, CPU)
    batch = Sampler(settings, questions).draw(1, [0.5, 0.5])
    state.show(batch)
    wanted = differentiate(settings, state)
    parts = []
    for process in range(4):
        state.show(share_of(batch, SimpleNamespace(num_processes=4, process_index=process)))
        assert state.rows.tokens.shape[1] == 2
        parts.append(differentiate(settings, state))
    for whole, found in zip(wanted, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(found) / 4, whole, rtol=1e-4, atol=1e-6)
    one = share_of(batch, SimpleNamespace(num_processes=1, process_index=0))
    assert isinstance(one, Rows) and one is batch


def launch(values: dict) -> list[str]:
    """Two processes on the CPU; port 0: a free one."""
    accelerate = Path(sys.executable).with_name("accelerate")
    launcher = [accelerate, "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--main_process_port=0"]
    return [*map(str, launcher), "capacity_reasoning/train.py", *flags(BASE | values)]


def assert_close_run(first: Path, second: Path) -> None:
    """Same rows, numbers to 1e-5 of their size; weights close."""
    ours, theirs = record(first), record(second)
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    for name, value in last_weights(first).items():
        torch.testing.assert_close(last_weights(second)[name], value, rtol=0, atol=1e-5, msg=name)


def test_two_processes_give_the_record_and_the_weights_of_one(base):
    # An epsilon at which Adam does not blow up the rounding of gradients near 0.
    values = base | TWO | {"optim.eps": 1e-3}
    one = trained(values)
    done = subprocess.run(launch(values | {"name": "two"}), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_close_run(one, settings_of(values, {"name": "two"}).folder)
    # Another sum of the same numbers: two processes it was.
    assert record(one) != record(settings_of(values, {"name": "two"}).folder)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.N": 41, "data.relations": "structured"}, ["odd N 41", "--data.N 42"]),
        ({"data.N": 41, "data.relations": "bipartite_classic"}, ["odd N 41", "--data.N 42"]),
        ({"data.R": 3, "data.relations": "bipartite_classic"}, ["R 3", "--data.R 4"]),
        ({"data.names": 3}, ["N 40", "27 full names", "--data.N 27", "--data.names"]),
        ({"data.R": 18}, ["data.R", "18", "17"]),
        ({"data.lists_dir": "nowhere"}, ["nowhere", "data.lists_dir"]),
        ({"data.folder": "nowhere"}, ["nowhere", "generate_profiles.py"]),
        ({"data.tokenizer_file": "Makefile"}, ["Makefile", "data.tokenizer_file"]),
        ({"model.d": 40}, ["model.d 40", "--model.d 48"]),
        ({"train.batch": 10**9}, ["GiB", "smaller"]),
        (CAUSAL | {"train.exposures": 3.0}, ["train.exposures", "--train.steps"]),
        (CAUSAL | {"data.backend": "text"}, ["data.backend text", "--data.packing rows"]),
        ({"mix.until_onehop": 1.0}, ["mix.until_onehop", "[1,2]"]),
        ({"optim.name": "adam"}, ["optim.name", "schedulefree"]),
    ],
    ids=str,
)
def test_a_mistake_is_told_and_leaves_no_run(base, changes, words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    message = refused(base | changes, monkeypatch, capsys)
    assert all(word in message for word in words), message
    assert not (Path(base["root"]) / "capacity_reasoning").exists()


def test_processes_that_do_not_divide_a_batch_are_refused(base, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    message = refused(base, monkeypatch, capsys)
    assert "train.batch 8 for 3 processes" in message and "--train.batch 9" in message


def test_no_two_hop_question_left_for_training_is_a_mistake(base, monkeypatch, capsys):
    message = refused(base | TWO | {"data.R": 1}, monkeypatch, capsys)
    assert "--splits.relations 0" in message


def test_a_run_without_its_splits_or_with_others_is_not_analysed(base):
    folder = trained(base, TWO)
    run = Trained(folder, "cpu")
    assert all((q.classes is not None) and (q.classes == 0).any() for q in run.questions)
    content = (folder / train.SPLITS).read_bytes()
    with np.load(folder / train.SPLITS) as saved:
        others = {name: np.roll(classes, 1) for name, classes in saved.items()}
    np.savez(folder / train.SPLITS, **others)
    with pytest.raises(UserError, match="found other held-out questions"):
        _ = Trained(folder, "cpu").questions
    (folder / train.SPLITS).unlink()
    with pytest.raises(UserError, match="found no readable .*splits.npz .* --name NEW"):
        _ = Trained(folder, "cpu").questions
    (folder / train.SPLITS).write_bytes(content)
    assert len(Trained(folder, "cpu").questions) == 2


@pytest.mark.parametrize("kept", [0, 100, -40])
def test_damaged_splits_are_told(base, kept):
    folder = trained(base, TWO, {"train.steps": 2, "optim.warmup": 0})
    (folder / train.SPLITS).write_bytes((folder / train.SPLITS).read_bytes()[:kept])
    with pytest.raises(UserError, match="found no readable .*splits.npz .* --name NEW"):
        _ = Trained(folder, "cpu").questions


@pytest.mark.parametrize(
    ("changes", "storage", "scheme", "message"),
    [
        ({}, "double", None, "found storage double for a run of orders \\[1\\], expected one of one_hop"),
        (
            TWO | {"data.cot": True},
            "big_hash",
            None,
            "found storage big_hash for a run of two hops with chain of thought",
        ),
        (TWO, None, "optimum", "found scheme optimum, expected one of .*optimal"),
        (TWO, "triple", None, "found storage triple"),
    ],
)
def test_a_storage_or_scheme_that_does_not_fit_is_a_mistake(changes, storage, scheme, message):
    with pytest.raises(UserError, match=message):
        capacity.check(SimpleNamespace(config=settings_of(changes)), storage, scheme)
    fitting = SimpleNamespace(config=settings_of(TWO))
    assert capacity.check(fitting, "double", "optimal") is capacity.check(fitting, None, None) is None


def test_a_mode_that_the_run_has_not_is_a_mistake(base):
    run = Trained(trained(base), "cpu")
    with pytest.raises(UserError, match="found train_twohop for .*, expected one of train_onehop"):
        run.losses("train_twohop")
    nothing = Trained(trained(base, TWO, {"splits.first_people": 0, "name": "nothing"}), "cpu")
    with pytest.raises(UserError, match="found no question of first_people .* --splits.first_people"):
        nothing.losses("first_people")


def test_saved_people_of_another_size_are_a_mistake(base, tmp_path, monkeypatch, capsys):
    from capacity_reasoning.facts.store import save

    people = Questions.of(settings_of(), 0).people
    save(people, tmp_path / "people", 0, "uniform")
    message = refused(base | {"data.folder": str(tmp_path / "people"), "data.N": 50}, monkeypatch, capsys)
    assert "found 40 people with 4 relations" in message and "--data.N 40 --data.R 4" in message
    mine = settings_of({"data.folder": str(tmp_path / "people")})
    assert np.array_equal(Questions.of(mine, 3).people.answers, people.answers)
    assert np.array_equal(Questions.of(replace(mine, seeds=[0]), 0).people.names, people.names)
