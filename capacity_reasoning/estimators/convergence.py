"""When a run has converged, and how far held-out combinations lag behind (Johnston & Belrose, arXiv 2502.03490, and their
measure_capacity). Losses are in nats per question, steps in training steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 15
"""Evaluations over which the derivative is averaged."""
SMOOTHING = 3
"""Such averages in a rolling mean."""


@dataclass(frozen=True)
class Criterion:
    """By default the published one, for runs of 10^7 steps evaluated every 10^5."""

    start: float = 1e6
    """Step before which nothing counts."""
    last: int = 50
    """Evaluations looked at, from the end."""
    threshold: float = 2e-8
    """Largest |derivative| of a converged loss, in nats per step."""


PUBLISHED = Criterion()


def gap(held_out: Sequence[float], trained: Sequence[float]) -> dict:
    """Generalisation gap of losses (T,) of held-out combinations over those trained: {"curve" (T,), "max", "at", "last"}.

    "at": index of the maximum.
    """
    curve = np.asarray(held_out, float) - np.asarray(trained, float)
    at = int(np.argmax(curve))
    return {"curve": curve, "max": float(curve[at]), "at": at, "last": float(curve[-1])}


def rolling_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Means of all full windows: (T,) -> (T - window + 1,)."""
    return np.lib.stride_tricks.sliding_window_view(np.asarray(values, float), window).mean(-1)


def step_of_minimum(steps: Sequence[float], losses: Sequence[float], window: int = 5) -> float:
    """Mean step of the window of evaluations with the smallest mean loss. Raises ValueError for fewer than one window."""
    if len(losses) < window:
        raise ValueError(f"found {len(losses)} evaluations, expected {window} or more")
    return float(rolling_mean(steps, window)[np.argmin(rolling_mean(losses, window))])


def slopes(steps: Sequence[float], losses: Sequence[float], criterion: Criterion) -> tuple[np.ndarray, np.ndarray]:
    """(steps at the ends of windows, smooth derivative of the loss in nats per step); both empty for too few evaluations."""
    steps, losses = np.asarray(steps, float), np.asarray(losses, float)
    late = np.flatnonzero(steps >= criterion.start)[-criterion.last :]
    if len(late) < WINDOW + SMOOTHING - 1:
        return np.empty(0), np.empty(0)
    derivative = np.gradient(losses[late], steps[late])
    return steps[late][WINDOW + SMOOTHING - 2 :], rolling_mean(rolling_mean(derivative, WINDOW), SMOOTHING)


def converged_at(
    steps: Sequence[float], losses: Mapping[str, Sequence[float]], criterion: Criterion = PUBLISHED
) -> float | None:
    """First step from which the loss of every hop type that the run trains stays flat to the end; None if there is none.

    losses: by hop type (T,); a run of one type needs only that one, unlike in the published program, by which such runs never
    converge.
    """
    found = [slopes(steps, curve, criterion) for curve in losses.values()]
    flat = np.all([np.abs(slope) < criterion.threshold for _, slope in found], axis=0)
    if not len(flat) or not flat[-1]:
        return None
    restless = np.flatnonzero(~flat)
    return float(found[0][0][restless[-1] + 1 if len(restless) else 0])


def log_log_regression(steps: Sequence[float], N: Sequence[float], P: Sequence[float]) -> dict:
    """Least squares of log(step) = c + a log N + b log P over runs (n,): {"N", "P"} -> (coefficient, standard error), "R2".

    Raises ValueError for fewer than 4 runs, or if N and P do not vary separately.
    """
    y = np.log(np.asarray(steps, float))
    X = np.stack([np.ones(len(y)), np.log(np.asarray(N, float)), np.log(np.asarray(P, float))], axis=1)
    if len(y) < 4 or np.linalg.matrix_rank(X - [0, *X[:, 1:].mean(0)]) < 3:
        raise ValueError(f"found {len(y)} runs, expected 4 or more of which N and P vary, and not together")
    coefficients, *_ = np.linalg.lstsq(X, y, rcond=None)
    residual = y - X @ coefficients
    variance = residual @ residual / (len(y) - 3)
    errors = np.sqrt(variance * np.diag(np.linalg.inv(X.T @ X)))
    total = ((y - y.mean()) ** 2).sum()
    pairs = [(float(c), float(e)) for c, e in zip(coefficients, errors, strict=True)]
    return {"N": pairs[1], "P": pairs[2], "R2": float(1 - residual @ residual / total) if total > 0 else 1.0}
