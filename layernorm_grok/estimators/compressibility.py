"""How few directions carry the prelogits, or any matrix: ranks and tails of a spectrum (paper Figs 6, 9; appendix D).

The paper's measures are of the eigenvalues lambda of the uncentred Gram G = Z^T Z. Everything is float64, and the
eigenvalues are taken from G itself: from G G^T, as the authors took them, half of the digits are lost.
"""

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from layernorm_grok.estimators import power_law
from layernorm_grok.estimators.times import first

REQ_RANKS = (5, 60)
"""Ranks, from 1, between which `alpha_req` is fitted."""


def eigenvalues(Z: Tensor) -> np.ndarray:
    """Eigenvalues of Z^T Z, ascending, for Z (n, d) -> (d,); NaN where Z is not finite.

    Those that must be 0, for n < d, are exactly 0; rounding below 0 is cut off.
    """
    Z = torch.as_tensor(Z).detach().cpu().double()
    n, d = Z.shape
    if not Z.isfinite().all():
        return np.full(d, np.nan)
    positive = torch.linalg.eigvalsh(Z.mT @ Z if n >= d else Z @ Z.mT).clamp_min(0).numpy()
    return np.concatenate([np.zeros(d - len(positive)), positive])


def effective_rank(eigenvalues: np.ndarray) -> float:
    """exp(-sum p ln p), p = lambda / sum lambda, where p = 0 adds nothing; NaN for a spectrum of zeros."""
    total = eigenvalues.sum()
    return float(np.exp(entr(eigenvalues / total).sum())) if total > 0 else np.nan


def effective_rank_sv(eigenvalues: np.ndarray) -> float:
    """Effective rank of the singular values sqrt(lambda) of Z (Roy and Vetterli 2007)."""
    return effective_rank(np.sqrt(eigenvalues))


def numerical_rank(singular_values: np.ndarray, size: int | None = None) -> float:
    """Singular values above size x 1.2e-7 x the largest, the default tolerance of torch.linalg.matrix_rank in float32.

    size: the larger side of the matrix, by default the number of values. The paper's rank is that of G, whose singular
    values are the lambda.
    """
    largest = singular_values.max()
    if np.isnan(largest):
        return np.nan
    tolerance = (size or len(singular_values)) * np.finfo(np.float32).eps * largest
    return float((singular_values > tolerance).sum())


def stable_rank_original(eigenvalues: np.ndarray) -> float:
    """||G||_F / ||G||_2 = sqrt(sum lambda^2) / lambda_1, what the authors call the stable rank."""
    return _over_largest(np.sqrt(np.square(eigenvalues).sum()), eigenvalues)


def stable_rank(eigenvalues: np.ndarray) -> float:
    """||Z||_F^2 / ||Z||_2^2 = sum lambda / lambda_1, the usual definition."""
    return _over_largest(eigenvalues.sum(), eigenvalues)


def _over_largest(value: float, eigenvalues: np.ndarray) -> float:
    return float(value / eigenvalues.max()) if eigenvalues.max() > 0 else np.nan


def alpha_pl(eigenvalues: np.ndarray) -> float:
    """Exponent of the power-law tail of the density of lambda, the paper's alpha; lower is more compressible."""
    return power_law.estimate(eigenvalues).alpha


def alpha_req(eigenvalues: np.ndarray) -> float:
    """a of lambda_i ~ i^-a by least squares on logarithms over REQ_RANKS, or what there is of them (Agrawal et al. 2022).

    For an exact power law alpha_pl = 1 + 1/a. NaN with fewer than 2 positive eigenvalues among those ranks.
    """
    first, last = REQ_RANKS
    chosen = np.sort(eigenvalues)[::-1][first - 1 : last]
    chosen = chosen[chosen > 0]
    if len(chosen) < 2:
        return np.nan
    return -float(
        np.polynomial.Polynomial.fit(np.log(np.arange(first, first + len(chosen))), np.log(chosen), 1).deriv()(0)
    )


MEASURES = (
    effective_rank, effective_rank_sv, numerical_rank, stable_rank_original, stable_rank, alpha_pl, alpha_req
)  # fmt: skip


def spectrum(Z: Tensor) -> dict[str, float]:
    """Every measure above, by name, of prelogits Z (n, d); NaN where Z is not finite."""
    values = eigenvalues(Z)
    return {measure.__name__: measure(values) for measure in MEASURES}


def within(values, steps, factor: float = 1.1, after: int = 200) -> int | None:
    """First step >= after at which a curve (T,) is at most `factor` times its own minimum over those steps (Fig 6c).

    For the paper's statistic give the mean curve over seeds. NaN is passed over; None where nothing else is left.
    """
    late = np.asarray(steps) >= after
    values, steps = np.asarray(values, dtype=float)[late], np.asarray(steps)[late]
    return first(steps, values <= factor * np.fmin.reduce(values, initial=np.nan))
