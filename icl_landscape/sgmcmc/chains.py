"""Chains from many checkpoints run as one: what they draw, what they leave, and what stops one without the others.

Losses stay on the device until the end; on CUDA a step is one recorded graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from common.device import graphed
from common.replicas import Replicas
from icl_landscape.sgmcmc.samplers import METHODS, acceptance
from icl_landscape.sgmcmc.settings import Sampling

Loss = Callable[[Tensor, object], Tensor]
Differentiate = Callable[[Tensor, object], tuple[Tensor, Tensor]]


def rows(checkpoints: Tensor, chains: int) -> Tensor:
    """Starts of chains (C, P), C = M x chains and checkpoint by checkpoint, from checkpoints (M, P)."""
    return checkpoints.repeat_interleave(chains, 0)


def by_autograd(loss: Loss) -> Differentiate:
    """`differentiate` of a loss: params (C, P), batch -> (C,) or (C, K), every row on its own. The gradient is the mean's."""

    def differentiate(params: Tensor, batch) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = params.detach().requires_grad_()
            losses = loss(leaf, batch)
            (gradient,) = torch.autograd.grad(losses.reshape(len(leaf), -1).mean(1).sum(), leaf)
        return losses.detach(), gradient

    return differentiate


def by_replicas(replicas: Replicas, function: Callable) -> Differentiate:
    """`differentiate` for chains whose `flat` is that of the replicas.

    function: model, *batch -> loss of each row (C,), and the losses to keep, (C,) or (C, K), of which it is the mean.
    """

    def differentiate(params: Tensor, batch) -> tuple[Tensor, Tensor]:
        gradient, _, losses = replicas.differentiate(function, *batch)
        return losses, gradient

    return differentiate


@dataclass
class Trace:
    """What chains leave. Rows C are checkpoint by checkpoint: M x chains of them."""

    losses: Tensor
    """Minibatch losses (draws, C, K) before the step; the sampled loss is their mean over K."""
    reference: Tensor | None
    """Losses of w* on the same minibatches (draws, C, K), if paired."""
    distance: Tensor
    """|w - w*| (draws, C)."""
    died: Tensor
    """Step at which a chain diverged (C,), -1 where it did not; it stays where it was then."""
    norm: Tensor
    """|w*| (C,), over the weights that move."""
    chains: int
    """Chains of each checkpoint."""


