"""Variants one at a time; rank correlations; the claim on both sides of its bound; the experiment on a run of a few steps."""

import json

import pytest

from common import config
from common.config import UserError
from icl_landscape.analysis import llc_variants
from icl_landscape.analysis._llc import measure
from icl_landscape.analysis.llc_variants import RESULTS, Settings, Variants, analyse, draw, finding, least, named, rank
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.settings import Sampling

CLAIM = llc_variants.CLAIMS[0]
CONFIGS = "icl_landscape/configs"


def test_a_variant_changes_one_thing():
    base = Settings(samples=64, sampling=Sampling(batch=8, seed=3))
    base.variants = Variants(
        samples=[0, 64, 128], batch=[0, 8], loss=["subsequence", "mse"], seed=[3, 4], shared=[False]
    )
    found = named(base)
    assert list(found) == ["samples 0", "samples 128", "batch 0", "loss subsequence", "seed 4", "shared false"]
    assert found["samples 128"].samples == 128 and found["batch 0"].samples == 64
    assert (
        found["batch 0"].sampling == Sampling(batch=0, seed=3) and found["loss subsequence"].sampling == base.sampling
    )
    assert not found["shared false"].sampling.shared and found["shared false"].loss == "mse"


@pytest.mark.parametrize("name", RESULTS)
def test_configs_vary_what_their_name_says(name):
    settings = config.parse(Settings, [f"--config={CONFIGS}/{name}.yaml"])
    key = {"llc_dataset_size": "samples", "llc_batch_size": "batch", "llc_loss": "loss", "llc_seed": "seed"}[name]
    assert {variant.split()[0] for variant in named(settings)} - {"shared"} == {key}


def test_a_batch_of_all_needs_a_fixed_set():
    for flags in (["--variants.batch=[0]"], ["--sampling.batch=0", "--samples=8", "--variants.samples=[0]"]):
        with pytest.raises(UserError, match="found a batch of 0"):
            config.parse(Settings, flags)
    config.parse(Settings, ["--variants.batch=[0]", "--samples=8"])


def test_rank_correlations():
    assert rank([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with one swap of neighbours
    assert rank([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank([1, 2, 3, None], [3, 2, 1, 5]) == pytest.approx(-1)
    assert rank([1, None, 3], [1, 2, 3]) is None and rank([1, 1, 1], [1, 2, 3]) is None


def test_the_claim_takes_the_least_of_each_result():
    assert least({"order": {"a": [0.9, 0.5, None], "b": [0.95, 0.99, 1.0]}}) == [0.9, 0.5, None]
    good = {"order": {"a": [0.81, 0.9, 1.0], "b": [0.95, 0.95, 0.95]}}
    bad = {"order": {"a": [0.79, 0.9, 1.0], "b": [0.95, 0.95, 0.95]}}
    assert CLAIM.verdict(CLAIM.values(good, good, good, good)) == "reproduced"
    for place in range(4):
        results = [bad if number == place else good for number in range(4)]
        values = CLAIM.values(*results)
        assert CLAIM.met([values[b["name"]][0] for b in CLAIM.bounds]) is False
        assert CLAIM.verdict(values) == "inconclusive"
    assert {row["value"] for row in CLAIM.bounds} == {0.8} and CLAIM.presets == ("medium", "gpu", "paper")
    assert CLAIM.needs == ("llc_dataset_size", "llc_batch_size", "llc_loss", "llc_seed")


def test_the_experiment_on_a_run(study_of):
    trained = Trained(study_of("icl_landscape") / "main", "cpu", 1)
    settings = Settings(
        at=[0, 20, 60], seeds=1, sharpness=0, sampling=Sampling(chains=2, draws=4, batch=4, reference="paired")
    )
    settings.variants = Variants(samples=[16], loss=["subsequence"], shared=[False])
    result = analyse(trained, settings)
    assert set(result["variants"]) == set(result["order"]) == {"samples 16", "loss subsequence", "shared false"}
    alone = measure(trained, named(settings)["samples 16"], trained.seeds[0], [60])
    assert result["variants"]["samples 16"]["llc"][0][2] == float(alone.estimate.mean[0])
    assert result["base"]["llc"] != result["variants"]["samples 16"]["llc"]
    order = result["order"]["loss subsequence"][0]
    assert order == rank(result["base"]["llc"][0], result["variants"]["loss subsequence"]["llc"][0])
    assert "loss subsequence" in finding(result)
    json.dumps(result)
    draw(result).savefig("/dev/null", format="png")
    settings.variants = Variants(seed=[settings.sampling.seed])
    with pytest.raises(UserError, match="no variants that differ"):
        analyse(trained, settings)
