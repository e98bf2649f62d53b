"""Two-hop answers by two look-ups, and back: from the loss of an answer to that of one look-up (Johnston & Belrose,
arXiv 2502.03490, two-function composition).

Each look-up succeeds with probability p, guesses included, among n equally likely answers; a wrong bridge still leads to the
right answer with probability 1/n: P2 = p^2 + (1 - p)/n. Losses are in bits; arrays broadcast.
"""

import numpy as np
from numpy.typing import ArrayLike

NEAR_CHANCE = 0.97
"""Above this part of log2 n a two-hop loss says little: for n = 100 a loss 0.7% under chance reads as 1.2 bits known."""


def two_hop_probability(p: ArrayLike, n: ArrayLike) -> np.ndarray:
    """P2 of an answer behind two look-ups that succeed with probability p."""
    p = np.asarray(p, float)
    return p**2 + (1 - p) / n


def lookup_probability(P2: ArrayLike, n: ArrayLike) -> np.ndarray:
    """p of one look-up, in [1/n, 1]: inverse of `two_hop_probability`, 1/n where P2 is at chance or below it."""
    n = np.asarray(n, float)
    square = 1 / n**2 - 4 / n + 4 * np.asarray(P2, float)
    return np.clip((1 / n + np.sqrt(np.maximum(square, 0))) / 2, 1 / n, 1)


def effective_loss(loss: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Bits of loss of one look-up behind a two-hop loss (bits per answer), at most log2 n.

    Losses above chance count as chance, as published: a model that is sure and wrong looks like one that knows nothing.
    """
    return np.abs(np.log2(lookup_probability(np.exp2(-np.asarray(loss, float)), n)))


def derivative(loss: ArrayLike, n: ArrayLike) -> np.ndarray:
    """d effective loss / d two-hop loss: about 1/2 for a loss of 0, n just under chance, 0 above it."""
    loss, n = np.asarray(loss, float), np.asarray(n, float)
    P2 = np.exp2(-loss)
    p = lookup_probability(P2, n)
    return np.where(loss < np.log2(n), P2 / (p * (2 * p - 1 / n)), 0.0)


def propagated_error(loss: ArrayLike, error: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Standard error of the effective loss: half its change over loss +- error.

    |derivative| * error where that is small; near chance, where the derivative jumps from n to 0, what the data allow.
    """
    loss, error = np.asarray(loss, float), np.asarray(error, float)
    return (effective_loss(loss + error, n) - effective_loss(np.maximum(loss - error, 0), n)) / 2


def near_chance(loss: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Where a two-hop loss is too close to log2 n, or above it, for its inversion to be believed."""
    return np.asarray(loss, float) > NEAR_CHANCE * np.log2(n)


def effective_losses(losses: np.ndarray, n: float) -> tuple[float, float]:
    """Mean effective loss of the questions of a subject and its standard error; losses (Q,) in bits.

    Each question is inverted before the mean: inverting the mean loss is biased, the inversion being far from linear.
    """
    lookups = effective_loss(losses, n)
    error = np.std(lookups, ddof=1) / np.sqrt(len(lookups)) if len(lookups) > 1 else np.nan
    return float(np.mean(lookups)), float(error)
