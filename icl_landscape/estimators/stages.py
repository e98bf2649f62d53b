"""Developmental stages of a curve over training (paper section 3.3): intervals between the plateaus of its smooth fit, zeros of
d lambda / d log t. In a stage of type A the LLC rises, in one of type B it falls."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from icl_landscape.estimators.gaussian_process import Fit, smooth

DIP = 0.5
"""At a plateau between two stages of one type the slope is at most this part of the largest one in each of them."""


@dataclass
class Rule:
    """What counts as a plateau, and as a stage between two."""

    flat: float = 0.1
    """Largest |slope| at a plateau, as part of the curve's largest |slope|."""
    slope: float | None = None
    """The same as a number in units of the curve, in place of `flat`. The authors have 8 for the LLC of regression."""
    sigmas: float = 4.0
    """A stage changes the curve by more standard deviations of that change, as the fit knows it ..."""
    least: float = 0.02
    """... and by more than this part of the fit's range."""
    grid: int = 300
    """Points at which the fit is looked at, in equal distances of log(t + 1)."""


@dataclass
class Stage:
    start: float
    """Step."""
    end: float
    change: float
    """Of the fitted curve."""

    @property
    def type(self) -> str:
        """A: it rises. B: it falls."""
        return "A" if self.change > 0 else "B"


def plateaus(slope: np.ndarray, apart: Callable[[int, int], float], rule: Rule) -> list[int]:
    """Indices of a slope's (G,) local minima of |slope| that are flat enough or where the sign changes, deep ones only.

    apart: standard deviation of the difference of the slopes at two indices. Deep: the largest |slope| on either side, up to
    the next plateau, is larger by DIP and by more than `sigmas` such deviations.
    """
    size = np.abs(slope)
    limit = rule.flat * size.max() if rule.slope is None else rule.slope
    lowest = [i for i in range(1, len(size) - 1) if size[i - 1] > size[i] <= size[i + 1]]
    turns = {i for i in lowest if min(slope[i - 1] * slope[i], slope[i] * slope[i + 1]) < 0}
    found = [i for i in lowest if i in turns or size[i] < limit]

    def shallowness(i: int) -> float:
        near = [0, *found, len(size) - 1]
        place = near.index(i, 1)
        sides = range(near[place - 1], i), range(i + 1, near[place + 1] + 1)
        peaks = [max(side, key=size.__getitem__) for side in sides]
        return max(max(size[i] / size[p] / DIP, _ratio(rule.sigmas * apart(i, p), size[p] - size[i])) for p in peaks)

    while shallow := {i: s for i in found if i not in turns and (s := shallowness(i)) > 1}:
        found.remove(max(shallow, key=shallow.get))
    return found


def stages(fit: Fit, rule: Rule) -> list[Stage]:
    """The stages of a curve, in order, from its first step to its last; none where it does not change.

    Two plateaus without a real change between them are one, in the middle of both. What lies before the first change and
    after the last belongs to the stage beside it.
    """
    grid = np.linspace(fit.x[0], fit.x[-1], rule.grid)
    mean, least = fit.mean(grid), rule.least
    ends = plateaus(fit.slope(grid), lambda a, b: _apart(fit.slope_covariance(grid[[a, b]])), rule)
    ends = [0, *ends, rule.grid - 1]

    def weight(a: int, b: int) -> float:
        """The change from a to b over the least that counts."""
        limit = max(rule.sigmas * _apart(fit.covariance(grid[[a, b]])), least * np.ptp(mean))
        return _ratio(abs(mean[b] - mean[a]), limit)

    while min(weights := [weight(a, b) for a, b in pairwise(ends)]) <= 1:
        if len(weights) == 1:
            return []
        ends = merged(ends, int(np.argmin(weights)))
    at = np.expm1(grid)
    return [Stage(float(at[a]), float(at[b]), float(mean[b] - mean[a])) for a, b in pairwise(ends)]


