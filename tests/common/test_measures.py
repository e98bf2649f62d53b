"""The pieces of measurements: verdicts need three seeds and agreement, and never is later than any step."""

import pytest

from common import measures
from common.analysis import over_seeds


def test_spread_and_over_seeds_agree():
    assert over_seeds([{"a": 1.0, "b": [2, 3]}, {"a": 3.0, "b": [4, None]}]) == {
        "a": measures.spread([1.0, 3.0]),
        "b": [measures.spread([2.0, 4.0]), {"values": [3.0, None], "mean": None, "error": None}],
    }


@pytest.mark.parametrize(
    ("values", "below", "above"),
    [
        ([1, 2, 3], "reproduced", "contradicted"),
        ([1, 2, 9], "inconclusive", "inconclusive"),
        ([7, 8, 9], "contradicted", "reproduced"),
        ([1, 2], "inconclusive", "inconclusive"),
    ],
)
def test_verdicts(values, below, above):
    node = measures.spread([float(v) for v in values])
    assert measures.at_most(node, 5.0).verdict == below
    assert measures.at_least(node, 5.0, "note").verdict == above
    assert measures.at_least(node, 5.0, "note").note == "note"


def test_every_asks_each_seed():
    assert measures.every([True] * 3) == "reproduced"
    assert measures.every([True, True, False]) == "inconclusive"
    assert measures.every([False] * 3) == "contradicted"
    assert measures.every([True, True]) == "inconclusive"


def test_never_is_later_than_any_step():
    assert measures.earlier([1, 2, None, None], [2, 2, 3, None]) == [True, False, False, False]
    assert measures.earlier([5], [None]) == [True]
    assert measures.steps([1.0, None]) == "1, never"
    assert measures.columns({"values": [1, 2]}, {"values": [3, 4]}) == [(1, 3), (2, 4)]
