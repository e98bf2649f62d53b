"""Reading a run back: its curves, milestones, models and fixed matrices; losses and their errors."""

import numpy as np
import pytest
import torch

from abrupt_learning.analysis import gpt
from abrupt_learning.data import Batch
from abrupt_learning.evaluate import Trained, TrainedGpt, losses
from common.config import UserError


def test_losses_are_ratios_of_sums_and_their_errors_match_the_bootstrap():
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(400, 16, generator=generator) > 0.3
    batch = Batch(observed.long(), torch.zeros(400, 16), observed)
    prediction = torch.randn(400, 16, generator=generator) * torch.rand(400, 1, generator=generator)
    result = losses(prediction, batch)
    assert result["loss_masked"] == pytest.approx(float(prediction[~observed].square().mean()), rel=1e-5)
    assert result["mask_value"] == pytest.approx(float(prediction[~observed].abs().mean()), rel=1e-5)
    draws = []
    for _ in range(400):
        pick = torch.randint(400, (400,), generator=generator)
        draws.append(float(prediction[pick][~observed[pick]].square().mean()))
    assert result["loss_masked_se"] == pytest.approx(np.std(draws), rel=0.15)


def test_milestones_without_a_drop_are_shares_of_the_run(smoke_run):
    trained = Trained(smoke_run)
    steps = [trained.milestone(0, name) for name in ("first", "early", "middle", "before", "after", "end")]
    assert steps == [5, 15, 40, 55, 60, 60]
    with pytest.raises(UserError, match="expected one of first"):
        trained.milestone(0, "begin")


def test_models_of_a_run_are_its_seeds_and_matrices_are_fixed(smoke_run):
    trained = Trained(smoke_run)
    weights = [trained.model(seed).read_out.weight for seed in trained.seeds]
    assert not torch.equal(weights[0], weights[1])
    first, second, other = (trained.matrices(8, p_mask=p) for p in (0.2, 0.2, 0.5))
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.target, other.target)


def test_a_step_that_was_not_kept_is_told_with_those_that_were(smoke_run):
    with pytest.raises(UserError, match="60"):
        Trained(smoke_run).model(0, 61)


def test_a_run_of_the_other_kind_is_refused(smoke_study):
    for kind, found in ((TrainedGpt, "main"), (Trained, "gpt")):
        with pytest.raises(UserError, match=f"expected {kind.KIND}; give another --run"):
            kind(smoke_study / found, "cpu", 1)
    assert gpt.Settings().READS(smoke_study / "gpt", "cpu", 1).config.model.kind == "gpt"


def test_a_curve_is_one_replicas_training_rows(smoke_study):
    parts, mixture = (Trained(smoke_study / name, "cpu", 1) for name in ("components", "mixture"))
    for part in parts.config.train.components:
        curve = parts.curve(1, part)
        assert curve["step"].tolist() == [5, 10]
        assert set(curve["component"]) == {part} and set(curve["seed"]) == {1}
        assert parts.drop(1, part).half is None
    assert mixture.curve(0)["step"].tolist() == [5, 10]
    assert len(mixture.metrics) == 2 * 2 * len(mixture.seeds)
