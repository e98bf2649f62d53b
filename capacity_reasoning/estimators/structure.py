"""Bits of relations that follow laws: inverse pairs and symmetric relations, which a model could store at half the cost or less
(the future work of Johnston & Belrose, arXiv 2502.03490, on bipartite relations)."""

import math
from collections.abc import Mapping, Sequence

from scipy.special import gammaln

from capacity_reasoning.estimators.entropy import log2_binomial


def log2_factorial(n: float) -> float:
    return float(gammaln(n + 1) / math.log(2))


def log2_double_factorial(n: int) -> float:
    """log2 of n!! = n (n - 2) (n - 4) ...: 2^k k! for n = 2k, (2k)! / (2^k k!) for n = 2k - 1."""
    half = (n + 1) // 2
    even = half + log2_factorial(half)
    return even if n % 2 == 0 else log2_factorial(n + 1) - even


def matching_bits(N: int) -> float:
    """log2 (N - 1)!! of a symmetric relation: perfect matchings of N people. Raises ValueError for odd N."""
    if N % 2:
        raise ValueError(f"found odd N {N}, expected an even number of people to match in pairs")
    return log2_double_factorial(N - 1)


def inverse_pair_bits(N: int) -> float:
    """log2 of the permutations of N > 1 people without fixed points, in bits: both relations of an inverse pair together.

    Their number is N!/e to the nearest whole number, which for N > 18 is N!/e to the last digit of a double.
    """
    if N < 2:
        raise ValueError(f"found N {N}, expected 2 or more: one person alone is a fixed point")
    return math.log2(round(math.factorial(N) / math.e)) if N <= 18 else log2_factorial(N) - 1 / math.log(2)


def bipartite_classic_bits(N: int) -> float:
    """Half of the people are parents of one of the other half each; friends and enemies are matchings."""
    return log2_binomial(N, N // 2) + log2_factorial(N // 2) + 2 * matching_bits(N)


def structured_bits(N: int, relations: Sequence[str], inverse: Mapping[str, str]) -> dict[str, float]:
    """Bits of all relations together: {"structured", "naive"}; naive: N log2 N each, as if uniform and independent.

    inverse: the relation that undoes each, itself for a symmetric one, none for a uniform one (`facts.people.INVERSE`). A pair
    of which only one is among the relations costs what both do.
    """
    naive, bits, paid = N * math.log2(N), 0.0, set()
    for relation in relations:
        other = inverse.get(relation)
        if other is None:
            bits += naive
        elif other == relation:
            bits += matching_bits(N)
        elif other not in paid:
            bits += inverse_pair_bits(N)
        paid.add(relation)
    return {"structured": bits, "naive": naive * len(relations)}
