"""Power-law fit of a tail: maximum likelihood, and the cut-off that fits best (Clauset et al. 2009).

The rules are those of the package `powerlaw` 1.5 for continuous data, which made the paper's figures; version 2 bounds alpha.
"""

from typing import NamedTuple

import numpy as np


class PowerLaw(NamedTuple):
    """A power-law tail of a sample."""

    alpha: float
    """Exponent of the density x^-alpha of the tail; the lower, the heavier."""
    xmin: float
    """Where the tail begins."""
    distance: float
    """Kolmogorov-Smirnov distance between the tail and the fit."""
    tail: int
    """Number of values in the tail, those >= xmin."""


NONE = PowerLaw(np.nan, np.nan, np.nan, 0)


def estimate(values) -> PowerLaw:
    """Fit of the positive values of an array of any shape; nan everywhere for fewer than 2 distinct ones, or with a NaN or inf.

    Each distinct value x_min but the largest is tried: alpha = 1 + n / sum ln(x_i / x_min) over the n values x_i >= x_min,
    and D = max |(share of them below x) - 1 + (x / x_min)^(1 - alpha)| over those x. The x_min of the smallest D is
    kept, the lowest one of a tie.
    """
    values = np.ravel(np.asarray(values, dtype=np.float64))
    if not np.isfinite(values).all():
        return NONE
    distinct, below, counts = np.unique(np.sort(values[values > 0]), return_index=True, return_counts=True)
    if len(distinct) < 2:
        return NONE
    tail = counts.sum() - below[:-1]
    # One row per candidate; the part below it is cut off by triu.
    logs = np.triu(np.log(distinct / distinct[:-1, None]))
    alpha = 1 + tail / (counts * logs).sum(1)
    model = 1 - np.exp((1 - alpha[:, None]) * logs)
    empirical = (below - below[:-1, None]) / tail[:, None]
    distance = np.triu(np.abs(model - empirical)).max(1)
    best = int(distance.argmin())
    return PowerLaw(float(alpha[best]), float(distinct[best]), float(distance[best]), int(tail[best]))
