"""When a run fits and when it generalises, and how to compare such times over seeds (paper Figs 1, 4, 5).

Times are steps, None for never. A never is a right-censored time: all that is known is that it lies beyond the last step of
that seed (`censored_at`, one step for all or one per seed). It is never dropped without being counted.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Time = float | None
Limit = float | Sequence[float]

LOSS = 0.01
"""Loss (nats) that counts as fitted, and in the paper's statistics as generalised."""
MEAN_ACCURACY = 0.995
"""Mean test accuracy of the paper's `gen_acc`."""


def first(steps, reached) -> int | None:
    """First of the steps (T,) at which a condition (T,) is met."""
    steps = np.asarray(steps)[reached]
    return int(steps[0]) if steps.size else None


def sustained(steps, accuracy, level: float = 0.99, in_a_row: int = 3) -> int | None:
    """First of the first `in_a_row` evaluations with accuracy >= level; a row that the end cuts short is none."""
    good = np.asarray(accuracy, dtype=float) >= level
    if len(good) < in_a_row:
        return None
    return first(steps[: len(steps) - in_a_row + 1], sliding_window_view(good, in_a_row).all(1))


def carried(values) -> np.ndarray:
    """Curves (S, T) with NaN replaced by the seed's last value before it; NaN stays where there is none."""
    values = np.asarray(values, dtype=float)
    known = np.where(np.isnan(values), 0, np.arange(values.shape[1]))
    return np.take_along_axis(values, np.maximum.accumulate(known, axis=1), axis=1)


def conventions(steps, train_loss, test_loss, test_accuracy, t_train: list[int | None]) -> dict:
    """Every definition of the times, from curves (S, T) over steps (T,) that are NaN once a seed has stopped.

    Per seed: t_train, as given by training, which sees every step; t_gen, `sustained`, by which claims are judged; first, the
    first touch of 0.99, which one lucky evaluation can be.
    The paper's, of one curve over seeds: gen_loss, gen_loss_min and gen_loss_max (mean, lowest and highest test loss at
    most 0.01), train_loss (mean train loss at most 0.01), gen_acc (mean test accuracy at least 0.995), max_acc (highest
    test accuracy 1). The slowest or the fastest seed sets them. A seed that has stopped keeps its last value in them, so
    one that stopped above 0.01 holds the mean up for good: the paper's numbers need runs that nothing stops.
    """
    train, test, accuracy = carried(train_loss), carried(test_loss), carried(test_accuracy)
    return {
        "t_train": list(t_train),
        "t_gen": [sustained(steps, row) for row in test_accuracy],
        "first": [first(steps, np.asarray(row) >= 0.99) for row in test_accuracy],
        "gen_loss": first(steps, test.mean(0) <= LOSS),
        # fmin and fmax pass over a seed without values; the highest loss and the means do not.
        "gen_loss_min": first(steps, np.fmin.reduce(test) <= LOSS),
        "gen_loss_max": first(steps, test.max(0) <= LOSS),
        "train_loss": first(steps, train.mean(0) <= LOSS),
        "gen_acc": first(steps, accuracy.mean(0) >= MEAN_ACCURACY),
        "max_acc": first(steps, np.fmax.reduce(accuracy) >= 1.0),
    }


def _observed(times: Sequence[Time], censored_at: Limit) -> tuple[np.ndarray, np.ndarray]:
    """(time or, for None, the limit (S,), whether it is a time (S,))."""
    time = np.array(times, dtype=float)
    known = ~np.isnan(time)
    return np.where(known, time, censored_at), known


def kaplan_meier(times: Sequence[Time], censored_at: Limit) -> tuple[np.ndarray, np.ndarray]:
    """Distinct times (E,), ascending, and the estimated share of seeds still to come just after each (E,).

    A seed censored at a step at which others come counts among those still to come there (Kaplan and Meier 1958).
    """
    time, known = _observed(times, censored_at)
    events, count = np.unique(time[known], return_counts=True)
    at_risk = (time[:, None] >= events).sum(0)
    return events, np.cumprod(1 - count / at_risk)


def quantile(times: Sequence[Time], censored_at: Limit, share: float = 0.5) -> Time:
    """First time by which the share has come, by Kaplan-Meier (of an even number the lower median); None if it never does."""
    events, survival = kaplan_meier(times, censored_at)
    # The product of fractions may miss 1 - share by its rounding.
    reached = events[survival <= 1 - share + 1e-12]
    return float(reached[0]) if reached.size else None


def bootstrap_median(
    times: Sequence[Time], censored_at: Limit, seed: int = 0, draws: int = 2000, coverage: float = 0.95
) -> tuple[Time, Time]:
    """Percentile interval of the median (`quantile`) over seeds drawn with replacement; an end is None beyond what is observed.

    (None, None) for fewer than 2 seeds, which say nothing of how seeds differ.
    """
    n = len(times)
    if n < 2:
        return None, None
    limits = np.broadcast_to(np.asarray(censored_at, dtype=float), n)
    chosen = np.random.default_rng(seed).integers(n, size=(draws, n))
    medians = [quantile([times[i] for i in row], limits[row]) for row in chosen]
    medians = np.array([np.inf if t is None else t for t in medians])
    tails = [(1 - coverage) / 2, (1 + coverage) / 2]
    low, high = np.quantile(medians, tails, method="inverted_cdf")
    return tuple(float(t) if np.isfinite(t) else None for t in (low, high))


def concordance(
    times_a: Sequence[Time], times_b: Sequence[Time], censored_a: Limit = np.inf, censored_b: Limit = np.inf
) -> dict:
    """Probability that a < b over all pairs of a seed of a and a seed of b, a tie counting 1/2 (Harrell's convention).

    A pair is known where both times are, or where the one that is comes no later than the other's limit; without limits, as
    where all seeds had one budget, never is later than any time. Unknown pairs, two that never came among them, are left
    out of `probability` (None if no pair is known), so `known` < `pairs` then.
    """
    (a, a_known), (b, b_known) = _observed(times_a, censored_a), _observed(times_b, censored_b)
    a, a_known = a[:, None], a_known[:, None]
    before = a_known & ((a < b) | ((a == b) & ~b_known))
    after = b_known & ((b < a) | ((a == b) & ~a_known))
    ties = a_known & b_known & (a == b)
    known = int((before | after | ties).sum())
    score = before.sum() + ties.sum() / 2
    return {"probability": float(score / known) if known else None, "known": known, "pairs": before.size}


def paired(times_a: Sequence[Time], times_b: Sequence[Time]) -> dict:
    """Two conditions on the same seeds: two-sided p-values of the sign test and of Wilcoxon's signed ranks, without ties.

    Only seeds with both times known are compared (`pairs`; the others are counted as `left_out`): `earlier` of them have
    a < b, `later` a > b, and `difference` is the median of a - b in steps. p-values are None where nothing differs.
    """
    from scipy import stats

    both = [(a, b) for a, b in zip(times_a, times_b, strict=True) if a is not None and b is not None]
    gaps = np.array([a - b for a, b in both], dtype=float)
    earlier, later = int((gaps < 0).sum()), int((gaps > 0).sum())
    moved = gaps[gaps != 0]
    return {
        "pairs": len(both),
        "left_out": len(times_a) - len(both),
        "earlier": earlier,
        "later": later,
        "difference": float(np.median(gaps)) if len(gaps) else None,
        "sign_p": float(stats.binomtest(earlier, earlier + later).pvalue) if len(moved) else None,
        "wilcoxon_p": float(stats.wilcoxon(moved).pvalue) if len(moved) else None,
    }
