"""What a model of limited capacity does best to store: one-hop facts, two-hop answers one by one, or facts to compose (research
notes of Johnston & Belrose, arXiv 2502.03490, on the trap of memorised two-hop answers).

h: one-hop questions per two-hop question in training; a = h / (1 + h): the share of one-hop questions.
"""

from dataclasses import dataclass, replace

import numpy as np

from capacity_reasoning.estimators.two_function import two_hop_probability


def one_hop_share(h: float) -> float:
    return h / (1 + h)


def decrease_per_bit(R: int, h: float) -> tuple[float, float]:
    """Decrease of the mean training loss per stored bit, for one-hop facts and for two-hop answers: a and (1 - a)/R.

    In units of 1/(N S): there are N S facts, each of which a one-hop question may ask, and R times as many two-hop answers.
    """
    a = one_hop_share(h)
    return a, (1 - a) / R


def memorised_first(R: int, h: float) -> str:
    """The question type that bits go to first: `two_hop` for R h < 1, where one-hop facts never pay; `either` at R h = 1."""
    return "either" if np.isclose(R * h, 1) else "one_hop" if R * h > 1 else "two_hop"


@dataclass(frozen=True)
class Load:
    """Facts of N people, and the bits that a model has left for them once it knows their names."""

    capacity: float
    """K, bits."""
    N: int
    R: int
    h: float
    attributes: float
    """E_A, bits of all attributes of a person."""
    relations: float
    """E_R, bits of all relations of a person."""
    A: int = 4

    @property
    def uniform(self) -> float:
        """Bits of loss per question without any fact, one-hop or two-hop."""
        return (self.attributes + self.relations) / (self.A + self.R)


@dataclass(frozen=True)
class Plan:
    storage: str
    """`memorised`: tables of one-hop facts and of two-hop answers. `composed`: every look-up stored, relations twice."""
    one_hop: float
    """Bits of loss per one-hop question."""
    two_hop: float
    loss: float
    """Their mean in the mix of training, a : 1 - a."""


def memorised(load: Load) -> Plan:
    """The best tables: the type with the larger decrease per bit first, then the other (two items of a fractional knapsack)."""
    facts = load.N * (load.attributes + load.relations)
    sizes = {"one_hop": facts, "two_hop": facts * load.R}
    order = sorted(sizes, key=lambda kind: memorised_first(load.R, load.h) != kind)
    left, known = load.capacity, {}
    for kind in order:
        known[kind] = min(left / sizes[kind], 1.0)
        left = max(left - sizes[kind], 0.0)
    return _plan(load, "memorised", *(load.uniform * (1 - known[kind]) for kind in sizes))


def composed(load: Load) -> Plan:
    """Every look-up known alike, I = min(K/H2d, 1) of its bits, H2d = N (E_A + 2 E_R); p = 2^-(loss of a look-up).

    One-hop questions are answered by the second look-up. All answers count as equally likely ones of mean entropy.
    """
    full = load.N * (load.attributes + 2 * load.relations)
    lookup = load.uniform * (1 - min(load.capacity / full, 1.0))
    two_hop = -np.log2(two_hop_probability(2.0**-lookup, 2.0**load.uniform))
    return _plan(load, "composed", lookup, abs(float(two_hop)))


def best(load: Load) -> Plan:
    """The plan of smaller training loss."""
    return min(memorised(load), composed(load), key=lambda plan: plan.loss)


def composition_threshold(load: Load, points: int = 2001) -> float:
    """Smallest capacity from which composing beats tables, over that of one-hop facts, N (E_A + E_R), on a grid up to H2d / H1.

    Says what would be best, not what training finds: for the paper models compose only from 2 to 3 times the one-hop facts.
    """
    facts = load.N * (load.attributes + load.relations)
    ratios = np.linspace(0, 1 + load.N * load.relations / facts, points)
    worse = [best(replace(load, capacity=ratio * facts)).storage == "memorised" for ratio in ratios]
    return float(ratios[np.flatnonzero(worse)[-1] + 1])


def toy_loss(first: np.ndarray, capacity: float, n: int, a: float) -> np.ndarray:
    """Loss in nats for `first` nats on the first hop and capacity - first on the second, of n values each.

    a max(0, ln n - I1 - I2) + (1 - a) (-ln(p1 p2 + (1 - p1)(1 - p2)/n)) with p_i = exp(-max(0, ln n - I_i)).
    """
    p1, p2 = (np.exp(-np.maximum(0, np.log(n) - nats)) for nats in (first, capacity - first))
    return a * max(0.0, np.log(n) - capacity) - (1 - a) * np.log(p1 * p2 + (1 - p1) * (1 - p2) / n)


def toy_optimum(capacity: float, n: int, a: float, points: int = 2001) -> tuple[float, float]:
    """(I1, I2) of least loss on a grid: the middle of the best stretch, which is flat where capacity abounds.

    Of two stretches that mirror each other the one with the smaller I1.
    """
    first = np.linspace(0, capacity, points)
    loss = toy_loss(first, capacity, n, a)
    lowest = np.flatnonzero(loss <= loss.min() + 1e-12)
    stretch = np.split(lowest, np.flatnonzero(np.diff(lowest) > 1) + 1)[0]
    middle = float(first[stretch].mean())
    return middle, capacity - middle


def _plan(load: Load, storage: str, one_hop: float, two_hop: float) -> Plan:
    a = one_hop_share(load.h)
    return Plan(storage, one_hop, two_hop, a * one_hop + (1 - a) * two_hop)
