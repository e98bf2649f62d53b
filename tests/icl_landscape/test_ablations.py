"""Ablations against models whose weights are cut, and the mean task's distance against the literal formula."""

import pytest
import torch

from common.config import UserError
from icl_landscape.analysis import task_prior
from icl_landscape.analysis.ablations import ablated, components
from icl_landscape.evaluate import Trained


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_an_mlp_set_to_0_is_one_without_its_last_weights(trained):
    batch, step = trained.sequences(6), trained.steps[-1]
    model, cut = trained.model(0, step), trained.model(0, step)
    cut.blocks[0].fc2.weight.zero_()
    cut.blocks[0].fc2.bias.zero_()
    told = model(batch.x[0], batch.y[0], ablated("mlp", 0, None, "zero"))
    torch.testing.assert_close(told, cut(batch.x[0], batch.y[0]))
    assert not torch.allclose(told, model(batch.x[0], batch.y[0]))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_head_set_to_0_is_one_without_its_columns_of_the_output_matrix(trained, layer):
    batch, step = trained.sequences(6), trained.steps[-1]
    model, cut = trained.model(1, step), trained.model(1, step)
    cut.blocks[layer].attention.output.weight[:, 16:32] = 0
    told = model(batch.x[0], batch.y[0], ablated("heads", layer, 1, "zero"))
    torch.testing.assert_close(told, cut(batch.x[0], batch.y[0]))


def test_a_mean_ablation_gives_every_sequence_the_same_output_of_the_part_and_keeps_its_mean():
    value = torch.randn(2, 5, 4, 3, 6, generator=torch.Generator().manual_seed(0))
    put = ablated("heads", 0, 2, "mean")("heads", 0, value)
    assert torch.equal(put[:, :, [0, 1, 3]], value[:, :, [0, 1, 3]])
    torch.testing.assert_close(put[:, 0, 2], value[:, :, 2].mean(1))
    assert torch.equal(put[:, 0, 2], put[:, 4, 2])
    assert ablated("heads", 0, 2, "mean")("heads", 1, value) is value


def test_every_head_attention_and_mlp_is_a_component(trained):
    parts = components(trained.config.model)
    assert len(parts) == 12 and {"head 2:4", "attention 1", "MLP 2"} <= set(parts)


def test_distances_to_0_and_to_the_mean_task_are_the_literal_ones(study_of):
    run = Trained(study_of("icl_landscape") / "tasks4", "cpu", 1)
    told = task_prior.measure(run, task_prior.Settings(points=2, sequences=32))
    batch, mean = run.sequences(32), run.tasks[1].table.mean(0)
    predictions = run.model(1, run.steps[-1])(batch.x[1], batch.y[1])
    far = (predictions - batch.x[1] @ mean).square().mean(0).sum()
    assert told["tasks"] == 4
    assert told["to_mean"][1][-1] == pytest.approx(float(far), rel=1e-4)
    assert told["to_zero"][1][-1] == pytest.approx(float(predictions.square().mean(0).sum()), rel=1e-4)


def test_a_run_of_infinitely_many_tasks_has_no_mean_task(trained):
    with pytest.raises(UserError, match="expected one; train with --data.M 4"):
        task_prior.measure(trained, task_prior.Settings(points=2, sequences=8))


@pytest.mark.parametrize(("mean", "verdict"), [((1.0, 0.3), "reproduced"), ((1.0, 0.6), "contradicted")])
def test_c17_wants_the_mean_task_nearer_than_0(mean, verdict):
    runs = {f"tasks{M}": {"tasks": M, "to_mean": [list(mean)] * 3, "to_zero": [[0.5, 0.9]] * 3} for M in (2, 4, 16)}
    claim = task_prior.CLAIMS[0]
    assert claim.verdict(claim.values({"runs": runs})) == verdict
