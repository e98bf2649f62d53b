"""A smooth curve through noisy values over training, its slope and its uncertainty: a Gaussian process in log(t + 1), constant
x RBF kernel + white noise (paper appendix on stage boundaries, with two additions: the noise, and standardised values)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

BOUNDS = ((1e-3, 1e3), (0.5, 1e3), (1e-6, 10.0))
"""Of the kernel's scale, its length in log(t + 1) (both the authors' bounds), and the noise's variance, in units of the
standardised curve. The authors' fit has no noise, so it follows every error of an estimate."""
STARTS = tuple((1.0, length, noise) for length in (0.7, 1.5, 4.0) for noise in (1e-4, 1e-2, 0.3))


def log_likelihood(theta: np.ndarray, square: np.ndarray, z: np.ndarray, known: np.ndarray) -> tuple[float, np.ndarray]:
    """Log marginal likelihood of a Gaussian process and its gradient (3,).

    theta (3,): logs of scale, length and noise. square (n, n): squared distances. z (n,): values. known (n,): variances that
    are added to the noise's.
    """
    scale, length, noise = np.exp(theta)
    rbf = scale * np.exp(-square / (2 * length**2))
    lower = cholesky(rbf + np.diag(known + noise), lower=True, check_finite=False)
    inverse = cho_solve((lower, True), np.eye(len(z)), check_finite=False)
    alpha = inverse @ z
    value = -0.5 * z @ alpha - np.log(np.diag(lower)).sum() - 0.5 * len(z) * np.log(2 * np.pi)
    pull = (np.outer(alpha, alpha) - inverse) / 2
    return value, np.array([(pull * rbf).sum(), (pull * rbf * square).sum() / length**2, noise * np.trace(pull)])


@dataclass
class Fit:
    """A Gaussian process through a curve y(x), x = log(t + 1): constant x RBF kernel + white noise."""

    x: np.ndarray
    """(n,)."""
    y: np.ndarray
    known: np.ndarray
    """Variance of every y that is known beforehand (n,)."""
    theta: np.ndarray
    """Logs of the kernel's scale, its length, and the noise's variance, of standardised y."""
    likelihood: float
    """Log marginal likelihood of standardised y."""

    @cached_property
    def unit(self) -> tuple[float, float]:
        """Mean and standard deviation of y, the latter 1 where y is constant."""
        return standard(self.y)

    @property
    def noise(self) -> np.ndarray:
        """Variance of every y around the curve (n,), the known part included, in units of y."""
        return self.known + np.exp(self.theta[2]) * self.unit[1] ** 2

    @cached_property
    def _lower(self) -> np.ndarray:
        return cholesky(self.kernel(self.x) + np.diag(self.noise / self.unit[1] ** 2), lower=True)

    @cached_property
    def _alpha(self) -> np.ndarray:
        return cho_solve((self._lower, True), (self.y - self.unit[0]) / self.unit[1])

    def kernel(self, at: np.ndarray) -> np.ndarray:
        """Covariance of the curve at some x and at the data (m, n), of standardised y."""
        scale, length, _ = np.exp(self.theta)
        return scale * np.exp(-((at[:, None] - self.x) ** 2) / (2 * length**2))

    def mean(self, at: np.ndarray) -> np.ndarray:
        """Posterior mean (m,) at x = `at` (m,), in units of y."""
        return self.unit[0] + self.unit[1] * self.kernel(at) @ self._alpha

    def slope(self, at: np.ndarray) -> np.ndarray:
        """Its derivative d mean / d log(t + 1) (m,)."""
        away = self.x - at[:, None]
        return self.unit[1] * (self.kernel(at) * away) @ self._alpha / np.exp(2 * self.theta[1])

    def covariance(self, at: np.ndarray) -> np.ndarray:
        """Posterior covariance of the curve, without noise, (m, m)."""
        scale, length, _ = np.exp(self.theta)
        prior = scale * np.exp(-((at[:, None] - at) ** 2) / (2 * length**2))
        part = solve_triangular(self._lower, self.kernel(at).T, lower=True)
        return self.unit[1] ** 2 * (prior - part.T @ part)

    def slope_covariance(self, at: np.ndarray) -> np.ndarray:
        """Posterior covariance of the derivative (m, m)."""
        scale, length, _ = np.exp(self.theta)
        square = ((at[:, None] - at) / length) ** 2
        prior = scale * np.exp(-square / 2) * (1 - square) / length**2
        away = (self.x - at[:, None]) / length**2
        part = solve_triangular(self._lower, (self.kernel(at) * away).T, lower=True)
        return self.unit[1] ** 2 * (prior - part.T @ part)

    def deviation(self, at: np.ndarray) -> np.ndarray:
        """Standard deviation of the posterior (m,)."""
        return np.sqrt(np.diag(self.covariance(at)).clip(0))


def standard(y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, the latter 1 where all is equal."""
    return float(y.mean()), float(y.std()) if np.ptp(y) > 1e-12 * np.abs(y).max() else 1.0


def smooth(
    steps: Sequence[float], values: Sequence[float], variances: Sequence[float] | None = None, starts=STARTS
) -> Fit:
    """The Gaussian process of largest marginal likelihood through values (T,) at steps (T,); NaN values are left out.

    variances (T,): known ones of the values, such as squared standard errors, NaN as 0. starts: (scale, length, noise) from
    each of which the likelihood is climbed. Raises ValueError for fewer than 3 values.
    """
    y = np.asarray(values, dtype=float)
    there = np.isfinite(y)
    if there.sum() < 3:
        raise ValueError(f"found {there.sum()} values, expected 3 or more")
    x, y = np.log1p(np.asarray(steps, dtype=float)[there]), y[there]
    known = np.zeros_like(y) if variances is None else np.nan_to_num(np.asarray(variances, dtype=float)[there])
    mean, unit = standard(y)
    square, z = (x[:, None] - x) ** 2, (y - mean) / unit
    downhill = lambda theta: tuple(-part for part in log_likelihood(theta, square, z, known / unit**2))  # noqa: E731
    climbs = [minimize(downhill, np.log(s), jac=True, method="L-BFGS-B", bounds=np.log(BOUNDS)) for s in starts]
    best = min(climbs, key=lambda climb: climb.fun)
    return Fit(x, y, known, best.x, -float(best.fun))
