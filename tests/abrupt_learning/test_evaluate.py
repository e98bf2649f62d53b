"""Reading a run back: the drop found in synthetic curves, milestones, losses and their errors."""

import numpy as np
import pandas as pd
import pytest
import torch

from abrupt_learning.data import Batch
from abrupt_learning.evaluate import Trained, find_drop, losses
from common.config import UserError

VAR = 1 / 9


def curve(masked) -> pd.DataFrame:
    steps = np.arange(20, 20 * len(masked) + 1, 20)
    return pd.DataFrame({"step": steps, "loss_masked": masked, "loss_observed": 1e-4, "loss": 0.2 * np.asarray(masked)})


def test_a_cliff_is_found_where_it_is():
    """Flat at Var to step 4000, linear to 0.1 Var at 5000, flat: departure at 0.9, half, quarter are known."""
    steps = np.arange(20, 8001, 20)
    level = np.interp(steps, [4000, 5000], [1.0, 0.1]) * VAR
    drop = find_drop(curve(level), VAR, window=20)
    assert drop.plateau == pytest.approx(VAR, rel=1e-3)
    assert drop.half == pytest.approx(4000 + 1000 * 0.5 / 0.9, abs=40)
    assert drop.width == pytest.approx(1000 * 0.65 / 0.9, abs=40)
    assert drop.sharpness == pytest.approx(drop.width / drop.half)
    assert abs(drop.slope) < 1e-6
    assert drop.final == pytest.approx(0.1 * VAR)


def test_a_gradual_fall_is_not_flat_and_a_flat_run_has_no_drop():
    slow = find_drop(curve(np.linspace(1, 0.1, 400) * VAR), VAR)
    assert slow.slope < -0.2
    assert slow.sharpness > 1
    none = find_drop(curve(np.full(400, VAR)), VAR)
    assert (none.half, none.width, none.sharpness, none.slope) == (None, None, None, None)
    assert none.final == pytest.approx(VAR)


def test_a_single_low_row_is_no_drop():
    level = np.full(400, VAR)
    level[100] = 0.0
    assert find_drop(curve(level), VAR).half is None


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
