"""Local learning coefficient and its kin, from the losses that chains leave. All sums in float64: nbeta multiplies their error.

A chain that diverged is left out of every mean.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from icl_landscape.sgmcmc.chains import Trace


@dataclass
class Estimate:
    """Local learning coefficients of M checkpoints, float64 on the CPU; NaN where no chain is left."""

    mean: Tensor
    """(M,)."""
    error: Tensor
    """Standard error over chains (M,); NaN for fewer than two. A full reference's own error comes on top."""
    chains: Tensor
    """Of each chain (M, chains); NaN where it diverged."""
    tokens: Tensor
    """Per token (M, K); their mean is `mean`."""
    tokens_error: Tensor
    """(M, K)."""
    loss: Tensor
    """Mean sampled loss of each chain (M, chains)."""
    reference: Tensor
    """Loss of w* that was subtracted (M,)."""


def reference_loss(loss: Callable[[object], Tensor], batches: Iterable) -> tuple[Tensor, Tensor]:
    """Losses (M, K) of the checkpoints over batches of one size, and the standard error of their mean over K (M,).

    loss: batch -> (M,) or (M, K). To be measured once, before sampling, on far more data than a minibatch.
    """
    with torch.no_grad():
        measured = [loss(batch).cpu().double() for batch in batches]
    values = torch.stack([x.reshape(len(x), -1) for x in measured])
    return values.mean(0), standard_error(values.mean(2), 0)


def standard_error(values: Tensor, dim: int) -> Tensor:
    """Of the mean along `dim`, over entries that are not NaN; NaN for fewer than two."""
    count = values.isfinite().sum(dim)
    spread = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim)
    return torch.where(count > 1, (spread / ((count - 1) * count)).sqrt(), torch.nan)


def chain_means(values: Tensor, trace: Trace) -> Tensor:
    """Means over draws (M, chains, K) of (draws, C, K), NaN where a chain diverged."""
    means = values.cpu().double().mean(0)
    means[trace.died.cpu() >= 0] = torch.nan
    return means.unflatten(0, (-1, trace.chains))


def local_learning_coefficient(trace: Trace, nbeta: float | Tensor, reference: Tensor | None = None) -> Estimate:
    """nbeta (E[loss(w)] - loss(w*)), the mean over draws and chains (Lau et al. 2308.12108, section 4).

    nbeta: a number, or one for each checkpoint (M,). reference: losses (M,) or (M, K) of w* on a large fixed set; where it is
    not given, the paired ones of the trace. Raises ValueError if there is neither.
    """
    if reference is None and trace.reference is None:
        raise ValueError("found no reference loss, expected one, or chains with reference paired")
    sampled = chain_means(trace.losses, trace)
    if reference is None:
        base = chain_means(trace.reference, trace)
    else:
        base = reference.cpu().double().reshape(len(sampled), 1, -1)
    scale = torch.as_tensor(nbeta, dtype=torch.float64).cpu().reshape(-1, 1, 1)
    excess = scale * (sampled - base)
    chains = excess.mean(2)
    return Estimate(
        mean=chains.nanmean(1),
        error=standard_error(chains, 1),
        chains=chains,
        tokens=excess.nanmean(1),
        tokens_error=standard_error(excess, 1),
        loss=sampled.mean(2),
        reference=base.mean(2).nanmean(1),
    )


def wbic(trace: Trace, samples: int) -> Tensor:
    """n E[loss] (M,) in nats if the loss is: Watanabe's (2013) criterion where nbeta = n / ln n."""
    return samples * chain_means(trace.losses, trace).mean(2).nanmean(1)


def singular_fluctuation(trace: Trace, nbeta: float | Tensor) -> Tensor:
    """nbeta / 2 of the mean over samples of the variance over draws of a sample's loss (M,) (Watanabe 2010).

    The parts K of the trace are the losses of a fixed set of samples; variances are within chains.
    """
    spread = trace.losses.cpu().double().var(0)
    spread[trace.died.cpu() >= 0] = torch.nan
    scale = torch.as_tensor(nbeta, dtype=torch.float64).cpu()
    return scale / 2 * spread.unflatten(0, (-1, trace.chains)).mean(2).nanmean(1)


def loss_covariance(trace: Trace) -> Tensor:
    """Covariance over draws of the K losses (M, K, K), within chains."""
    losses = trace.losses.cpu().double()
    centred = (losses - losses.mean(0)).permute(1, 2, 0)
    covariance = centred @ centred.mT / (len(losses) - 1)
    covariance[trace.died.cpu() >= 0] = torch.nan
    return covariance.unflatten(0, (-1, trace.chains)).nanmean(1)
