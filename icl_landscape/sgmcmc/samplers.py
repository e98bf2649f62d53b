"""Steps of stochastic-gradient Monte Carlo on rows of one matrix (C, P), a chain a row: a few in-place operations for all."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from icl_landscape.sgmcmc.settings import Sampling


class Sampler(ABC):
    """The rows `flat` (C, P), moved in place, and the potential that each moves in; a method says how, in `step`."""

    def __init__(
        self,
        flat: Tensor,
        settings: Sampling,
        mask: Tensor | None = None,
        prior_centre: Tensor | None = None,
        rates: dict[str, Tensor] | None = None,
    ):
        """flat: at w*. mask: (P,), True where a weight moves. prior_centre: (P,) or (C, P), 0 if not given.

        rates: values (C,) of epsilon, nbeta or gamma that differ from row to row.
        """
        self.flat, self.settings = flat, settings
        self.centre = flat.detach().clone()
        self.mask = None if mask is None else mask.to(flat.device)
        self.died = torch.full((len(flat),), -1, device=flat.device)
        self._rates({"epsilon": settings.epsilon, "nbeta": settings.nbeta, "gamma": settings.gamma} | (rates or {}))
        self._anchor(0.0 if prior_centre is None else prior_centre)

    def _rates(self, rates: dict) -> None:
        """Step size, temperature and localisation as columns (C, 1)."""
        columns = {n: torch.as_tensor(v).to(self.flat).expand(len(self.flat))[:, None] for n, v in rates.items()}
        self.epsilon, self.nbeta, self.gamma = (columns[n].clone() for n in ("epsilon", "nbeta", "gamma"))

    def _anchor(self, prior_centre: Tensor | float) -> None:
        """Localisation and prior as one Gaussian: its precision (C, 1) and centre (C, P), which is w* where nothing moves."""
        prior = self.settings.prior
        self.precision = self.gamma + prior
        self.anchor = self.centre
        if prior:
            self.anchor = (self.gamma * self.centre + prior * prior_centre) / self.precision
        if prior and self.mask is not None:
            self.anchor = torch.where(self.mask, self.anchor, self.centre)

    def start(self, noise: Callable[[], Tensor]) -> None:  # noqa: B027
        """Make what the method remembers; `noise` gives standard normal noise (C, P), 0 where nothing moves."""

    @abstractmethod
    def step(self, gradient: Tensor, noise: Tensor) -> None:
        """Move; the gradient of the loss and the noise (C, P) are 0 where nothing moves."""

    def alive(self) -> Tensor:
        """True for chains that have not diverged (C, 1)."""
        return self.died[:, None] < 0

    def moving(self) -> Tensor:
        """True where a weight moves now: (C, 1), or (C, P) with a mask."""
        return self.alive() if self.mask is None else self.alive() & self.mask

    def force(self, gradient: Tensor) -> Tensor:
        """Gradient of the potential (C, P)."""
        pull = (self.flat - self.anchor).mul_(self.precision * self.alive())
        return pull.addcmul_(gradient, self.nbeta)

    def potential(self, losses: Tensor) -> Tensor:
        """The potential (C,) up to a constant, where the losses are (C,)."""
        far = (self.flat - self.anchor).square().sum(1)
        return self.nbeta[:, 0] * losses + self.precision[:, 0] / 2 * far

    def clamp(self) -> None:
        """Back into the box, if there is one."""
        if size := self.settings.box:
            self.flat.copy_((self.flat - self.centre).clamp_(-size, size).add_(self.centre))


class Sgld(Sampler):
    """w <- w - epsilon/2 grad U(w) + sqrt(epsilon) N(0, 1) (Welling & Teh 2011, Eq 4; Lau et al., section 4)."""

    def step(self, gradient: Tensor, noise: Tensor) -> None:
        self.flat.lerp_(self.anchor, self.epsilon * self.precision / 2 * self.alive())
        self.flat.addcmul_(gradient, -self.epsilon * self.nbeta / 2).addcmul_(noise, self.epsilon.sqrt())
        self.clamp()


class RmspropSgld(Sampler):
    """SGLD with the step epsilon G, G = 1 / (damping + sqrt V), V a running mean of squared gradients of the loss.

    Li et al. 2016, algorithm 1, from V = 0 as there; the term in dG/dw is left out.
    """

    def start(self, noise: Callable[[], Tensor]) -> None:
        self.square = torch.zeros_like(self.flat)

    def step(self, gradient: Tensor, noise: Tensor) -> None:
        decay = self.settings.decay
        self.square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        step = self.epsilon / (self.square.sqrt() + self.settings.damping)
        self.flat.addcmul_(self.force(gradient), step, value=-0.5).addcmul_(noise, step.sqrt())
        self.clamp()


class Sgnht(Sampler):
    """Momenta whose friction keeps their mean square at epsilon (Ding et al. 2014)."""

    def start(self, noise: Callable[[], Tensor]) -> None:
        self.momentum = noise() * self.epsilon.sqrt()
        self.friction = torch.full_like(self.epsilon, self.settings.diffusion)

    def step(self, gradient: Tensor, noise: Tensor) -> None:
        moving = self.moving()
        kick = noise.mul((2 * self.settings.diffusion * self.epsilon).sqrt()).addcmul_(
            self.force(gradient), -self.epsilon
        )
        self.momentum.mul_(1 - self.friction).add_(kick)
        self.momentum.copy_(torch.where(moving, self.momentum, 0))
        self.flat.add_(self.momentum)
        weights = moving.expand_as(self.flat).sum(1, keepdim=True).clamp(min=1)
        self.friction.add_(self.momentum.square().sum(1, keepdim=True) / weights - self.epsilon)
        self._reflect()

    def _reflect(self) -> None:
        """Turn back at the walls of the box, if there is one: a clamp would leave the momentum pushing."""
        if not self.settings.box:
            return
        there = self.flat.clone()
        self.clamp()
        self.momentum.copy_(torch.where(there == self.flat, self.momentum, -self.momentum))
        self.flat.mul_(2).sub_(there)
        self.clamp()


METHODS = {"sgld": Sgld, "rmsprop_sgld": RmspropSgld, "sgnht": Sgnht}


def acceptance(
    move: Tensor, here: Tensor, force: Tensor, there: Tensor, force_there: Tensor, epsilon: Tensor
) -> Tensor:
    """Metropolis' probability (C,) of a Langevin step `move` (C, P) (Roberts & Tweedie 1996).

    here, there: the potential (C,) before and after; force, force_there: its gradient (C, P). The two Gaussians' exponents are
    subtracted on paper, since each alone is as large as P.
    """
    work = (move * (force + force_there)).sum(1) / 2
    curvature = epsilon / 8 * (force.square().sum(1) - force_there.square().sum(1))
    return (here - there + work + curvature).exp().clamp(max=1)
