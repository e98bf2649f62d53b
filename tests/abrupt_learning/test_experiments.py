"""Parts of experiments that claims rest on: sets of equally many heads, ratios of steps, shares of values, the run probed."""

import math

import pytest
import torch

from abrupt_learning.analysis import probe
from abrupt_learning.analysis._judging import ratio
from abrupt_learning.analysis.ablation import matched
from abrupt_learning.data import Data, sample
from abrupt_learning.estimators.marginal import entry_shares
from abrupt_learning.evaluate import Trained


def groups(row: list[int], column: list[int]) -> dict[str, torch.Tensor]:
    """Masks (2, 4) of heads by number."""
    masks = {"row": torch.zeros(8, dtype=torch.bool), "column": torch.zeros(8, dtype=torch.bool)}
    masks["row"][row], masks["column"][column] = True, True
    return {name: mask.view(2, 4) for name, mask in masks.items()}


@pytest.mark.parametrize(
    ("row", "column", "sizes"), [([0], [1, 2], (1, 2)), ([0, 1, 2, 3], [4, 5], (2, 2)), ([], [1], (0, 1))]
)
def test_matched_sets_have_equally_many_heads_of_either_side(row, column, sizes):
    given = groups(row, column)
    sets, again = matched(given, draws=8), matched(given, draws=8)
    neither = ~(given["row"] | given["column"])
    for (name, pair), size in zip(sets.items(), sizes, strict=True):
        for heads, pool in ((pair["own"], given[name]), (pair["others"], neither)):
            assert heads.flatten(1).sum(1).eq(size).all()
            assert not (heads & ~pool).any()
            assert len(heads) == len(heads.unique(dim=0)) <= 8
        assert torch.equal(pair["others"], again[name]["others"])


@pytest.mark.parametrize(
    ("one", "other", "ends", "bound", "expected"),
    [
        (100, 200, (500, 500), 1.0, 0.5),
        (100, None, (500, 500), 1.0, 0.2),  # at most 0.2
        (450, None, (500, 500), 0.5, None),  # at most 0.9, at least 0: cannot tell
        (None, 200, (500, 500), 1.0, math.inf),
        (None, 200, (150, 500), 1.0, None),  # one ended before the other came
        (None, 200, (150, 500), 0.5, math.inf),  # but it is later than 0.5 of it
        (None, None, (500, 500), 1.0, None),
    ],
)
def test_a_ratio_of_steps_that_did_not_come_is_told_as_far_as_it_is_known(one, other, ends, bound, expected):
    assert ratio(one, other, ends, bound) == expected


def test_shares_of_values_are_those_of_the_data():
    data = Data(sizes=[[4, 4]], rank=1, precision=1, limit=1.0)
    shares = entry_shares(data)
    k = (sample(data, 20000, torch.Generator().manual_seed(3)).target * 10).round().long() + data.half
    drawn = torch.bincount(k.flatten(), minlength=2 * data.half + 1) / k.numel()
    assert float(shares.sum()) == pytest.approx(1)
    assert torch.allclose(shares, drawn, atol=0.01)
    assert int(shares.argmax()) == data.half


def test_another_run_of_the_study_can_be_probed(study_of):
    study = study_of("abrupt_learning")
    settings = {"milestones": ["end"], "train": 48, "test": 16}
    main, control = (Trained(study / name, "cpu", 1) for name in ("main", "control"))
    beside = probe.analyse(main, probe.Settings(probed="control", **settings))
    assert beside == probe.analyse(control, probe.Settings(**settings))
    assert beside != probe.analyse(main, probe.Settings(**settings))
