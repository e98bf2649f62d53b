"""Local learning coefficients of a run's checkpoints: chains on in-context regression, and whether to trust them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from common.config import UserError
from common.device import free_memory, generator
from common.limits import Amount, Count, Natural
from common.progress import Progress
from common.replicas import Replicas
from icl_landscape.evaluate import Probe, Trained
from icl_landscape.regression.data import Batch, sample, sample_stack
from icl_landscape.regression.gradient import by_hand, losses
from icl_landscape.regression.losses import objective, subsequence_weights, token_losses
from icl_landscape.sgmcmc.chains import Chains, Trace, rows
from icl_landscape.sgmcmc.estimators import Estimate, local_learning_coefficient, reference_loss
from icl_landscape.sgmcmc.health import examine
from icl_landscape.sgmcmc.judges import Health
from icl_landscape.sgmcmc.settings import Minibatches, Sampling, mask

PART = 256
"""Sequences at a time where a loss is measured on many."""


@dataclass
class Landscape(Probe):
    """Settings of an experiment that samples around checkpoints."""

    sampling: Sampling = field(default_factory=Sampling)
    samples: Natural = 0
    """Sequences in the fixed set that minibatches are drawn from; 0: fresh ones at every step."""
    loss: Literal["mse", "subsequence"] = "mse"
    """What is sampled and estimated: the mean over all tokens, or over a prefix of random length."""
    stability: Amount = 0.0
    """Step size of each checkpoint, as stability / (nbeta lambda_max + gamma); 0: sampling.epsilon for all."""
    sharpness: Natural = 256
    """Sequences on which lambda_max, the largest eigenvalue of the loss's Hessian, is measured; 0: it is not."""
    iterations: Count = 12
    """Power iterations for lambda_max."""
    acceptance: Natural = 0
    """Steps after the last draw on which Metropolis' acceptance is measured; 0: it is not."""
    reference: Count = 2**15
    """Sequences on which the loss of w* is measured, where sampling.reference is full and minibatches are fresh."""

    def __post_init__(self):
        if self.stability and not self.sharpness:
            raise ValueError(
                f"found stability {self.stability} and sharpness 0, expected sequences to measure lambda_max on"
            )
        if self.sampling.batch == 0 and self.samples == 0:
            raise ValueError(
                "found sampling.batch 0 (all of a set) and samples 0 (no set), expected one of them above 0"
            )
        if self.acceptance and (self.sampling.method != "sgld" or self.sampling.box):
            raise ValueError(
                f"found acceptance {self.acceptance} with sampling.method {self.sampling.method} and sampling.box "
                f"{self.sampling.box:g}, expected sgld without a box, or acceptance 0"
            )


@dataclass
class Measured:
    """What chains from some checkpoints of one seed gave."""

    estimate: Estimate
    health: Health
    trace: Trace
    epsilon: Tensor
    """(M,)."""
    sharpness: Tensor
    """lambda_max (M,), NaN where it was not measured."""


