"""The frozen quick preset still shows its phenomena: minutes long, run by make test-slow."""

from pathlib import Path

import pytest

from capacity_reasoning.analysis import generalisation, trap
from capacity_reasoning.evaluate import Trained
from capacity_reasoning.train import Config, main
from common import config, sweep
from tests.papers import ROOT, flags

SWEEP = str(ROOT / "capacity_reasoning/configs/sweep.yaml")
ELSEWHERE = ("--study=", "--seeds=")


def trained(name: str, root: Path, seed: int) -> Trained:
    """A run of quick's sweep, with one seed."""
    (job,) = (job for job in sweep.jobs(sweep.load(SWEEP, "quick")) if job.name == name)
    words = [word for word in job.command[2:] if not word.startswith(ELSEWHERE)]
    settings = config.parse(
        Config, [*words, *flags({"root": str(root), "seeds": [seed], "device": "cpu", "study": "quick"})]
    )
    main(settings)
    return Trained(settings.folder, "cpu")


@pytest.mark.slow
def test_a_small_model_is_trapped_where_one_hop_questions_are_few(tmp_path):
    for name in ("trap_r4_h1", "trap_r4_h0.1"):
        run = trained(name, tmp_path, 100)
    result = {"seeds": [100], **trap.analyse(run, trap.Settings())}
    told = trap.trap(result)
    assert told["one-hop loss / uniform, least R h"][0] > 0.9 and told["the same, largest h"][0] < 0.8
    assert trap.rightly_predicted(result) == [1.0]


@pytest.mark.slow
def test_new_combinations_are_answered_and_new_hops_are_not(tmp_path):
    run = trained("latent", tmp_path, 100)
    result = {"seeds": [100], **generalisation.analyse(run, generalisation.Settings())}
    (claim,) = (claim for claim in generalisation.CLAIMS if claim.id == "C7")
    numbers = claim.values(result)
    assert claim.met([numbers[bound["name"]][0] for bound in claim.bounds])
