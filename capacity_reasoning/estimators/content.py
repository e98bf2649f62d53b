"""Information content: the bits that a model's weights must hold for it to answer as it does (Johnston & Belrose,
arXiv 2502.03490, section on information content; their measure_capacity).

C = Sel + sum_s copies_s (H_s - loss_s): the weights and the losses together let one decode every answer, so the weights hold at
least the difference. Losses are in bits per question, summed over the answer's tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from capacity_reasoning.estimators.entropy import (
    Support,
    baseline_bits,
    copies_of,
    dataset_bits,
    selection_bits,
    subject_entropies,
)
from capacity_reasoning.estimators.two_function import effective_loss, near_chance, propagated_error


@dataclass(frozen=True)
class Content:
    bits: float
    """Of all subjects, the selection of names and dates included."""
    error: float
    """Standard error of `bits`."""
    per_subject: np.ndarray
    """Share of each subject (S,), in bits; sums to `bits`."""
    suspicious: tuple[bool, ...]
    """Subjects whose two-hop loss is too close to chance to be inverted (S,)."""
    selection: np.ndarray
    """Part of `per_subject` that pays for names and dates (S,)."""
    dataset: float
    """Bits of the whole database under the same storage: the most that `bits` can be."""


def content(
    support: Support,
    losses: Sequence[float],
    scheme: str,
    storage: str = "one_hop",
    errors: Sequence[float] | None = None,
    copies: Sequence[float] | None = None,
    effective: bool = False,
) -> Content:
    """Information content from mean losses (S,) in bits per question and their standard errors (S,), 0 if None.

    storage `double` takes two-hop losses and turns each into that of a look-up, unless `effective` says that this was done
    (question by question, which is better: `two_function.effective_losses`). copies (S,): stored copies in place of the
    published ones, as `entropy.copies_of` gives; the loss of a subject without any may be NaN.
    Raises ValueError for losses that are not one per subject, and for unknown schemes and storages.
    """
    losses = np.asarray(losses, float)
    if losses.shape != (support.S,):
        raise ValueError(f"found losses of shape {losses.shape}, expected one per subject: ({support.S},)")
    entropies, selection = subject_entropies(support, scheme), _selection(support, scheme)
    copies = copies_of(support, storage) if copies is None else np.asarray(copies, float)
    errors = np.zeros(support.S) if errors is None else np.asarray(errors, float)
    suspicious = np.zeros(support.S, bool)
    if storage == "double" and not effective:
        n = np.exp2(entropies)
        suspicious = near_chance(losses, n)
        losses, errors = effective_loss(losses, n), propagated_error(losses, errors, n)
    stored = copies > 0
    per_subject = selection + np.where(stored, copies * (entropies - losses), 0.0)
    return Content(
        bits=float(per_subject.sum()),
        error=float(np.linalg.norm(np.where(stored, copies * errors, 0.0))),
        per_subject=per_subject,
        suspicious=tuple(suspicious.tolist()),
        selection=selection,
        dataset=dataset_bits(support, scheme, storage, copies),
    )


def two_point_one(two_hop: Content, one_hop: Content) -> Content:
    """Content of a model that stores two-hop answers and one-hop facts apart, and the names once."""
    return Content(
        bits=two_hop.bits + one_hop.bits - float(one_hop.selection.sum()),
        error=float(np.hypot(two_hop.error, one_hop.error)),
        per_subject=two_hop.per_subject + one_hop.per_subject - one_hop.selection,
        suspicious=tuple(a or b for a, b in zip(two_hop.suspicious, one_hop.suspicious, strict=True)),
        selection=two_hop.selection,
        dataset=two_hop.dataset + one_hop.dataset - float(one_hop.selection.sum()),
    )


def bits_per_parameter(found: Content, P: int) -> tuple[float, float]:
    """Content over all P trainable parameters, embeddings and readout included, and its standard error."""
    return found.bits / P, found.error / P


def flatness(points: Sequence[float]) -> tuple[float, float]:
    """Coefficient of variation of bits per parameter over a grid of runs (n,), and its jackknife standard error.

    The smaller, the better the scheme describes what models do. Raises ValueError for fewer than 3 points.
    """
    points = np.asarray(points, float)
    if len(points) < 3:
        raise ValueError(f"found {len(points)} points, expected 3 or more")
    variation = lambda values: np.std(values, ddof=1) / np.mean(values)  # noqa: E731
    without = np.array([variation(np.delete(points, i)) for i in range(len(points))])
    error = np.sqrt((len(points) - 1) * np.mean((without - without.mean()) ** 2))
    return float(variation(points)), float(error)


def as_published(support: Support, mean_loss: float, scheme: str, mult: float = 1) -> float:
    """Content by the published formula for a loss averaged over subjects (bits); mult: R for big_hash on two-hop losses.

    Where the loss exceeds the entropy the excess is not multiplied, unlike in `content`.
    """
    surplus = subject_entropies(support, scheme).sum() - support.S * mean_loss
    return float((mult if surplus > 0 else 1) * support.N * surplus + baseline_bits(support, scheme))


def per_subject_as_published(support: Support, losses: Sequence[float], scheme: str, mult: float = 1) -> np.ndarray:
    """Content of each subject (S,) by the published program, its defect included; losses (S,) in bits.

    For a relation whose loss exceeds its entropy the excess is divided by R along with the names, so the sum over subjects is
    above what the same program finds from the averaged loss. `content` is right in both cases.
    """
    surplus = subject_entropies(support, scheme) - np.asarray(losses, float)
    relation = np.arange(support.S) >= support.A
    factor = np.where(surplus > 0, mult, np.where(relation, 1 / support.R, 1))
    return _selection(support, scheme) + factor * support.N * surplus


def _selection(support: Support, scheme: str) -> np.ndarray:
    """Bits of selection by subject (S,): names spread over the relations, dates with the birth date."""
    bits = selection_bits(support, scheme)
    shares = np.repeat([0.0, bits["names"] / support.R], [support.A, support.R])
    shares[0] = bits["dates"]
    return shares