def merged(ends: list[int], n: int) -> list[int]:
    """Ends without the stage from ends[n] to ends[n + 1]: the first and the last stay, two others become their middle."""
    if n == 0:
        return [ends[0], *ends[2:]]
    if n == len(ends) - 2:
        return [*ends[:n], ends[-1]]
    return [*ends[:n], (ends[n] + ends[n + 1]) // 2, *ends[n + 2 :]]


def _apart(covariance: np.ndarray) -> float:
    """Standard deviation of the difference of two."""
    return float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))


def _ratio(part: float, whole: float) -> float:
    """part / whole; 0 / 0 is 0."""
    return part / whole if whole > 0 else (np.inf if part > 0 else 0.0)


def boundaries(found: Sequence[Stage]) -> list[float]:
    """Steps between the stages."""
    return [stage.end for stage in found[:-1]]


def centred(chains: np.ndarray) -> np.ndarray:
    """LLC of chains (S, T, C) without each chain's own level over training, but for that of all its seed's chains.

    Chains of one number see the same minibatches and noise around every checkpoint, and so share an error that shifts a curve
    as a whole and moves no boundary.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        level = np.nanmean(chains, 1, keepdims=True)
        return chains - level + np.nanmean(level, 2, keepdims=True)


def averages(chains: np.ndarray) -> np.ndarray:
    """LLC (S, T), the mean over chains (S, T, C) without NaN; NaN where none is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(chains, 2)


def variances(chains: np.ndarray) -> np.ndarray:
    """Squared standard error (T,) of a seed's mean over its chains (S, T, C), as seeds have it on average; NaN for one chain.

    Where few chains lie close by chance it is raised to half of its median over checkpoints.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        error = np.nanvar(chains, 2, ddof=1) / np.isfinite(chains).sum(2)
        mean = np.nanmean(np.where(np.isfinite(error), error, np.nan), 0)
        return np.maximum(mean, np.nanmedian(mean) / 2)


def resample(chains: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A curve (T,) from chains (S, T, C) drawn anew: seeds with replacement, and for each and every checkpoint its chains.

    chains: as `centred` leaves them, so that chains of one number at two checkpoints have nothing in common. NaN is left out.
    """
    chains = np.sort(chains[random.integers(len(chains), size=len(chains))], axis=2)  # NaN last
    count = np.isfinite(chains).sum(2, keepdims=True)
    drawn = np.take_along_axis(chains, (random.random(chains.shape) * count).astype(int), axis=2)
    kept = np.arange(chains.shape[2]) < count
    with np.errstate(invalid="ignore"):
        return (np.where(kept, drawn, 0.0).sum(2) / count[:, :, 0]).mean(0)


def bootstrap(
    fit: Fit, steps: Sequence[float], draw: Callable, rule: Rule, resamples: int, seed: int, variances=None
) -> list:
    """How sure the boundaries of a fit are: per boundary {step, low, high, found}.

    draw: random generator -> a curve (T,) drawn anew, which is fitted in its turn, from the likelihood's maximum of `fit`. low,
    high: 95% percentile interval of the step over the draws in which a boundary nearer to this one than to any other or to an
    end was found, None without any; found: the share of those draws.
    """
    random, own = np.random.default_rng(seed), np.log1p(boundaries(stages(fit, rule)))
    edges = np.array([fit.x[0], *own, fit.x[-1]])
    edges = (edges[1:] + edges[:-1]) / 2
    seen = [[] for _ in own]
    for _ in range(resamples if len(own) else 0):
        again = smooth(steps, draw(random), variances, starts=[np.exp(fit.theta)])
        there = np.log1p(boundaries(stages(again, rule)))
        for n, here in enumerate(own):
            if len(near := there[(edges[n] <= there) & (there <= edges[n + 1])]):
                seen[n].append(near[np.abs(near - here).argmin()])
    return [_sureness(here, values, resamples) for here, values in zip(own, seen, strict=True)]


def _sureness(here: float, values: list, resamples: int) -> dict:
    low, high = np.expm1(np.percentile(values, (2.5, 97.5))).tolist() if values else (None, None)
    return {"step": float(np.expm1(here)), "low": low, "high": high, "found": len(values) / max(resamples, 1)}
