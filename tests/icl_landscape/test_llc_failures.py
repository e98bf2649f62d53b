"""The judge of chains that go nowhere; the failures provoked on a run of a few steps; the claim on both sides of its bounds."""

import copy
import json

import pytest
import torch

from icl_landscape.analysis import llc_failures
from icl_landscape.analysis.llc_failures import (
    FAILURES,
    Settings,
    analyse,
    draw,
    explosion,
    finding,
    no_exploration,
    non_minimum,
)
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.chains import Chains, Trace, by_autograd, rows
from icl_landscape.sgmcmc.estimators import local_learning_coefficient
from icl_landscape.sgmcmc.health import examine
from icl_landscape.sgmcmc.judges import walking
from icl_landscape.sgmcmc.settings import Sampling

CLAIM = llc_failures.CLAIMS[0]
WEIGHTS = 400


def flat(params, batch):
    """A loss without any slope but for a little bowl: 1 + |w|^2 / 1000."""
    return 1 + params.square().sum(1) / 1000


def judged(start, sharpness=None, **settings):
    """Kinds of finding -> words, from chains on the bowl about a w* of norm 20."""
    given = Sampling(**{"nbeta": 1.0, "chains": 3, "draws": 80, "burn_in": 20} | settings)
    chains = Chains(rows(start, given.chains), by_autograd(flat), lambda: None, given)
    trace = chains.run()
    trace.norm.fill_(20.0)
    estimate = local_learning_coefficient(trace, given.nbeta, torch.ones(1))
    told = examine(trace, estimate, given, sharpness=sharpness)
    return {found.kind: str(found) for found in told.findings}, float(walking(trace, given)[0])


def test_chains_that_go_nowhere_are_told():
    start = torch.zeros(1, WEIGHTS, dtype=torch.float64)
    told, free = judged(start, epsilon=1e-6, gamma=100.0)
    assert free == pytest.approx(1, abs=0.2)
    assert "have explored nothing" in told["hardly moves"] and "raise epsilon" in told["hardly moves"]
    told, _ = judged(start, epsilon=1e-6, gamma=100.0, sharpness=torch.tensor([25.0]))
    assert "raise epsilon to 0.004" in told["hardly moves"]
    told, _ = judged(start, epsilon=1e-6, gamma=100.0, sharpness=torch.tensor([1e6]))
    assert "raise epsilon, with nbeta and gamma lower" in told["hardly moves"]


def test_chains_that_rest_near_w_star_or_walk_far_are_another_matter():
    start = torch.zeros(1, WEIGHTS, dtype=torch.float64)
    told, free = judged(start, epsilon=1e-4, gamma=4000.0)
    assert free < 0.2 and "hardly moves" not in told
    told, free = judged(start, epsilon=1e-2, gamma=0.1)
    assert free > 0.5 and "hardly moves" not in told


def test_walking_in_closed_form():
    """Distances as the root of steps are 1, constant ones 0, whatever the burn-in and the steps between draws."""
    given = Sampling(chains=2, draws=40, burn_in=30, every=3)
    at = given.burn_in + given.every * torch.arange(40.0)
    distance = torch.stack([at.sqrt(), torch.ones(40), at.sqrt(), torch.ones(40)], 1)
    losses, died = torch.ones(40, 4, 1), torch.tensor([-1, 9, 9, -1])
    found = walking(Trace(losses, None, distance, died, torch.ones(4), 2), given)
    assert found[0] == pytest.approx(1, abs=0.02) and found[1] == 0
    short = Trace(losses[:3], None, distance[:3], died, torch.ones(4), 2)
    assert walking(short, given).isnan().all()


# The experiment


@pytest.fixture(scope="module")
def result(study_of):
    sampling = Sampling(nbeta=66.67, gamma=5e4, chains=2, burn_in=10, draws=16, batch=8, reference="paired")
    settings = Settings(sharpness=8, iterations=3, stability=0.4, seeds=2, sampling=sampling)
    return analyse(Trained(study_of("icl_landscape") / "main", "cpu", 1), settings)


def test_every_failure_is_told_on_a_run(result):
    for name, failure in FAILURES.items():
        case = result["cases"][name]
        assert all(failure.kind in seed for seed in case["findings"]) and all(case["told"]), name
    assert result["cases"]["not a minimum"]["step"] == 0 and result["cases"]["explosion"]["step"] == 60
    assert all(value < -50 for value in result["cases"]["not a minimum"]["llc"])
    assert all(value < 0.02 for value in result["cases"]["no exploration"]["distance"])
    assert "chains are 0.00" in finding(result) and "too large a step" in finding(result)
    json.dumps(result)
    draw(result).savefig("/dev/null", format="png")


def test_the_failures_are_the_published_settings():
    given = Settings(stability=0.4)
    descent = non_minimum(given)
    assert (descent.sampling.epsilon, descent.sampling.gamma, descent.stability) == (1e-5, 0.0, 0.0)
    assert descent.sampling.epsilon * descent.sampling.nbeta / 2 == pytest.approx(0.01)
    assert no_exploration(given).sampling.epsilon == 1e-8 and no_exploration(given).stability == 0
    assert explosion(given).stability == 40 and given.stability == 0.4


def test_the_claim_is_met_by_these_and_by_no_case_that_is_not_told(result):
    made = copy.deepcopy(result)
    made["cases"]["sound"]["findings"] = [["noisy"], []]
    values = CLAIM.values(made)
    assert [CLAIM.met([values[b["name"]][s] for b in CLAIM.bounds]) for s in (0, 1)] == [True, True]
    for name, failure in FAILURES.items():
        silent = copy.deepcopy(made)
        silent["cases"][name]["findings"][0] = ["noisy"]
        found = CLAIM.values(silent)
        assert found[f"{name}: {failure.kind}"] == [0, 1]
        assert CLAIM.met([found[b["name"]][0] for b in CLAIM.bounds]) is False
    made["cases"]["sound"]["findings"][1] = ["hardly moves"]
    assert CLAIM.met([CLAIM.values(made)[b["name"]][1] for b in CLAIM.bounds]) is False


def test_the_bounds():
    assert {row["name"]: (row["kind"], row["value"]) for row in CLAIM.bounds} == {
        "not a minimum: negative LLC": ("above", 0.5),
        "no exploration: hardly moves": ("above", 0.5),
        "explosion: diverged": ("above", 0.5),
        "sound: any of them": ("below", 0.5),
    }
    assert CLAIM.presets == ("quick", "medium", "gpu", "paper")
