"""How periodic an embedding table is in its tokens: concentration of its Fourier spectrum (paper Fig 2b)."""

import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to the denominator of C_F."""


def amplitudes(embedding: Tensor) -> np.ndarray:
    """|rfft| over the tokens of W_E[0:P] (P, d) -> (P // 2 + 1, d), float64; row 0 is the mean (DC)."""
    return np.abs(np.fft.rfft(torch.as_tensor(embedding).detach().cpu().double().numpy(), axis=0))


def concentration(embedding: Tensor, dc: bool = True) -> float:
    """C_F = Var_k(mu_k) / (mean_kj (F_kj - mu_k)^2 + 1e-8), F the amplitudes of (P, d), mu_k their mean over columns.

    Population variances. Of white noise it is about 1/d plus what DC adds: 0.0084 on average at (113, 128), where the
    paper's five runs start from 0.0089. dc: with row 0, as in the paper. Only the 1e-8 lets the scale matter.
    """
    F = amplitudes(embedding)[0 if dc else 1 :]
    return float(F.mean(1).var() / (F.var(1).mean() + EPSILON))


def power(embedding: Tensor) -> np.ndarray:
    """sum_j F_kj^2 of every frequency k = 1 .. P // 2, without DC: (P, d) -> (P // 2,)."""
    return np.square(amplitudes(embedding)[1:]).sum(1)


def key_frequency_share(embedding: Tensor, top: int = 5) -> float:
    """Power of the `top` strongest frequencies over that of all (P, d): top / (P // 2) where equal, 1 where that is all.

    NaN where there is no power.
    """
    ordered = np.sort(power(embedding))[::-1]
    return float(ordered[:top].sum() / ordered.sum()) if ordered.sum() > 0 else np.nan


def gini(embedding: Tensor) -> float:
    """Gini coefficient of the power of the n frequencies (P, d): 0 where all have the same, 1 - 1/n where one has it all.

    NaN where there is no power.
    """
    ordered = np.sort(power(embedding))
    n, total = len(ordered), ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total > 0 else np.nan
