"""The bench compares like with like: same questions, same learning, FLOP counted right. No speed is judged."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from capacity_reasoning import bench, train
from capacity_reasoning.data import Sampler
from capacity_reasoning.facts.questions import IGNORED
from capacity_reasoning.gradient import by_hand, fits
from capacity_reasoning.losses import objective
from capacity_reasoning.train import differentiate
from tests.capacity_reasoning.tiny import questions_of, settings_of

CPU = torch.device("cpu")
KEYS = {"name", "ours", "other", "unit", "ratio", "target", "machine_share"}
TINY = {"seeds": [3], "mix.orders": [1, 2], "model.layers": 2, "model.mup": False}
PAPER = TINY | {"data.template": "paper"}


@pytest.fixture
def windows_of_four(monkeypatch):
    monkeypatch.setattr(bench, "WINDOWS", {"cpu": 4})


def assert_rows(rows: list[dict], *targets: float | None) -> None:
    assert all(set(row) == KEYS and row["ours"] > 0 and row["other"] > 0 for row in rows)
    assert [row["target"] for row in rows] == list(targets)
    assert len({row["name"] for row in rows}) == len(rows)


# People


def test_people_cost_time_and_memory():
    rows = bench.people_rows(1, N=50, R=2)
    assert_rows(rows, 1.0, 1.0, 1.0)
    assert [row["unit"] for row in rows] == ["s", "s", "GB"]
    assert [row["other"] for row in rows] == [20.0, 60.0, 2.0]
    # Of a process that has torch loaded
    assert 0.05 < rows[2]["ours"] < 10


# Sampling


def lengths(rows) -> tuple[float, float]:
    """Mean numbers of shown and of answered tokens of a question."""
    return (rows.tokens > 0).sum().item() / len(rows.tokens), (rows.targets != IGNORED).sum().item() / len(rows.tokens)


def test_tables_and_text_are_questions_of_one_law():
    (questions,) = questions_of(PAPER)
    ours, other = bench.tables(questions, 0.9, 4000)(), bench.streamed_text(questions, 0.9, 4000)()
    assert lengths(ours) == pytest.approx(lengths(other), rel=0.03)


def test_every_call_of_either_has_new_questions():
    (questions,) = questions_of(PAPER)
    for make in (bench.tables(questions, 0.5, 20), bench.streamed_text(questions, 0.5, 20)):
        one, other = make(), make()
        assert len(one.tokens) == one.questions == 20
        assert not torch.equal(one.targets[:, 0], other.targets[:, 0])


def test_rows_of_sampling():
    (questions,) = questions_of(PAPER)
    assert_rows(bench.sampling_rows(questions, 0.5, 2, 64, 8), 100.0, None)


def test_batches_are_those_of_training_one_after_another(monkeypatch):
    monkeypatch.setattr("capacity_reasoning.data.CHUNK", 24)
    settings, seen = settings_of(TINY), []
    draw = Sampler.draw
    monkeypatch.setattr(Sampler, "draw", lambda self, now, share: seen.append((now, share)) or draw(self, now, share))
    make, steps = bench.batches(settings, questions_of(TINY))
    make(), make()
    assert steps == 3 and seen == [(now, [settings.mix.two_hop]) for now in range(1, 7)]


def test_row_of_the_data_of_a_step():
    row = bench.data_row("tiny", settings_of(TINY), questions_of(TINY), CPU, 2)
    assert_rows([row], 1.0)
    assert "5%" in row["name"]


# Training


def test_the_step_timed_is_that_of_training(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "step", lambda settings, state, learn, team, now: seen.append((settings, learn(), now)))
    settings, questions = settings_of(TINY), questions_of(TINY)
    step = bench.our_step(settings, questions, CPU)
    step(), step()
    wanted = differentiate(settings, bench.our_state(settings, questions, CPU))
    for number, (told, found, now) in enumerate(seen):
        assert told is settings and now == number + 1
        assert all(map(torch.equal, found, wanted))


def test_transformers_learns_as_train_py_does_on_the_same_windows():
    """But for its mean over answer tokens in place of questions."""
    settings, questions = bench.windows(settings_of(PAPER), 4), questions_of(PAPER)
    shown = bench.our_state(settings, questions, CPU).rows
    ratio = (shown.targets != IGNORED).sum() / shown.questions
    ours, other = bench.our_step(settings, questions, CPU), bench.llama_step(settings, questions, CPU)
    losses = torch.stack([torch.stack([ours()[0, 0], other() * ratio[0]]) for _ in range(8)], 1)
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    assert losses[0, -1] < 0.95 * losses[0, 0]


@pytest.mark.parametrize("changes", [TINY, PAPER, PAPER | {"model.tie": True, "model.layers": 1}], ids=str)
def test_flop_of_a_gradient_are_what_torch_counts(changes):
    settings, (questions,) = settings_of(changes), questions_of(changes)
    state = bench.our_state(settings, [questions], CPU)
    ways = {
        True: lambda: by_hand(settings.model, state.replicas.leaves, state.rows),
        False: lambda: state.replicas.differentiate(objective, *state.rows),
    }
    for hand, way in ways.items():
        with FlopCounterMode(display=False) as counter:
            way()
        counted = 3 * bench.forward_flops(settings.model, questions.vocabulary, state.rows, hand)
        assert counter.get_total_flops() == counted


def test_row_of_the_step_has_as_many_questions_on_both_sides(windows_of_four, monkeypatch):
    settings, questions, made = settings_of(PAPER), questions_of(PAPER), []
    our_step, llama_step = bench.our_step, bench.llama_step
    monkeypatch.setattr(bench, "our_step", lambda told, *rest: made.append((told, rest)) or our_step(told, *rest))
    monkeypatch.setattr(bench, "llama_step", lambda told, *rest: made.append((told, rest)) or llama_step(told, *rest))
    row = bench.step_row(settings, questions, CPU, lambda: 1e9, 2)
    assert_rows([row], 1.8)
    sides = {told.data.packing: bench.our_state(told, *rest) for told, rest in made}
    number = float(sides["causal"].rows.questions)
    assert sides["rows"].rows.questions == number == sides["rows"].rows.tokens.shape[1]
    assert f" {number:.0f} questions" in row["name"]
    state = sides["rows"]
    assert fits(settings, state.replicas)
    work = 3 * bench.forward_flops(settings.model, questions[0].vocabulary, state.rows, True)
    assert row["machine_share"] == pytest.approx(work * row["ours"] / number / 1e9)


def test_row_of_the_gradient():
    assert_rows([bench.gradient_row("tiny", settings_of(TINY), questions_of(TINY), 2)], 1.0)


# Evaluation


def test_row_of_all_questions_asks_all_on_two_threads(monkeypatch):
    asked, measure = [], bench.measure
    monkeypatch.setattr(
        bench, "measure",
        lambda replicas, questions, told: asked.append((torch.get_num_threads(), *map(len, told))) or measure(
            replicas, questions, told),
    )  # fmt: skip
    before = torch.get_num_threads()
    settings = settings_of(TINY)
    row = bench.exhaustive_row(replace(settings, data=replace(settings.data, N=30, R=3)), CPU)
    assert_rows([row], 1.0)
    assert asked == [(2, 210)] and "210 " in row["name"] and row["other"] == 120.0
    assert torch.get_num_threads() == before
