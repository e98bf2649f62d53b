"""The order of optimisers on made-up runs, on each side of every bound of the claim."""

import numpy as np
import pytest

from capacity_reasoning.analysis import optimisers
from common.claims import Missing

(C15,) = optimisers.CLAIMS
OURS = ("schedulefree", 1e-3, 0.99)
STEPS = [0, 10, 20, 40, 80, 160]


def run(final: float, speed: float = 1.0, optim=("adamw_cosine", 2e-5, 0.9)) -> dict:
    """Three seeds alike: the loss comes down from 40 to `final`, all the sooner the larger `speed`."""
    losses = final + (40 - final) * np.exp(-speed * np.array(STEPS) / 10)
    name, lr, beta1 = optim
    return {
        "name": name, "lr": lr, "beta1": beta1, "steps": STEPS, "losses": [losses.tolist()] * 3,
        "final": {"loss": [final] * 3, "uniform": [7.5] * 3},
    }  # fmt: skip


def result(*runs: dict) -> dict:
    return {"seeds": [0, 1, 2], "reached": 0.5, "runs": {str(number): each for number, each in enumerate(runs)}}


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ((run(2.5, 1.5, OURS), run(3.0, 0.5), run(2.8, 0.5)), "reproduced"),
        ((run(2.9, 1.5, OURS), run(3.0, 0.5), run(2.8, 0.5)), "contradicted"),
        ((run(2.5, 0.3, OURS), run(3.0, 1.5), run(2.8, 0.5)), "contradicted"),
        ((run(2.5, 0.5, OURS), run(3.0, 0.5), run(2.8, 0.5)), "contradicted"),
        ((run(2.5, 1.5, OURS), run(3.4, 0.5), run(2.8, 0.5)), "contradicted"),
        ((run(4.6, 1.5, OURS), run(4.7, 0.5), run(4.8, 0.5)), "contradicted"),
    ],
)
def test_c15_wants_the_authors_optimiser_lowest_and_fastest_and_all_near_each_other(runs, verdict):
    assert C15.verdict(C15.values(result(*runs))) == verdict


def test_a_run_that_never_comes_so_far_never_gets_there():
    made = result(run(2.5, 1.5, OURS), run(6.0, 1.5))
    assert optimisers.speeds(made)["1"] == [np.inf] * 3
    assert optimisers.speeds(made)["0"] == [20.0] * 3
    made = result(run(6.0, 1.5, OURS), run(2.5, 1.5))
    assert C15.values(made)["step half way / least of the others"] == [np.inf] * 3


@pytest.mark.parametrize(
    "runs", [(run(2.5),), (run(2.5, 1, OURS),), (run(2.5), run(3, 1, ("schedulefree", 1e-3, 0.95)))]
)
def test_c15_needs_the_authors_optimiser_and_another(runs):
    with pytest.raises(Missing, match="expected one and others beside it"):
        C15.values(result(*runs))