class Chains:
    """All chains of one run. `flat` (C, P) is moved in place, so the `flat` of `common.replicas.Replicas` may be given."""

    def __init__(
        self,
        flat: Tensor,
        differentiate: Differentiate,
        draw: Callable[[], object],
        settings: Sampling,
        *,
        parts: int = 1,
        loss: Loss | None = None,
        generators: Sequence[Generator] = (),
        **target,
    ):
        """flat: the starts, see `rows`. differentiate: flat, batch -> losses (C,) or (C, parts), gradient (C, P) of their mean.

        draw: gives a batch, with what each row needs of it. loss: flat, batch -> losses, for a paired reference.
        generators: those that `draw` uses, for the CUDA graph. target: mask, prior_centre and rates of `Sampler`.
        Raises ValueError for rows that are no multiple of the chains, and for a paired reference without a loss.
        """
        if len(flat) % settings.chains:
            raise ValueError(f"found {len(flat)} rows, expected a multiple of {settings.chains} chains")
        if settings.reference == "paired" and loss is None:
            raise ValueError("found no loss, expected one for a paired reference")
        self.settings, self.differentiate, self.draw, self.loss = settings, differentiate, draw, loss
        self.sampler = METHODS[settings.method](flat, settings, **target)
        self.losses, self.distance = flat.new_zeros(len(flat), parts), flat.new_zeros(len(flat))
        self.reference = self.losses.clone() if settings.reference == "paired" else None
        self.clock = torch.zeros((), dtype=torch.int64, device=flat.device)
        self._streams(flat)
        self.sampler.start(self._noise)
        sources = [*self.generators, *generators]
        self.advance, self.record = (graphed(f, flat.device, sources) for f in (self._advance, self._record))

    def _streams(self, flat: Tensor) -> None:
        """Noise (1 or M, chains, P), filled row by row so that a chain's noise does not depend on its company."""
        chains = self.settings.chains
        self.generators = self.settings.generators(flat.device, "noise", len(flat) // chains)
        self.normal = flat.new_empty(len(self.generators) // chains, chains, flat.shape[1])

    def _noise(self) -> Tensor:
        """Fresh standard normal noise (C, P), 0 where nothing moves."""
        for row, source in zip(self.normal.flatten(0, 1), self.generators, strict=True):
            row.normal_(generator=source)
        moving = self.sampler.moving()
        return (self.normal * moving.unflatten(0, (-1, self.settings.chains))).flatten(0, 1)

    def _advance(self) -> None:
        """One step of every chain."""
        self._step(self.draw())

    def _record(self) -> None:
        """The same, keeping distance and reference of where it started."""
        batch = self.draw()
        with torch.no_grad():
            self.distance.copy_(torch.linalg.vector_norm(self.sampler.flat - self.sampler.centre, dim=1))
            if self.reference is not None:
                self.reference.copy_(self.loss(self.sampler.centre, batch).view_as(self.losses))
        self._step(batch)

    def _step(self, batch) -> None:
        gradient = self._measure(batch)
        with torch.no_grad():
            self.clock += 1
            self.sampler.step(gradient, self._noise())

    def _measure(self, batch) -> Tensor:
        """Gradient of the loss (C, P), 0 where nothing moves, after noting losses and chains that diverge."""
        losses, gradient = self.differentiate(self.sampler.flat, batch)
        with torch.no_grad():
            self.losses.copy_(losses.view_as(self.losses))
            loss, died = self.losses.mean(1), self.sampler.died
            sound = loss.isfinite() & (loss.abs() < self.settings.ceiling) & gradient.sum(1).isfinite()
            died.copy_(torch.where(sound | (died >= 0), died, self.clock))
            # Not a product: 0 times the gradient of a chain that diverged is not 0.
            return torch.where(self.sampler.moving(), gradient, 0)

    def run(self) -> Trace:
        """All steps of the settings."""
        settings, kept = self.settings, {"losses": self.losses, "distance": self.distance, "reference": self.reference}
        buffers = {n: x.new_empty(settings.draws, *x.shape) for n, x in kept.items() if x is not None}
        for _ in range(settings.burn_in):
            self.advance()
        for draw in range(settings.draws):
            self.record()
            for name, buffer in buffers.items():
                buffer[draw] = kept[name]
            for _ in range(settings.every - 1):
                self.advance()
        sampler = self.sampler
        norm = (sampler.centre if sampler.mask is None else sampler.centre * sampler.mask).norm(dim=1)
        return Trace(**{"reference": None} | buffers, died=sampler.died.clone(), norm=norm, chains=settings.chains)

    def acceptance(self, steps: int) -> Tensor:
        """Mean probability (C,) that a Metropolis test would accept a step of SGLD, over `steps` further steps.

        Both ends of a step are measured on its own minibatch: it judges the step size, not the minibatch's noise. NaN for a
        chain that diverged. Raises ValueError for another method, or with a box, whose proposals are no Gaussians.
        """
        if self.settings.method != "sgld" or self.settings.box:
            raise ValueError("found another method or a box, expected sgld without a box")
        return torch.stack([self._accepted() for _ in range(steps)]).mean(0)

    def _accepted(self) -> Tensor:
        sampler, batch, here = self.sampler, self.draw(), self.sampler.flat.clone()
        before = self._potential(batch)
        self._step(batch)
        after = self._potential(batch)
        with torch.no_grad():
            probability = acceptance(sampler.flat - here, *before, *after, sampler.epsilon[:, 0])
            return probability.masked_fill(sampler.died >= 0, torch.nan)

    def _potential(self, batch) -> tuple[Tensor, Tensor]:
        """U (C,) up to a constant, and its gradient (C, P)."""
        gradient = self._measure(batch)
        with torch.no_grad():
            return self.sampler.potential(self.losses.mean(1)), self.sampler.force(gradient)
