"""Which two-hop models compose, and the claims on storages and on the onset, on each side of every bound."""

import numpy as np
import pytest

from capacity_reasoning.analysis import two_hop
from capacity_reasoning.evaluate import Trained

C5, C12 = two_hop.CLAIMS
KAPPA = 1.6
NEEDED = {"one_hop": 2.9e6, "double": 5e6, "big_hash": 42e6}
NAMES = 0.3e6
UNIFORM = 6.0


def level(P: float) -> float:
    """Two-hop loss of a table of answers with all bits but those of the names."""
    return UNIFORM * (1 - (KAPPA * P - NAMES) / (NEEDED["big_hash"] - NAMES))


def run(P: float, share: float, fits: dict[str, float] | None = None, N: int = 10_000) -> dict:
    """Three seeds alike. share: loss over the level of big hash. fits: content over min(needed, KAPPA P) by storage."""
    fits = {"one_hop": 0.7, "double": 1.0, "big_hash": 5.0} | (fits or {})
    storages = {
        name: {"content": [fits[name] * min(bits / P, KAPPA)] * 3, "dataset": [bits / P] * 3}
        for name, bits in NEEDED.items()
    }
    return {
        "N": N, "R": 17, "P": P, "train_twohop": {"loss": [share * level(P)] * 3, "uniform": [UNIFORM] * 3},
        "storages": storages, "needed": {name: [bits / P] * 3 for name, bits in NEEDED.items()}, "names": [NAMES / P] * 3,
    }  # fmt: skip


def result(*runs: dict, onehop=((KAPPA, 3.0),)) -> dict:
    """onehop: content and dataset, in bits per parameter."""
    singles = {str(n): {"one_hop": {"content": [c] * 3, "dataset": [d] * 3}} for n, (c, d) in enumerate(onehop)}
    return {"seeds": [0, 1, 2], "runs": {str(n): each for n, each in enumerate(runs)}, "onehop": singles}


@pytest.mark.parametrize("share", [0.5, 1.0, 1.3])
def test_the_level_of_big_hash_is_that_of_a_table_with_the_bits_that_are_left(share):
    assert two_hop.over_level(run(2e6, share), 0, KAPPA) == pytest.approx(share)


def test_nothing_is_below_a_table_that_holds_every_answer():
    small = run(2e6, 0.5)
    small["needed"]["big_hash"] = [1.0] * 3
    assert two_hop.over_level(small, 0, KAPPA) == np.inf


IN_WINDOW, ABUNDANT, LARGER = run(2.5e6, 0.5), run(6e6, 0.5), run(9e6, 0.1)


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (result(IN_WINDOW), "reproduced"),
        (result(IN_WINDOW, ABUNDANT, LARGER), "reproduced"),
        (result(run(2.5e6, 0.5, {"double": 0.79})), "contradicted"),
        (result(run(2.5e6, 0.5, {"double": 1.26})), "contradicted"),
        (result(run(2.5e6, 0.5, {"big_hash": 1.2})), "contradicted"),
        (result(run(2.5e6, 0.5, {"one_hop": 0.9})), "contradicted"),
        (result(ABUNDANT), "inconclusive"),
        (result(run(6e6, 0.5, {"double": 0.5})), "contradicted"),
        (result(run(2.5e6, 0.95)), "inconclusive"),
        (result(IN_WINDOW, onehop=((0.9, 1.5),)), "inconclusive"),
        (result(IN_WINDOW, onehop=()), "inconclusive"),
    ],
)
def test_c5_wants_double_storage_alone_to_hold_what_one_hop_models_do(made, verdict):
    assert C5.verdict(C5.values(made)) == verdict


def at(ratio: float, share: float, N: int = 10_000) -> dict:
    """A model of so many times the parameters that hold every fact once."""
    return run(ratio * NEEDED["one_hop"] / KAPPA, share, N=N)


@pytest.mark.parametrize(
    ("runs", "number"),
    [
        ((at(1, 1.0), at(2.5, 0.5), at(4, 0.1)), 2.5),
        ((at(4, 0.1), at(1, 1.0), at(2.5, 0.5)), 2.5),
        ((at(1, 1.0), at(2.5, 0.95), at(4, 0.1)), 4),
        ((at(1, 1.0), at(2.5, 0.5), at(1, 1.0, N=5), at(2.2, 0.5, N=5)), 2.2),
        ((at(1.5, 0.5), at(4, 0.1)), 1.5),
        ((at(2.5, 0.5), at(4, 0.1)), None),
        ((at(1, 1.0), at(4, 1.0)), None),
    ],
)
def test_the_onset_is_the_smallest_model_that_composes_where_a_smaller_one_does_not(runs, number):
    assert two_hop.onset(result(*runs)) == [None if number is None else pytest.approx(number)] * 3


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ((at(1, 1.0), at(2.1, 0.5)), "reproduced"),
        ((at(1, 1.0), at(1.9, 0.5)), "contradicted"),
        ((at(0.5, 0.5), at(3, 0.5)), "contradicted"),
        ((at(1, 1.0), at(5, 1.0)), "inconclusive"),
    ],
)
def test_c12_wants_no_composition_below_twice_the_facts(runs, verdict):
    assert C12.verdict(C12.values(result(*runs))) == verdict


def test_loss_and_content_of_a_run_are_all_that_it_was_asked(study_of):
    trained = Trained(study_of("capacity_reasoning") / "twohop_r4_d16", "cpu", 1)
    told = two_hop.two_hop(trained, two_hop.Settings())
    assert told["train_twohop"]["loss"] == pytest.approx([one.nats.mean() for one in trained.losses("train_twohop")])
    one, double, big = (np.array(told["needed"][name]) - told["names"] for name in ("one_hop", "double", "big_hash"))
    bits = [4 * support.N * np.log2(support.N) / trained.P for support in trained.support]
    assert (double - one < bits).all() and (double > one).all()
    tuples = np.array([len(asked) for asked in trained.ask("train_twohop")])
    assert big * trained.P / tuples == pytest.approx([told["train_twohop"]["uniform"][n] / np.log(2) for n in range(3)])
