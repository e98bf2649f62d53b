"""Analysis `convergence`: gaps and times of made-up curves with known answers; its claims on each side of every bound."""

import numpy as np
import pytest

from capacity_reasoning.analysis import convergence

C10, C11 = convergence.CLAIMS
STEPS = np.arange(0, 101) * 1e5


def test_the_published_criterion_is_that_of_a_run_of_ten_million_steps():
    told = convergence.Settings().criterion(10_000_000)
    assert (told.start, told.last, told.threshold) == (1e6, 50, pytest.approx(2e-8))


def test_the_least_loss_has_a_step_only_where_the_loss_rises_again():
    valley = (STEPS / 1e7 - 0.4) ** 2
    assert convergence.least_step(STEPS, valley, 5) == pytest.approx(4e6)
    assert convergence.least_step(STEPS, -STEPS, 5) is None
    assert convergence.least_step(STEPS[:4], valley[:4], 5) is None


def test_the_gap_counts_from_where_training_questions_are_below_chance():
    trained = np.array([43.0, 20, 7, 5, 4, 3])
    held_out = trained + [9, 9, 0.1, 0.5, 2, 0.7]
    told = convergence.tell_gap(STEPS[:6], held_out, trained, uniform=7.5)
    assert told == {"max": 2.0, "at": 400_000, "first": pytest.approx(0.1), "last": pytest.approx(0.7)}
    assert convergence.tell_gap(STEPS[:6], held_out, trained, uniform=2.0) is None


def test_a_seed_converges_where_all_that_it_is_trained_on_is_flat_and_none_where_it_diverged():
    falling = 8 * np.exp(-STEPS / 1e6)
    curves = {
        "train_onehop": np.stack([falling, falling, falling]),
        "train_twohop": np.stack([falling, 7 - STEPS / 1e7, falling]),
    }
    curves["train_onehop"][2, -1] = np.nan
    told = convergence.convergence(STEPS, curves, convergence.Settings().criterion(10_000_000))
    assert 5e6 < told[0] < 1e7 and told[1:] == [None, None]


def gap_run(P: float, largest: float, first=0.0, last=0.3, N=1000) -> dict:
    """Three seeds alike; first, last: over the largest gap."""
    told = {"max": largest, "at": 10, "first": first * largest, "last": last * largest}
    return {"N": N, "R": 17, "P": P, "gap": [told] * 3}


def with_gaps(*runs: dict) -> dict:
    return {"seeds": [0, 1, 2], "twohop": {str(n): run for n, run in enumerate(runs)}}


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ((gap_run(1, 0.4), gap_run(2, 0.8), gap_run(3, 0.7)), "reproduced"),
        ((gap_run(1, 0.4), gap_run(2, 0.8), gap_run(1, 1.4, N=9), gap_run(2, 1.8, N=9)), "reproduced"),
        ((gap_run(1, 0.8), gap_run(2, 0.4)), "contradicted"),
        ((gap_run(1, 0.4, last=0.9), gap_run(2, 0.8, last=0.81)), "contradicted"),
        ((gap_run(1, 0.4, first=0.6), gap_run(2, 0.8, first=0.55)), "contradicted"),
        ((gap_run(1, 0.4), gap_run(2, 0.8, N=9)), "inconclusive"),
        ((gap_run(1, 0.04), gap_run(2, 0.08)), "inconclusive"),
    ],
)
def test_c10_wants_a_gap_that_rises_falls_and_grows_with_the_model(runs, verdict):
    assert C10.verdict(C10.values(with_gaps(*runs))) == verdict


def test_models_of_different_populations_are_no_pair():
    rows = [{"N": N, "R": 17, "P": P, "max": gap} for N, P, gap in ((1, 1, 5.0), (1, 2, 6.0), (2, 3, 1.0), (2, 4, 0.5))]
    assert convergence.grows_with_size(rows) == 0
    assert convergence.grows_with_size(rows[:2]) == 1
    assert convergence.grows_with_size(rows[::2]) is None


def timed(power_N=0.0, power_P=0.2, scale=1e7, kept=6) -> dict:
    """Runs whose least loss comes at scale (N / 20000)^a (P / 10^6)^b steps, three seeds alike; those beyond `kept` never."""
    sizes = [(N, P) for N in (10_000, 20_000, 40_000) for P in (0.5e6, 2e6)]
    steps = [scale * (N / 20_000) ** power_N * (P / 1e6) ** power_P for N, P in sizes]
    rows = [
        {"N": N, "P": P, "least": [step if n < kept else None] * 3}
        for n, ((N, P), step) in enumerate(zip(sizes, steps, strict=True))
    ]
    return {"seeds": [0, 1, 2], "onehop": {str(n): row for n, row in enumerate(rows)}, "twohop": {}}


def test_the_exponents_are_those_of_the_curves_and_runs_that_still_fall_do_not_count():
    told = convergence.takes_as_long(timed(power_N=-0.1, power_P=0.3))
    assert told["exponent of N, size"] == pytest.approx([0.1] * 3)
    assert told["exponent of P, size"] == pytest.approx([0.3] * 3)
    assert told["steps to the least loss"] == pytest.approx([1e7] * 3)
    assert convergence.takes_as_long(timed(kept=5))["exponent of P, size"] == pytest.approx([0.2] * 3)
    assert convergence.takes_as_long(timed(kept=3))["exponent of P, size"] == [None] * 3
    assert "N 0.10 +- 0.00, P 0.20 +- 0.00" in convergence.regressions(timed(power_N=0.1))
    assert "Too few" in convergence.regressions(timed(kept=2))


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (timed(), "reproduced"),
        (timed(scale=2.9e6), "contradicted"),
        (timed(scale=3.1e7), "contradicted"),
        (timed(power_P=0.6), "contradicted"),
        (timed(power_N=-0.6), "contradicted"),
        (timed(kept=2), "inconclusive"),
    ],
)
def test_c11_wants_ten_million_steps_whatever_the_size(made, verdict):
    assert C11.verdict(C11.values(made)) == verdict
