"""Capacity ratios of biographies, in bits per parameter (Allen-Zhu & Li, arXiv 2404.05405: bit complexity lower bound, capacity
ratio). Losses p1, p2, p3 are sums over the tokens of a name or a value, in nats, as in that paper."""

import math
from dataclasses import dataclass

from capacity_reasoning.estimators.entropy import log2_binomial

NAT = 1 / math.log(2)
"""In bits."""


@dataclass(frozen=True)
class BioS:
    """Biographies of N people with a pronoun and five attributes (bioS)."""

    N: int
    N0: float = 400 * 400 * 1000
    """Full names that could be drawn."""
    S0: float = 2 * (12 * 28 * 200) * 200 * 300 * 100 * 263
    """Values that a person could have, 47.6 bits: pronoun, birth date, birth city, university, major, employer."""

    @property
    def bits(self) -> float:
        """N log2(N0/N) + N log2 S0, of all facts."""
        return self.N * (math.log2(self.N0 / self.N) + math.log2(self.S0))

    def capacity(self, name: float, values: float) -> float:
        """N log2(N0/e^p1) + N log2(S0/e^p2) in bits, of losses in nats of a name (p1) and of all values of a person (p2)."""
        return self.N * (math.log2(self.N0) + math.log2(self.S0) - (name + values) * NAT)


@dataclass(frozen=True)
class BioD:
    """Synthetic facts (bioD): K attributes whose values are C chunks, each one of D strings of L tokens from T."""

    N: int
    K: int
    C: int
    D: int
    L: int
    T: int
    N0: float

    @property
    def strings(self) -> float:
        """log2 T^L, of one chunk's possible strings."""
        return self.L * math.log2(self.T)

    @property
    def bits(self) -> float:
        """N log2(N0/N) + N K C log2 D + K D log2(T^L/D)."""
        facts = self.N * (math.log2(self.N0 / self.N) + self.K * self.C * math.log2(self.D))
        return facts + self.K * self.D * (self.strings - math.log2(self.D))

    @property
    def upper_bound(self) -> float:
        """log2 C(N0, N) + N K C log2 D + K log2 C(T^L, D): what any store of the dataset needs on average."""
        diversity = self.K * log2_binomial(float(self.T) ** self.L, self.D)
        return log2_binomial(self.N0, self.N) + self.N * self.K * self.C * math.log2(self.D) + diversity

    def capacity(self, name: float, value: float, chunk: float) -> float:
        """N log2(N0/e^p1) + N K log2(D^C/e^p2) + K D log2(T^L/(D e^p3)) in bits.

        Losses in nats: of a name (p1), of one attribute's value (p2), of a value's first chunk (p3).
        """
        names = self.N * (math.log2(self.N0) - name * NAT)
        values = self.N * self.K * (self.C * math.log2(self.D) - value * NAT)
        return names + values + self.K * self.D * (self.strings - math.log2(self.D) - chunk * NAT)


def capacity_ratios(dataset: BioS | BioD, P: int, *losses: float) -> tuple[float, float]:
    """R(F) of a model of P parameters with these losses (nats), and R_max, of one that knows all: bits per parameter.

    One that knows all still has a loss of ln N for names: nothing before a name tells whose it is.
    """
    return dataset.capacity(*losses) / P, dataset.bits / P
