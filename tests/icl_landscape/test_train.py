"""Training: the paper's schedules, replicas as single runs, checkpoints before and after updates, exact resume."""

from dataclasses import replace

import pytest
import torch

from common import config, experiment
from common.checkpoint import spread
from common.config import UserError
from common.run import Run
from icl_landscape.regression.data import sample
from icl_landscape.regression.losses import objective
from icl_landscape.train import Config, State, Train, build, evaluation, fit, learning_rate, step
from tests.papers import ROOT, assert_same_run, record

SMOKE = f"--config={ROOT / 'icl_landscape/configs/smoke.yaml'}"


def parsed(tmp_path, *argv: str) -> Config:
    return config.parse(Config, [SMOKE, f"--root={tmp_path}", "--device=cpu", "--threads=1", *argv])


def rates(c: Train) -> list[float]:
    return [float(learning_rate(c, torch.tensor(float(now), dtype=torch.float64))) for now in range(1, c.steps + 1)]


def test_one_cycle_is_that_of_pytorch():
    c = Train(steps=1000, lr=3e-3)
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=1000, pct_start=0.5, anneal_strategy="linear", cycle_momentum=False,
        div_factor=499, final_div_factor=499,
    )  # fmt: skip
    theirs = []
    for _ in range(1000):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(rates(c), theirs, rtol=1e-9, atol=1e-18)


def test_one_cycle_ends_where_the_papers_does():
    c = Train()
    first, top, last = (
        float(learning_rate(c, torch.tensor(float(now), dtype=torch.float64))) for now in (1, 250_000, 500_000)
    )
    assert first == pytest.approx(1.2e-8, rel=1e-3)
    assert top == pytest.approx(3e-3)
    assert last == pytest.approx(4.8e-14, rel=1e-2)


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.0), ("constant", 1.0)])
def test_other_schedules_rise_to_the_rate_and_end_where_they_should(schedule, end):
    c = Train(steps=100, lr=1.0, warmup=10, schedule=schedule)
    values = rates(c)
    assert values[9] == pytest.approx(1) and values[-1] == pytest.approx(end, abs=1e-12)
    assert values[:10] == sorted(values[:10]) and values[10:] == sorted(values[10:], reverse=True)


def test_no_warmup_begins_at_the_rate():
    assert rates(Train(steps=100, lr=1.0, warmup=0, schedule="constant")) == [1.0] * 100


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="expected fewer: --train.warmup 5"):
        Train(steps=10, warmup=10)


def test_the_papers_schedule_has_190_checkpoints_and_its_own_steps():
    steps = Train().save_at
    assert len(steps) == 190
    assert steps[:18] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 21, 24, 27]
    assert {984, 1124, 1283, 1465, 5050, 494949} <= set(steps) and steps[-1] == 500_000


def test_a_schedule_needs_two_steps_of_each_kind():
    with pytest.raises(UserError, match="expected at least 2 of each"):
        spread(100, 1, 10)


def test_powers_that_are_whole_are_not_rounded_below_themselves():
    assert spread(1000, 4, 2) == [0, 1, 10, 100, 1000]


def test_a_step_of_replicas_is_the_literal_step_of_each_seed(tmp_path):
    settings = parsed(tmp_path, "--train.lr=0.01", "--train.warmup=0")
    state = State.start(settings, torch.device("cpu"))
    streams = [stream.get_state() for stream in state.streams]
    measured = [step(settings, state) for _ in range(3)]
    for number, seed in enumerate(settings.seeds):
        alone = State.start(replace(settings, seeds=[seed]), torch.device("cpu"))
        assert torch.equal(alone.streams[0].get_state(), streams[number])
        model = build(settings, seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        law, stream = alone.tasks[0], alone.streams[0]
        for now in range(3):
            batch = sample(settings.data, law, settings.train.batch, stream)
            optimizer.param_groups[0]["lr"] = float(measured[now][number, 3])
            optimizer.zero_grad()
            loss, _ = objective(model, batch.x, batch.y)
            loss.backward()
            optimizer.step()
            assert measured[now][number, 0] == pytest.approx(loss.item(), rel=1e-5)
        ours = state.replicas.flat[number]
        theirs = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_step_0_is_the_untouched_start_and_init_data_and_evaluation_do_not_share_a_stream(tmp_path):
    settings = parsed(tmp_path, "--name=start")
    experiment.train(settings, fit)
    run = Run.open(settings.folder)
    weights = experiment.checkpointer(settings, run).weights(0)
    for number, seed in enumerate(settings.seeds):
        for name, value in build(settings, seed).named_parameters():
            assert torch.equal(weights[name][number], value)
    device = torch.device("cpu")
    two = [evaluation(replace(settings, seeds=s), State.start(replace(settings, seeds=s), device).tasks, 8, device)
           for s in ([0], [7])]  # fmt: skip
    assert torch.equal(two[0].y, two[1].y), "evaluation sequences are the same for every seed"


def test_a_stopped_run_resumes_as_if_never_stopped(tmp_path, monkeypatch):
    whole, parts = parsed(tmp_path, "--name=whole"), parsed(tmp_path, "--name=parts")
    experiment.train(whole, fit)
    calls, literal = [], State.save

    def interrupted(self):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return literal(self)

    monkeypatch.setattr(State, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.train(parts, fit)
    experiment.train(replace(parts, resume=True), fit)
    assert_same_run(whole.folder, parts.folder)


def test_a_seed_that_diverges_stops_and_leaves_the_others_as_they_would_be(tmp_path, capsys, monkeypatch):
    alone = parsed(tmp_path, "--name=alone", "--seeds=[1]")
    experiment.train(alone, fit)
    literal = State.start.__func__

    def broken(cls, settings, device):
        state = literal(cls, settings, device)
        with torch.no_grad():
            state.replicas.flat[0, 0] = torch.inf
        return state

    monkeypatch.setattr(State, "start", classmethod(broken))
    both = parsed(tmp_path, "--name=both", "--seeds=[0, 1]")
    experiment.train(both, fit)
    assert record(both.folder) == record(alone.folder)
    assert capsys.readouterr().err.count("diverged by step 1, and stopped: seed 0") == 1
    one = parsed(tmp_path, "--name=one", "--seeds=[0]")
    with pytest.raises(UserError, match="every seed diverged; lower --train.lr"):
        experiment.train(one, fit)


def test_finite_sets_of_tasks_differ_by_seed_and_are_learned_from(tmp_path):
    settings = parsed(tmp_path, "--data.M=2")
    tasks = State.start(settings, torch.device("cpu")).tasks
    assert all(law.table.shape == (2, 4) for law in tasks)
    assert not torch.equal(tasks[0].table, tasks[1].table)