def loss_of(settings: Landscape) -> Callable:
    """The loss as `objective` has it: model, x, y -> (...), and K parts (..., K) of which it is the mean."""
    if settings.loss == "mse":
        return objective

    def subsequence(model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        told = token_losses(model(x, y), y)
        parts = told * subsequence_weights(told) * told.shape[-1]
        return parts.mean(-1), parts

    return subsequence


def weights_of(settings: Landscape, ones: Tensor) -> Tensor | None:
    """Weights of ell_k like `ones` (K,), whose weighted values have the loss as mean; None where all are 1."""
    return None if settings.loss == "mse" else len(ones) * subsequence_weights(ones)


def minibatches(
    trained: Trained, settings: Landscape, seed: int, checkpoints: int
) -> tuple[Callable, list, Batch | None]:
    """(draw, its generators, the fixed set or None) of a seed's chains: draw() -> x (C, B, K, D), y (C, B, K)."""
    sampling, law = settings.sampling, trained.tasks[trained.seeds.index(seed)]
    if settings.samples:
        source = generator(trained.device, sampling.seed, "sequences")
        fixed = sample(trained.data, law, settings.samples, source)
        draw = Minibatches((fixed.x, fixed.y), sampling, checkpoints)
        return draw, draw.generators, fixed
    streams = sampling.generators(trained.device, "minibatch", checkpoints)

    def fresh() -> tuple[Tensor, Tensor]:
        batch = sample_stack(trained.data, [law] * len(streams), sampling.batch, streams)
        times = checkpoints * sampling.chains // len(streams)
        return batch.x.repeat(times, 1, 1, 1), batch.y.repeat(times, 1, 1)

    return fresh, streams, None


def sharpest(stack: Replicas, loss: Callable, x: Tensor, y: Tensor, iterations: int) -> Tensor:
    """lambda_max (R,) of the loss on sequences x (B, K, D), y (B, K), by power iteration on all rows at once.

    The eigenvalue of largest size; where the most negative one is larger, its negative value.
    """
    whole = Replicas.__new__(Replicas)
    whole.__dict__.update(stack.__dict__ | {"batched": True})
    params = list(whole.params.values())
    each = (x.expand(len(stack), *x.shape), y.expand(len(stack), *y.shape))
    with torch.enable_grad():
        value = whole.each(lambda *inputs: loss(*inputs)[:1], *each)[0].sum()
        gradients = torch.autograd.grad(value, params, create_graph=True, materialize_grads=True)
        gradient = torch.cat([g.flatten(1) for g in gradients], 1)
    v = torch.randn(gradient.shape, generator=generator("cpu", 0, "sharpness")).to(gradient)
    for _ in range(iterations):
        v = v / v.norm(dim=1, keepdim=True)
        parts = torch.autograd.grad(gradient, params, v, retain_graph=True, materialize_grads=True)
        image = torch.cat([p.flatten(1) for p in parts], 1)
        value, v = (v * image).sum(1), image
    return value.detach()


def measure(trained: Trained, settings: Landscape, seed: int, steps: Sequence[int]) -> Measured:
    """Chains from a seed's checkpoints, all at once, and the estimates from them."""
    sampling, loss = settings.sampling, loss_of(settings)
    weights = weights_of(settings, torch.ones(trained.data.K, device=trained.device))
    check_memory(trained, settings, len(steps))
    models = [trained.model(seed, step) for step in steps]
    stack = Replicas(models)
    law = trained.tasks[trained.seeds.index(seed)]
    sharpness = torch.full((len(steps),), torch.nan)
    if settings.sharpness:
        held = sample(trained.data, law, settings.sharpness, generator(trained.device, 0, "sharpness"))
        sharpness = sharpest(stack, loss, held.x, held.y, settings.iterations).cpu()
    epsilon = torch.full((len(steps),), sampling.epsilon)
    if settings.stability:
        epsilon = settings.stability / (sampling.nbeta * sharpness.clamp(min=0) + sampling.gamma + sampling.prior)

    moving, still = (Replicas([model for model in models for _ in range(sampling.chains)]) for _ in range(2))
    draw, streams, fixed = minibatches(trained, settings, seed, len(steps))
    chains = Chains(
        moving.flat,
        by_hand(moving, trained.config.model, weights),
        draw,
        sampling,
        parts=trained.data.K,
        # The chains' centre, which is what `still` holds
        loss=lambda centre, batch: losses(still, trained.config.model, *batch, weights),
        generators=streams,
        mask=chosen(moving, sampling),
        rates={"epsilon": rows(epsilon[:, None].to(trained.device), sampling.chains)[:, 0]},
    )
    trace = chains.run()
    accepted = chains.acceptance(settings.acceptance) if settings.acceptance else None
    reference = None if sampling.reference == "paired" else full_loss(trained, settings, stack, loss, fixed, law)
    estimate = local_learning_coefficient(trace, sampling.nbeta, reference)
    health = examine(trace, estimate, sampling, trained.trivial, sharpness, accepted, epsilon)
    return Measured(estimate, health, trace, epsilon, sharpness)


def check_memory(trained: Trained, settings: Landscape, checkpoints: int) -> None:
    """Raises UserError where chains, their losses or the fixed set do not fit the memory that is free."""
    data, sampling = trained.data, settings.sampling
    weights = sum(parameter.numel() for parameter in trained.model(trained.seeds[0], trained.steps[0]).parameters())
    # Weights, centre, anchor, noise, gradient and moments of each; losses and references; the set
    numbers = checkpoints * sampling.chains * (8 * weights + 2 * sampling.draws * data.K)
    need = 4.0 * (numbers + settings.samples * data.K * (data.D + 1))
    if need > (there := free_memory(trained.device)):
        raise UserError(
            f"found sampling that needs {need / 2**30:.3g} GiB on {trained.device}, expected at most the "
            f"{there / 2**30:.3g} GiB that are free; lower --sampling.chains, --sampling.draws or --samples"
        )


def chosen(moving: Replicas, sampling: Sampling) -> Tensor | None:
    """Which weights move, see `mask`; raises UserError where none does, or a pattern matches none."""
    try:
        weights = mask(moving.shapes, sampling)
    except ValueError as error:
        raise UserError(f"{error}; give other --sampling.include or --sampling.exclude") from None
    if weights is not None and not weights.any():
        raise UserError(
            f"found no weight in sampling.include {sampling.include} without sampling.exclude {sampling.exclude}, "
            "expected some; give other ones"
        )
    return weights


def full_loss(
    trained: Trained, settings: Landscape, stack: Replicas, loss: Callable, fixed: Batch | None, law
) -> Tensor:
    """Parts (M, K) of the loss of w* on the whole fixed set, or on many sequences where minibatches are fresh."""
    if fixed is None:
        fixed = sample(
            trained.data, law, settings.reference, generator(trained.device, settings.sampling.seed, "reference")
        )
    size = PART if len(fixed.y) % PART == 0 else len(fixed.y)
    return reference_loss(
        lambda batch: stack.each(loss, *(part.expand(len(stack), *part.shape) for part in batch))[1],
        zip(fixed.x.split(size), fixed.y.split(size), strict=True),
    )[0]


def over_checkpoints(trained: Trained, settings: Landscape, steps: Sequence[int]) -> dict[int, list[Measured]]:
    """`measure` for every seed, a few checkpoints at a time: seed -> in the order of the steps."""
    times = checkpoints_at_once(trained, settings)
    parts = [steps[start : start + times] for start in range(0, len(steps), times)]
    bar, done = Progress(len(parts) * len(trained.seeds)), {seed: [] for seed in trained.seeds}
    for seed in trained.seeds:
        for part in parts:
            done[seed].append(measure(trained, settings, seed, part))
            bar.update(sum(map(len, done.values())))
    bar.close()
    return done


def checkpoints_at_once(trained: Trained, settings: Landscape) -> int:
    """As many as keep a GPU busy and fit it; one after another on a CPU, where chains are a loop anyway."""
    if trained.device.type == "cpu":
        return 1
    return max(1, 2**19 // max(settings.sampling.batch, 1) // settings.sampling.chains)


TOLD = (
    "llc",
    "llc_error",
    "loss_sampled",
    "loss_reference",
    "saturation",
    "distance",
    "stability",
    "acceptance",
    "trend",
)


def told(parts: Sequence[Measured]) -> dict:
    """A seed's curves over checkpoints: those of TOLD (T), llc_chains (T, chains), tokens and tokens_error (T, K)."""

    def joined(pick: Callable[[Measured], Tensor]) -> list:
        return torch.cat([pick(part).double().cpu() for part in parts]).tolist()

    return {
        "llc": joined(lambda m: m.estimate.mean),
        "llc_error": joined(lambda m: m.estimate.error),
        "llc_chains": joined(lambda m: m.estimate.chains),
        "tokens": joined(lambda m: m.estimate.tokens),
        "tokens_error": joined(lambda m: m.estimate.tokens_error),
        "loss_sampled": joined(lambda m: m.estimate.loss.nanmean(1)),
        "loss_reference": joined(lambda m: m.estimate.reference),
        "saturation": joined(lambda m: m.health.saturation.nanmean(1)),
        "distance": joined(lambda m: m.health.distance),
        "stability": joined(lambda m: m.health.stability),
        "acceptance": joined(lambda m: m.health.acceptance),
        "trend": joined(lambda m: m.health.trend),
        "epsilon": joined(lambda m: m.epsilon),
        "lambda_max": joined(lambda m: m.sharpness),
    }


def findings(seed: int, steps: Sequence[int], parts: Sequence[Measured]) -> list[dict]:
    """What the judges found, as {seed, step, kind, chains, words, change}."""
    listed, start = [], 0
    for part in parts:
        for found in part.health.findings:
            where = {"seed": seed, "step": steps[start + found.checkpoint]}
            listed.append(where | {k: getattr(found, k) for k in ("kind", "chains", "words", "change")})
        start += len(part.epsilon)
    return listed


def with_sampling(settings: Landscape, **changes) -> Landscape:
    """The same with other fields of `sampling`."""
    return replace(settings, sampling=replace(settings.sampling, **changes))
