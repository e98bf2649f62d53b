"""Whether an estimate means what it says: the numbers that tell, and in words what is wrong and what to change.

Saturation: chains that reach the loss of a predictor which ignores its input (D + sigma^2 = 4.125 for in-context regression)
measure how far below it w* is, not how degenerate w* is. Locality: the posterior meant is that around w*, so chains stay near.
"""

import scipy.stats
import torch
from torch import Tensor

from icl_landscape.sgmcmc.chains import Trace
from icl_landscape.sgmcmc.estimators import Estimate, standard_error
from icl_landscape.sgmcmc.judges import JUDGES, NEAR, Case, Health
from icl_landscape.sgmcmc.settings import Sampling

PARTS_OF_TREND = 4


def examine(
    trace: Trace,
    estimate: Estimate,
    settings: Sampling,
    trivial: float | None = None,
    sharpness: Tensor | None = None,
    acceptance: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Health:
    """Health of the M estimates.

    trivial: loss of the predictor that ignores its input. sharpness: largest eigenvalue of the Hessian of the loss at w* (M,).
    acceptance: (C,), see `Chains.acceptance`. What is not given is not judged.
    epsilon: (M,), where it differs from the settings'.
    """
    unknown = torch.full_like(estimate.mean, torch.nan)
    size = torch.full_like(estimate.mean, settings.epsilon) if epsilon is None else epsilon.cpu().double()
    trend, trend_p = _trend(trace, settings.nbeta)
    health = Health(
        saturation=torch.full_like(estimate.chains, torch.nan) if trivial is None else _saturation(estimate, trivial),
        distance=_distance(trace),
        stability=unknown if sharpness is None else size * _stiffness(settings, sharpness),
        acceptance=unknown if acceptance is None else _by_checkpoint(acceptance, trace).nanmean(1),
        trend=trend,
        trend_p=trend_p,
        findings=[],
    )
    cases = [Case(m, health, trace, estimate, settings, trivial, float(size[m])) for m in range(len(size))]
    health.findings += [found for case in cases for judge in JUDGES if (found := judge(case))]
    return health


def _stiffness(settings: Sampling, sharpness: Tensor) -> Tensor:
    """nbeta lambda_max + gamma + prior (M,)."""
    return settings.nbeta * sharpness.cpu().double() + settings.gamma + settings.prior


def _by_checkpoint(values: Tensor, trace: Trace) -> Tensor:
    """(C,) as (M, chains) in float64, NaN where a chain diverged."""
    values = values.cpu().double().clone()
    values[trace.died.cpu() >= 0] = torch.nan
    return values.unflatten(0, (-1, trace.chains))


def _saturation(estimate: Estimate, trivial: float) -> Tensor:
    """(M, chains), NaN for a w* that is hardly better than the trivial predictor itself."""
    own = estimate.reference[:, None]
    ratio = (estimate.loss - own) / (trivial - own)
    return ratio.masked_fill(own >= (1 - NEAR) * trivial, torch.nan)


def _distance(trace: Trace) -> Tensor:
    return _by_checkpoint(trace.distance.double().mean(0) / trace.norm, trace).nanmean(1)


def _trend(trace: Trace, nbeta: float) -> tuple[Tensor, Tensor]:
    """Quarters and not a fitted slope: a chain that has only just come to rest shows in both, but quarters read as an LLC."""
    losses = trace.losses if trace.reference is None else trace.losses - trace.reference
    losses = losses.cpu().double().mean(2)
    size = max(len(losses) // PARTS_OF_TREND, 1)
    change = nbeta * _by_checkpoint(losses[-size:].mean(0) - losses[:size].mean(0), trace)
    free = (change.isfinite().sum(1) - 1).clamp(min=1)
    t = change.nanmean(1) / standard_error(change, 1)
    return change.nanmean(1), torch.as_tensor(2 * scipy.stats.t.sf(t.abs().numpy(), free.numpy()))
