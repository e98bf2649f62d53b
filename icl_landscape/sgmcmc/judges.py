"""What can be wrong with an estimate, in words, and what to change."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icl_landscape.sgmcmc.chains import Trace
from icl_landscape.sgmcmc.estimators import Estimate
from icl_landscape.sgmcmc.settings import Sampling

SATURATED = 0.3
NEAR = 0.05
"""Below the trivial loss by less than this part of it, a loss is no better: the ratio of two small differences is noise."""
FAR = 0.5
STEP_UNSTABLE, STEP_LARGE = 4.0, 0.5
REJECTED = 0.5
NOISY = 0.2
TREND_LEVEL = 0.01
STILL, WALKING = 0.05, 0.5


@dataclass
class Finding:
    """One thing that is wrong with the estimate of one checkpoint."""

    kind: str
    checkpoint: int
    chains: list[int]
    """Numbers of the chains concerned; empty where all are."""
    words: str
    """What was seen, and what it means."""
    change: str
    """What to change."""

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.chains))
        named = f" (chain{'s' * (len(self.chains) > 1)} {numbers})" if numbers else ""
        return f"checkpoint {self.checkpoint}: {self.kind}{named}: {self.words}; {self.change}"


@dataclass
class Health:
    """Numbers behind the findings, (M,) each but the first, NaN where they were not measured."""

    saturation: Tensor
    """(sampled loss - loss of w*) / (trivial loss - loss of w*) of each chain (M, chains): 1 at the trivial predictor."""
    distance: Tensor
    """|w - w*| / |w*|, mean over draws and chains."""
    stability: Tensor
    """epsilon (nbeta lambda_max + gamma + prior): a step of SGLD explodes from 4 on."""
    acceptance: Tensor
    """Metropolis' probability, mean over chains."""
    trend: Tensor
    """LLC in the last quarter of the draws less that in the first, mean over chains."""
    trend_p: Tensor
    """Probability of so large a trend by chance: Student's t over chains."""
    findings: list[Finding]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "no chain diverged, and nothing else was found"


@dataclass
class Case:
    """One checkpoint before its judges."""

    m: int
    health: Health
    trace: Trace
    estimate: Estimate
    settings: Sampling
    trivial: float | None
    epsilon: float
    """Step size of its chains."""

    def finding(self, kind: str, words: str, change: str, chains: Tensor | None = None) -> Finding:
        """chains: (chains,), True for those concerned."""
        named = [] if chains is None else [self.settings.first + int(i) for i in chains.nonzero()[:, 0]]
        return Finding(kind, self.m, named, words, change)


def _diverged(case: Case) -> Finding | None:
    died = case.trace.died.cpu().unflatten(0, (-1, case.trace.chains))[case.m]
    if not (died >= 0).any():
        return None
    words = f"the loss left the finite or exceeded {case.settings.ceiling:g}, first at step {died[died >= 0].min()};"
    words += " left out of the mean"
    return case.finding("diverged", words, f"lower epsilon below {case.epsilon / 4:.2g}", died >= 0)


def _unstable(case: Case) -> Finding | None:
    stability = float(case.health.stability[case.m])
    # A preconditioner rescales the step, so the number does not speak of it.
    if case.settings.method == "rmsprop_sgld" or not stability > STEP_LARGE:
        return None
    kind = "unstable step" if stability >= STEP_UNSTABLE else "large step"
    words = f"epsilon (nbeta lambda_max + gamma) is {stability:.2g}, it explodes from {STEP_UNSTABLE:g} on"
    return case.finding(kind, words, f"lower epsilon to {case.epsilon * STEP_LARGE / stability:.2g}")


def _rejected(case: Case) -> Finding | None:
    share = float(case.health.acceptance[case.m])
    if not share < REJECTED:
        return None
    words = f"a Metropolis test would accept {share:.0%} of the steps, so they do not sample this posterior"
    return case.finding("rejected steps", words, f"lower epsilon below {case.epsilon / 2:.2g}")


def _negative(case: Case) -> Finding | None:
    chains = case.estimate.chains[case.m]
    if not (chains < 0).any():
        return None
    words = f"LLC {case.estimate.mean[case.m]:.3g}, lowest chain {chains[chains < 0].min():.3g}:"
    words += " chains find a loss below that of w*, which is no minimum of it, or whose reference is too noisy"
    return case.finding(
        "negative LLC", words, "raise gamma or lower nbeta, or measure the reference on more data", chains < 0
    )


