"""Information content of a run's models under every storage and selection scheme (Johnston & Belrose, arXiv 2502.03490)."""

from dataclasses import dataclass, replace

import numpy as np

from capacity_reasoning.estimators.content import Content, content, two_point_one
from capacity_reasoning.estimators.entropy import SCHEMES, STORAGES, Support, copies_of, subject_entropies
from capacity_reasoning.estimators.two_function import effective_losses, near_chance
from capacity_reasoning.evaluate import BySubject, Trained, by_subject
from capacity_reasoning.examine import ONE_HOP, Losses
from capacity_reasoning.facts.questions import KINDS
from common.config import UserError

TWO_HOP = "train_twohop"
BOTH = "2.1-hop"
"""Two-hop content and the one-hop facts that are not in it, names counted once."""


@dataclass(frozen=True)
class Row:
    """The content of one seed's model."""

    hops: str
    """Questions whose losses it comes from: train_onehop, train_twohop, or both."""
    storage: str
    scheme: str
    found: Content


def storages(trained: Trained) -> dict[str, tuple[str, ...]]:
    """Storages that fit each kind of question that the run trains on: chain of thought reads every fact from one place."""
    two = ("one_hop",) if trained.config.data.cot else STORAGES
    fits = {ONE_HOP: ("one_hop",), TWO_HOP: two, BOTH: two}
    orders = trained.config.mix.orders
    return {hops: fits[hops] for hops, there in ((ONE_HOP, 1 in orders), (TWO_HOP, 2 in orders)) if there} | (
        {BOTH: two} if set(orders) == {1, 2} else {}
    )


def check(trained: Trained, storage: str | None, scheme: str | None) -> None:
    """Raises UserError for a storage or scheme that does not fit the run."""
    known = sorted({name for names in storages(trained).values() for name in names})
    if storage is not None and storage not in known:
        kind = "two hops with chain of thought" if trained.config.data.cot else f"orders {trained.config.mix.orders}"
        raise UserError(
            f"found storage {storage} for a run of {kind}, expected one of {', '.join(known)}; mend: --storage {known[0]}"
        )
    if scheme is not None and scheme not in SCHEMES:
        raise UserError(f"found scheme {scheme}, expected one of {', '.join(SCHEMES)}")


def contents(trained: Trained, most: int | None = None, step: int | None = None) -> list[list[Row]]:
    """Per seed a row for every kind of question, storage and scheme that fits; most: questions of each kind, None for all."""
    fits = storages(trained)
    asked = {hops: trained.losses(hops, most, step) for hops in fits if hops != BOTH}
    rows = []
    for number in range(len(trained.seeds)):
        mine = {hops: losses[number] for hops, losses in asked.items()}
        rows.append([_row(trained, number, mine, hops, storage, scheme, most)
                     for hops, names in fits.items() for storage in names for scheme in SCHEMES])  # fmt: skip
    return rows


def _row(trained: Trained, number: int, losses: dict[str, Losses], hops: str, storage: str, scheme: str, most) -> Row:
    support, classes = trained.support[number], trained.questions[number].classes
    if hops != BOTH:
        found = of_losses(support, losses[hops], hops, storage, scheme, classes, most, trained.config.data.cot)
        return Row(hops, storage, scheme, found)
    two = _row(trained, number, losses, TWO_HOP, storage, scheme, most).found
    one = _row(trained, number, losses, ONE_HOP, "one_hop", scheme, most).found
    return Row(BOTH, storage, scheme, two_point_one(two, one))


def of_losses(
    support: Support, losses: Losses, hops: str, storage: str, scheme: str, classes, most: int | None, cot: bool = False
) -> Content:
    """Content of one model from its losses on one kind of question.

    With chain of thought the loss of a fact is that of the final value, which stands behind the right bridge. A subject that is
    never asked in two hops has no copy in them.
    """
    exhaustive = most is None or len(losses.nats) < most
    value = losses.kinds[:, : KINDS.index("copied")].sum(1) if cot and hops == TWO_HOP else losses.nats
    told = by_subject(losses, support.S, exhaustive, value)
    bits, errors = told.mean / np.log(2), told.error / np.log(2)
    copies = copies_of(support, storage, classes if scheme == "corrected" and hops == TWO_HOP else None)
    copies = np.where(told.count > 0, copies, 0)
    if storage != "double":
        return content(support, bits, scheme, storage, errors, copies)
    entropies = subject_entropies(support, scheme)
    near = near_chance(bits, 2.0**entropies)
    bits, errors = inverted(entropies, losses, told, exhaustive)
    found = content(support, bits, scheme, storage, errors, copies, effective=True)
    return replace(found, suspicious=tuple(near.tolist()))


def inverted(entropies: np.ndarray, losses: Losses, told: BySubject, exhaustive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Effective losses of one look-up by subject (S,) in bits, each question inverted before the mean, and standard errors."""
    s, bits = losses.asked.s.cpu().numpy(), losses.nats / np.log(2)
    means, errors = np.full(len(entropies), np.nan), np.zeros(len(entropies))
    for subject in np.flatnonzero(told.count):
        means[subject], errors[subject] = effective_losses(bits[s == subject], 2.0 ** entropies[subject])
    return means, np.zeros_like(errors) if exhaustive else errors
