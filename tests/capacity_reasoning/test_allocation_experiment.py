"""The toy's optimum by a literal scan, the rule's sign, the claim on both sides of its bounds."""

import math

import pytest

from capacity_reasoning.analysis import allocation

(CLAIM,) = allocation.CLAIMS


@pytest.fixture(scope="module")
def result() -> dict:
    return {"seeds": [0, 1, 2], **allocation.analyse(None, allocation.Settings())}


def literal(first: float, K: float, n: int, a: float) -> float:
    p1, p2 = (math.exp(-max(0, math.log(n) - nats)) for nats in (first, K - first))
    return a * max(0, math.log(n) - K) - (1 - a) * math.log(p1 * p2 + (1 - p1) * (1 - p2) / n)


def test_curves_are_the_literal_loss_and_no_split_beats_the_optimum(result):
    assert [row["K"] for row in result["toy"]] == [5, 10, 15, 20]
    for row in result["toy"]:
        assert row["loss"] == pytest.approx([literal(first, row["K"], 1000, 0.1) for first in row["I1"]], abs=1e-9)
        assert literal(row["optimum"][0], row["K"], 1000, 0.1) <= min(row["loss"]) + 1e-9
        assert sum(row["optimum"]) == pytest.approx(row["K"])


def test_two_hop_answers_come_first_exactly_below_Rh_1(result):
    assert len(result["rule"]) == 16
    for row in result["rule"]:
        sign = (row["Rh"] > 1 + 1e-9) - (row["Rh"] < 1 - 1e-9)
        assert row["first"] == {-1: "two_hop", 0: "either", 1: "one_hop"}[sign]
        assert (row["one_hop"] > row["two_hop"] + 1e-12) - (row["one_hop"] < row["two_hop"] - 1e-12) == sign
    told = allocation.finding(result)
    assert "10 / 10 of 20 nats" in told and "R = 4 at h = 0.1," in told and "R = 17 at h = 0.1" not in told


def test_the_printed_split_is_reproduced_by_one_exact_number(result):
    assert CLAIM.verdict(CLAIM.values(result)) == "reproduced"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"optimum": [9.91, 10.09]}, "reproduced"),
        ({"optimum": [9.8, 10.2]}, "contradicted"),
        ({"optimum": [10.2, 9.8]}, "contradicted"),
        ({"even_split": 1e-6}, "contradicted"),
        ({"K": 13.0, "optimum": [6.5, 6.5]}, "inconclusive"),
    ],
)
def test_the_even_split_on_both_sides_of_its_bounds(row, expected):
    """13 nats are less than the 2 ln 1000 that both hops need."""
    small = {"K": 5.0, "optimum": [0.0, 5.0], "even_split": 1.0}
    made_up = {"n": 1000, "toy": [small, {"K": 20.0, "optimum": [10.0, 10.0], "even_split": 0.0} | row]}
    assert CLAIM.verdict(CLAIM.values(made_up)) == expected


def test_figure_marks_every_optimum_and_names_every_cell(result):
    left, right = allocation.draw(result).axes
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([0.5] * 4)
    assert len(right.texts) == 16 and "Rh = 0.4\ntwo-hop\nanswers" in [text.get_text() for text in right.texts]
