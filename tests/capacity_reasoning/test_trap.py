"""The trap's numbers and both claims on each side of every bound."""

import pytest

from capacity_reasoning.analysis import trap
from common.claims import Missing

C4, C13 = trap.CLAIMS


def run(R: float, h: float, one: float, two: float, bits=(0.8, 1.2, 1.8), N=100, P=1000) -> dict:
    """A run of three seeds alike: loss over uniform of one hop and of two, and bits per parameter by storage."""
    predicted = "either" if R * h == 1 else "one_hop" if R * h > 1 else "two_hop"
    contents = dict(zip(("one_hop", "double", "big_hash"), bits, strict=True))
    return {
        "R": R, "h": h, "Rh": R * h, "N": N, "P": P, "predicted": predicted,
        "train_onehop": {"loss": [8 * one] * 3, "uniform": [8.0] * 3},
        "train_twohop": {"loss": [7 * two] * 3, "uniform": [7.0] * 3},
        "bits_per_parameter": {name: {"content": [value] * 3} for name, value in contents.items()},
    }  # fmt: skip


def result(*runs: dict) -> dict:
    return {"seeds": [0, 1, 2], "runs": {str(number): each for number, each in enumerate(runs)}}


TRAPPED, FREE, MANY = run(4, 0.1, 0.98, 0.7), run(4, 1, 0.3, 0.6), run(12, 0.1, 0.4, 0.9)


def judge(claim, *runs: dict) -> str:
    return claim.verdict(claim.values(result(*runs)))


def test_the_trap_is_read_from_the_least_R_h_and_the_same_model_with_more_one_hop_questions():
    values = C4.values(result(MANY, run(4, 1, 0.9, 0.9, N=200), FREE, run(4, 0.5, 0.5, 0.5), TRAPPED))
    assert values["one-hop loss / uniform, least R h"] == pytest.approx([0.98] * 3)
    assert values["the same, largest h"] == pytest.approx([0.3] * 3)
    assert values["bits/parameter, big hash less one copy"] == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ((TRAPPED, FREE), "reproduced"),
        ((run(4, 0.1, 0.91, 0.7), run(4, 1, 0.79, 0.6)), "reproduced"),
        ((run(4, 0.1, 0.89, 0.7), FREE), "contradicted"),
        ((TRAPPED, run(4, 1, 0.81, 0.6)), "contradicted"),
        ((run(4, 0.1, 0.98, 0.99, bits=(0.5, 0.5, 0.55)), FREE), "contradicted"),
    ],
)
def test_c4_wants_one_hop_at_chance_two_hop_memorised_and_one_hop_learnt_with_more_questions(runs, verdict):
    assert judge(C4, *runs) == verdict


@pytest.mark.parametrize("runs", [(TRAPPED,), (TRAPPED, run(4, 0.2, 0.5, 0.5)), (FREE, run(4, 2, 0.2, 0.5))])
def test_c4_needs_runs_of_one_model_on_both_sides_of_R_h_of_one(runs):
    with pytest.raises(Missing, match="expected some on each side of 1"):
        C4.values(result(*runs))


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ((TRAPPED, FREE, MANY), "reproduced"),
        ((TRAPPED, FREE, run(10, 0.1, 0.9, 0.2)), "reproduced"),
        ((TRAPPED, FREE, run(12, 0.1, 0.9, 0.2)), "contradicted"),
        ((run(4, 0.1, 0.2, 0.7), FREE), "contradicted"),
        ((FREE, MANY), "inconclusive"),
        ((TRAPPED, run(4, 1, 0.99, 0.98)), "inconclusive"),
    ],
)
def test_c13_wants_every_run_as_predicted_but_for_R_h_of_one_and_one_that_tells_on_each_side(runs, verdict):
    assert judge(C13, *runs) == verdict


def test_the_share_of_runs_as_predicted_is_told_by_seed():
    wrong = run(12, 0.1, 0.4, 0.9)
    wrong["train_onehop"]["loss"][1] = 8.0
    assert C13.values(result(TRAPPED, FREE, wrong))["share of runs as predicted"] == pytest.approx([1, 2 / 3, 1])


def test_a_run_names_no_type_where_neither_has_been_learnt():
    assert trap.first_types(run(4, 1, 0.96, 1.2)) == [None] * 3
    assert trap.first_types(run(4, 1, 0.9, 1.2)) == ["one_hop"] * 3
    assert trap.first_types(run(4, 1, 0.9, 0.8)) == ["two_hop"] * 3
