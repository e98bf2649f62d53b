"""The frozen quick preset still shows its phenomenon: a minute long, run by make test-slow."""

from pathlib import Path

import pytest

from common import config
from layernorm_grok.evaluate import Trained
from layernorm_grok.train import Config, main
from tests.papers import flags

QUICK = Path(__file__).parents[2] / "layernorm_grok/configs/quick.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 11])
def test_m_generalises_while_no_ln_has_only_memorised_from_a_tuning_and_from_a_held_out_seed(seed, tmp_path):
    values = {"root": str(tmp_path), "seeds": [seed], "device": "cpu", "grid.placement": ["mlp-pre", "off"]}
    settings = config.parse(Config, [f"--config={QUICK}", *flags(values | {"train.steps": 1500})])
    main(settings)
    trained = Trained(settings.folder, "cpu")
    m, off = trained.times("mlp-pre"), trained.times("off")
    assert m["first"][0] is not None
    assert off["t_train"][0] < 400
    assert off["first"][0] is None or off["first"][0] > m["first"][0]
