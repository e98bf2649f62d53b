"""The frozen quick preset still shows its phenomenon: a minute long, run by make test-slow."""

from pathlib import Path

import pytest

from common import config
from icl_landscape.analysis import behaviour
from icl_landscape.evaluate import Trained
from icl_landscape.train import Config, main
from tests.papers import flags

QUICK = Path(__file__).parents[2] / "icl_landscape/configs/quick.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 105])
def test_quick_learns_the_prior_first_and_then_to_use_the_context(seed, tmp_path):
    values = {"root": str(tmp_path), "seeds": [seed], "device": "cpu"}
    settings = config.parse(Config, [f"--config={QUICK}", *flags(values)])
    main(settings)
    result = behaviour.analyse(
        Trained(settings.folder, "cpu"), behaviour.Settings(points=1000, sequences=512, scales=[5.0])
    )
    prior, icl = behaviour.learns_the_prior(result), behaviour.learns_in_context(result)
    assert prior["least prior score / sigma^2"][0] < 0.5 and prior["prior score at the end"][0] > 1.8
    assert icl["ell_K - ell_1 at the end"][0] < -3 and icl["ell_K - ell_1 where the prior score is least"][0] > -0.5
