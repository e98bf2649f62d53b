"""The frozen quick preset still shows its phenomena: minutes long, run by make test-slow."""

from pathlib import Path

import numpy as np
import pytest

from common import config, experiment
from simplifying_blocks.evaluate import Trained
from simplifying_blocks.train import Config, fit

QUICK = Path(__file__).parents[2] / "simplifying_blocks/configs/quick.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 102])
def test_quick_learns_with_shaped_attention_alone_and_switches_its_values_off(seed, tmp_path):
    found = {}
    for block in ("naive", "sas", "skipless"):
        flags = [f"--root={tmp_path}", f"--seeds=[{seed}]", "--device=cpu", f"--name={block}", f"--model.block={block}"]
        settings = config.parse(Config, [f"--config={QUICK}", *flags])
        experiment.train(settings, fit)
        found[block] = Trained(settings.folder, "cpu")
    losses = {block: run.final()[0] for block, run in found.items()}
    assert losses["sas"] < 4.4 and losses["skipless"] < 4.4 and losses["naive"] > 5.5
    ratios = np.abs(found["skipless"].layers("ratio_V")[1][0, -1])
    assert ratios[0] > 0.1 and np.median(ratios) < 0.05
