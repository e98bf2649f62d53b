"""Modular arithmetic: all P^2 ordered pairs, their targets, and a split per seed (paper section 2.1).

A pair (a, b) has the index a P + b everywhere; the model reads the tokens [a, b, P], where P stands for `=`.
"""

import itertools
import random
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from common.limits import Range, Share

Operation = Literal["sum", "mod", "xor", "and", "rsh"]

OPERATIONS = {
    "sum": lambda a, b: a + b,
    "mod": lambda a, b: a % b,
    "xor": lambda a, b: a ^ b,
    "and": lambda a, b: a & b,
    "rsh": lambda a, b: a >> b,
}


@dataclass
class Data:
    P: Annotated[int, Range(2, 2000)] = 113
    """Modulus; operands are 0 .. P - 1, and token P is `=`."""
    train_fraction: Share = 0.3
    """Share of the P^2 pairs that is trained on; int((1 - train_fraction) P^2) pairs are kept for the test."""
    op1: Operation = "sum"
    """First operation of the target (a op1 b) op2 P."""
    op2: Operation = "mod"
    """Second operation of the target."""
    split: Literal["ordered", "unordered"] = "ordered"
    """ordered: (a, b) and (b, a) may fall on two sides, so the test knows some sums from training; unordered: never."""

    def __post_init__(self):
        if self.op1 == "mod":
            raise ValueError("data.op1 is mod, and a mod 0 is none; expected sum, xor, and or rsh")
        lowest, highest = (int(end) for end in self.targets().aminmax())
        if lowest == highest:
            raise ValueError(
                f"data: (a {self.op1} b) {self.op2} {self.P} is {lowest} for every pair; expected another operation"
            )
        if highest > self.P:
            name = f"(a {self.op1} b) {self.op2} {self.P}"
            raise ValueError(
                f"data: {name} reaches {highest}, expected targets in the vocabulary 0 .. {self.P}: op2 mod"
            )
        train = self.train_size
        if not 1 <= train < self.P**2:
            raise ValueError(
                f"data.train_fraction {self.train_fraction} of the {self.P**2} pairs at P={self.P} leaves {train} to train on "
                f"and {self.P**2 - train} for the test; expected at least one of each: a larger P, or another fraction"
            )

    def targets(self) -> Tensor:
        """(a op1 b) op2 P of every pair: (P^2,) integers."""
        pairs = torch.arange(self.P**2)
        first = OPERATIONS[self.op1](pairs // self.P, pairs % self.P)
        return OPERATIONS[self.op2](first, torch.tensor(self.P))

    def groups(self) -> list[tuple[list[list[int]], int]]:
        """Indices of pairs in groups that stay on one side, and how many of the groups are trained on."""
        P = self.P
        if self.split == "ordered":
            return [([[index] for index in range(P**2)], self.train_size)]
        equal = [[a * P + a] for a in range(P)]
        unequal = [[a * P + b, b * P + a] for a in range(P) for b in range(a + 1, P)]
        return list(zip((equal, unequal), self._unordered, strict=True))

    @property
    def _unordered(self) -> tuple[int, int]:
        """How many a = b, and how many two (a, b), (b, a), are trained on."""
        return round(self.train_fraction * self.P), round(self.train_fraction * self.P * (self.P - 1) / 2)

    @property
    def train_size(self) -> int:
        """N, the same for every seed."""
        if self.split == "ordered":
            return self.P**2 - int((1 - self.train_fraction) * self.P**2)
        equal, unequal = self._unordered
        return equal + 2 * unequal


def split(data: Data, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the train pairs (N,) and of the test pairs (P^2 - N,), shuffled by Python's generator at `seed`."""
    shuffle = random.Random(seed).shuffle
    train, test = [], []
    for groups, count in data.groups():
        shuffle(groups)
        train += itertools.chain(*groups[:count])
        test += itertools.chain(*groups[count:])
    return torch.tensor(train), torch.tensor(test)


def tokens(rows: Tensor, P: int) -> Tensor:
    """Token ids [a, b, P] of pairs: (...,) -> (..., 3)."""
    return torch.stack([rows // P, rows % P, torch.full_like(rows, P)], -1)
