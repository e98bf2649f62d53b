"""The frozen quick preset still shows its phenomenon: minutes long, run by make test-slow."""

from pathlib import Path

import pytest

from abrupt_learning.evaluate import Trained
from abrupt_learning.train import Config, fit
from common import config, experiment

QUICK = Path(__file__).parents[2] / "abrupt_learning/configs/quick.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_quick_has_a_plateau_and_a_sharp_drop_from_tuning_seeds(seed, tmp_path):
    settings = config.parse(Config, [f"--config={QUICK}", f"--root={tmp_path}", f"--seeds=[{seed}]", "--device=cpu"])
    experiment.train(settings, fit)
    trained = Trained(settings.folder)
    drop, variance = trained.drop(seed), trained.data.variance
    assert abs(drop.plateau / variance - 1) < 0.1
    assert drop.plateau_observed < 0.02 * variance
    assert drop.half is not None and drop.sharpness < 1 / 3
    assert drop.final < 0.3 * variance
