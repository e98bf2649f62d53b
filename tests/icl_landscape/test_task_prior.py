"""Distances to 0 and to the mean task's prediction against the literal formula; the claim on both sides of its bound."""

import pytest
import torch

from common.config import UserError
from icl_landscape.analysis import task_prior
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import Tasks

SETTINGS = task_prior.Settings(points=2, sequences=32)


@pytest.fixture(scope="module")
def study(study_of):
    return study_of("icl_landscape")


@pytest.fixture(scope="module")
def main(study) -> Trained:
    return Trained(study / "main", "cpu", 1)


@pytest.mark.parametrize("name", ["tasks2", "tasks16"])
def test_distances_to_0_and_to_the_mean_task_are_the_literal_ones(study, name):
    run = Trained(study / name, "cpu", 1)
    told, batch = task_prior.measure(run, SETTINGS), run.sequences(32)
    assert told["tasks"] == int(name.removeprefix("tasks"))
    for seed, law in enumerate(run.tasks):
        for place, step in enumerate(told["steps"]):
            zero = mean = 0.0
            predictions = run.model(seed, step)(batch.x[seed], batch.y[seed])
            for yhat, x in zip(predictions, batch.x[seed], strict=True):
                zero += float((yhat**2).sum()) / 32
                mean += float(((yhat - x @ law.table.mean(0)) ** 2).sum()) / 32
            assert told["to_zero"][seed][place] == pytest.approx(zero, rel=1e-4)
            assert told["to_mean"][seed][place] == pytest.approx(mean, rel=1e-4)


def test_every_seed_has_the_mean_of_its_own_tasks(study):
    run = Trained(study / "tasks2", "cpu", 1)
    means = task_prior.mean_tasks(run)
    torch.testing.assert_close(means[0], (run.tasks[0].table[0] + run.tasks[0].table[1]) / 2)
    assert not torch.allclose(means[0], means[1])


def test_infinitely_many_tasks_have_mean_0_and_one_distance(main):
    told = task_prior.measure(main, SETTINGS)
    assert told["tasks"] is None
    assert told["to_mean"] == told["to_zero"]


def test_a_run_of_infinitely_many_tasks_is_none_of_few(main):
    with pytest.raises(UserError, match="expected one; train with --data.M 4"):
        task_prior.analyse(main, task_prior.Settings(points=2, sequences=8, runs=["main"]))


def test_a_task_set_that_is_one_task_has_that_task_as_its_mean(main, monkeypatch):
    monkeypatch.setattr(main, "tasks", [Tasks(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))] * len(main.seeds))
    assert task_prior.mean_tasks(main).tolist() == [[1.0, 2.0, 3.0, 4.0]] * len(main.seeds)


def result(mean: dict[int, list[float]], zero: list[float]) -> dict:
    """Of three seeds alike."""
    return {"runs": {f"tasks{M}": {"tasks": M, "to_mean": [c] * 3, "to_zero": [zero] * 3} for M, c in mean.items()}}


def test_the_claims_number_is_the_least_over_the_least_wherever_each_comes():
    told = task_prior.nearer_the_mean(result({2: [8.0, 0.3, 5.0]}, [0.6, 9.0, 12.0]))
    assert told == {"M = 2": [pytest.approx(0.5)] * 3}


@pytest.mark.parametrize(
    ("least", "verdict"),
    [((0.3, 0.4, 0.49), "reproduced"), ((0.3, 0.4, 0.51), "contradicted"), ((0.6,) * 3, "contradicted")],
)
def test_c17_wants_the_mean_task_nearer_than_0_for_every_number_of_tasks(least, verdict):
    claim = task_prior.CLAIMS[0]
    made = result({M: [7.0, value] for M, value in zip((2, 4, 16), least, strict=True)}, [0.5, 0.9])
    assert claim.verdict(claim.values(made)) == verdict


def test_c17_is_open_where_seeds_differ():
    claim, made = task_prior.CLAIMS[0], result(dict.fromkeys((2, 4, 16), [0.3]), [0.5])
    made["runs"]["tasks4"]["to_mean"] = [[0.3], [0.6], [0.3]]
    assert claim.verdict(claim.values(made)) == "inconclusive"
