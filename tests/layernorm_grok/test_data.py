"""Pairs, targets and splits: the counts of the paper, the literal shuffle, and what is refused."""

import operator
import random

import pytest
import torch

from layernorm_grok.data import OPERATIONS, Data, split, tokens

PYTHON = {"sum": operator.add, "mod": operator.mod, "xor": operator.xor, "and": operator.and_, "rsh": operator.rshift}


def literal_targets(P: int, op1: str, op2: str) -> list[int]:
    return [PYTHON[op2](PYTHON[op1](a, b), P) for a in range(P) for b in range(P)]


@pytest.mark.parametrize("kind", ["ordered", "unordered"])
def test_train_and_test_share_out_all_pairs(kind):
    for seed in (456, 789):
        train, test = split(Data(split=kind), seed)
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(113**2))


def test_counts_of_the_paper():
    train, test = split(Data(), 456)
    assert (len(train), len(test), Data().train_size) == (3831, 8938, 3831)


@pytest.mark.parametrize("P, fraction", [(113, 0.3), (47, 0.4), (7, 0.5)])
def test_split_is_the_literal_shuffle(P, fraction):
    order = list(range(P * P))
    random.seed(111)
    random.shuffle(order)
    train, test = split(Data(P=P, train_fraction=fraction), 111)
    kept = P * P - int((1 - fraction) * P * P)
    assert (train.tolist(), test.tolist()) == (order[:kept], order[kept:])


def test_split_leaves_the_global_generator_alone_and_differs_between_seeds():
    before = random.getstate()
    first, again, other = (split(Data(P=23), seed)[0].tolist() for seed in (1, 1, 2))
    assert random.getstate() == before
    assert first == again != other


def test_ordered_split_separates_some_pairs_from_their_mirror():
    data = Data(P=23)
    train = set(split(data, 0)[0].tolist())
    assert any((r % 23) * 23 + r // 23 not in train for r in train)


@pytest.mark.parametrize("P, fraction", [(113, 0.3), (8, 0.4), (2, 0.5)])
def test_unordered_split_keeps_mirrors_together_at_one_size_for_every_seed(P, fraction):
    data, seen = Data(P=P, train_fraction=fraction, split="unordered"), set()
    for seed in range(5):
        train = split(data, seed)[0].tolist()
        assert {(r % P) * P + r // P for r in train} == set(train)
        assert len(train) == data.train_size
        seen.add(tuple(train))
    assert abs(data.train_size - fraction * P * P) <= 1.5
    assert len(seen) > 1


def test_tokens_are_a_b_and_equals():
    rows = torch.tensor([0, 1, 5, 24])
    assert tokens(rows, 5).tolist() == [[0, 0, 5], [0, 1, 5], [1, 0, 5], [4, 4, 5]]
    assert torch.equal(tokens(rows.view(2, 2), 5), tokens(rows, 5).view(2, 2, 3))


def test_labels_of_the_paper():
    targets = Data().targets()
    assert targets.tolist() == literal_targets(113, "sum", "mod")
    assert targets[100 * 113 + 20] == 7
    assert targets.bincount().tolist() == [113] * 113


@pytest.mark.parametrize("op1", OPERATIONS)
@pytest.mark.parametrize("op2", OPERATIONS)
@pytest.mark.parametrize("P", [7, 8, 113])
def test_every_pair_of_operations_gives_targets_in_the_vocabulary_or_is_refused(P, op1, op2):
    if op1 == "mod":
        with pytest.raises(ValueError, match="data.op1 is mod"):
            Data(P=P, op1=op1, op2=op2)
    elif len(set(expected := literal_targets(P, op1, op2))) == 1:
        with pytest.raises(ValueError, match=f"is {expected[0]} for every pair"):
            Data(P=P, op1=op1, op2=op2)
    elif max(expected) > P:
        with pytest.raises(ValueError, match=f"reaches {max(expected)}, expected targets in the vocabulary"):
            Data(P=P, op1=op1, op2=op2)
    else:
        assert Data(P=P, op1=op1, op2=op2).targets().tolist() == expected


@pytest.mark.parametrize("op1", ["sum", "xor", "and", "rsh"])
def test_modulo_p_serves_every_first_operation(op1):
    assert 0 <= Data(op1=op1).targets().min() <= Data(op1=op1).targets().max() < 113


@pytest.mark.parametrize("kind", ["ordered", "unordered"])
@pytest.mark.parametrize("fraction", [-0.2, 0.0, 1.0, 1.4])
def test_a_split_with_an_empty_side_is_refused(kind, fraction):
    with pytest.raises(ValueError, match="expected at least one of each"):
        Data(P=5, train_fraction=fraction, split=kind)


def test_a_modulus_too_small_for_an_unordered_split_is_refused():
    with pytest.raises(ValueError, match="a larger P, or another fraction"):
        Data(P=2, train_fraction=0.2, split="unordered")