def _saturated(case: Case) -> Finding | None:
    if case.trivial is None:
        return None
    own, ratios = float(case.estimate.reference[case.m]), case.health.saturation[case.m]
    if own >= (1 - NEAR) * case.trivial:
        words = f"the loss of w* is {own:.4g}, the trivial predictor's {case.trivial:.4g}: saturation cannot be judged"
        return case.finding("no better than trivial", words, "read this LLC with care")
    over = ratios > SATURATED
    if not over.any():
        return None
    words = (
        f"sampled loss {case.estimate.loss[case.m][over].mean():.4g} is {ratios[over].mean():.0%} of the way from w*"
    )
    words += f" ({own:.4g}) to the trivial predictor ({case.trivial:.4g}), so the LLC repeats the loss"
    return case.finding("saturated", words, f"raise gamma above {case.settings.gamma:g}, or lower nbeta", over)


def walking(trace: Trace, settings: Sampling) -> Tensor:
    """How freely chains walk (M,): 0 where their distance from w* rests, 1 where it grows as a random walk's does.

    From the first quarter of the draws to the last, over all chains that live; NaN where there are too few draws to tell.
    """
    size = len(trace.distance) // 4
    start, end = (
        (settings.burn_in + i * settings.every) for i in ((size - 1) / 2, len(trace.distance) - (size + 1) / 2)
    )
    if size == 0 or start <= 0:
        return torch.full((len(trace.norm) // trace.chains,), torch.nan, dtype=torch.float64)
    distance = trace.distance.cpu().double().clone()
    distance[:, trace.died.cpu() >= 0] = torch.nan
    far = distance.unflatten(1, (-1, trace.chains)).nanmean(2)
    growth = far[-size:].mean(0) / far[:size].mean(0)
    # A free walk is at sqrt(steps)
    return (growth - 1) / (math.sqrt(end / start) - 1)


def _still(case: Case) -> Finding | None:
    distance = float(case.health.distance[case.m])
    if not (distance < STILL and walking(case.trace, case.settings)[case.m] > WALKING):
        return None
    words = (
        f"chains are {distance:.1g} |w*| away from w* and nothing has turned them back yet: they have explored nothing,"
    )
    words += " and an LLC near 0 says no more than that"
    room = STEP_LARGE / float(case.health.stability[case.m])
    change = f"raise epsilon to {case.epsilon * room:.2g}" if room > 1 else "raise epsilon, with nbeta and gamma lower"
    return case.finding("hardly moves", words, change)


def _not_local(case: Case) -> Finding | None:
    distance = float(case.health.distance[case.m])
    if not distance > FAR:
        return None
    # At rest the distance goes with 1 / sqrt(gamma).
    gamma = max(case.settings.gamma, 1.0) * (distance / FAR) ** 2
    return case.finding("not local", f"chains are {distance:.2g} |w*| away from w*", f"raise gamma to {gamma:.2g}")


def _drifting(case: Case) -> Finding | None:
    if not case.health.trend_p[case.m] < TREND_LEVEL:
        return None
    trend, steps = float(case.health.trend[case.m]), case.settings.burn_in + case.settings.draws * case.settings.every
    words = f"the LLC {'rises' if trend > 0 else 'falls'} by {abs(trend):.3g} from the first quarter of the draws to the last"
    return case.finding("not burnt in", words, f"raise burn_in to {steps}")


def _noisy(case: Case) -> Finding | None:
    mean, error = abs(float(case.estimate.mean[case.m])), float(case.estimate.error[case.m])
    if not error > NOISY * mean:
        return None
    # The error goes with 1 / sqrt(draws); a hundred times more is no advice.
    more = min(max(2, math.ceil((error / (NOISY * mean)) ** 2)), 100) if mean else 100
    words = f"the standard error over chains is {error:.2g}, the LLC {mean:.2g}"
    paired = "" if case.settings.reference == "paired" else ", or use a paired reference"
    return case.finding("noisy", words, f"raise draws to {case.settings.draws * more} or add chains{paired}")


JUDGES = (_diverged, _unstable, _rejected, _negative, _saturated, _still, _not_local, _drifting, _noisy)
