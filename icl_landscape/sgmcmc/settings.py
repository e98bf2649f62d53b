"""How chains are sampled, which weights move, and the random streams that follow from it."""

import re
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Size, Tensor

from common import device
from common.limits import Amount, Count, Decay, Name, Natural, Positive, Rate, Seed, Share


@dataclass
class Sampling:
    """Chains on U(w) = nbeta loss(w) + gamma/2 |w - w*|^2 + prior/2 |w - prior centre|^2 (Lau et al. 2308.12108, section 4)."""

    method: Literal["sgld", "rmsprop_sgld", "sgnht"] = "sgld"
    """Langevin dynamics (Welling & Teh 2011), the same preconditioned (Li et al. 2016), or a thermostat (Ding et al. 2014)."""
    epsilon: Rate = 1e-4
    """Step size: a chain's noise has variance epsilon a step (for sgnht the squared time step)."""
    nbeta: Positive = 66.67
    """Inverse temperature times the number of samples, the only temperature here: n / ln n is Watanabe's choice."""
    gamma: Amount = 500.0
    """Localisation: precision of a Gaussian about the checkpoint w*."""
    prior: Amount = 0.0
    """Precision of a second Gaussian, about 0 unless the caller gives another centre."""
    box: Amount = 0.0
    """Farthest that a weight may go from w*: clamped (reflected by sgnht). 0: no box."""
    chains: Count = 4
    """Chains from every checkpoint."""
    first: Natural = 0
    """Number of the first chain: runs of 4 chains with first 0 and first 4 are one run of 8."""
    draws: Count = 200
    """Losses kept from every chain, each measured before the step that follows it."""
    burn_in: Natural = 0
    """Steps before the first kept loss. With 0 the first is that of w* itself."""
    every: Count = 1
    """Steps from one kept loss to the next."""
    batch: Natural = 128
    """Samples of a minibatch. 0: all of the data."""
    reference: Literal["full", "paired"] = "full"
    """Loss of w* that is subtracted: measured once on a large fixed set, or on the minibatch of every kept loss."""
    shared: bool = True
    """Chain i has the same noise and minibatches at every checkpoint, which steadies differences between checkpoints."""
    seed: Seed = 0
    """Of noise and minibatches."""
    decay: Decay = 0.99
    """rmsprop_sgld: memory of the squared gradients."""
    damping: Positive = 0.1
    """rmsprop_sgld: added to the root of the squared gradients."""
    diffusion: Share = 0.01
    """sgnht: noise, and the friction at the start."""
    ceiling: Positive = 1e6
    """A chain whose loss exceeds it in size has diverged, and stops."""
    include: list[Name] = field(default_factory=lambda: ["**"])
    """Parameters that move, by name: * stands for one part between dots, ** for any number of them."""
    exclude: list[Name] = field(default_factory=list)
    """Parameters that stay, even if included."""

    def generators(self, where: torch.device, name: str, checkpoints: int) -> list[Generator]:
        """One stream a chain, (chains) of them if shared, else (checkpoints x chains)."""
        chains = range(self.first, self.first + self.chains)
        if self.shared:
            return [device.generator(where, self.seed, f"{name}/{chain}") for chain in chains]
        return [
            device.generator(where, self.seed, f"{name}/{m}/{chain}") for m in range(checkpoints) for chain in chains
        ]


def selected(names: list[str], include: list[str], exclude: list[str]) -> list[str]:
    """The names that a pattern of `include` matches as a whole and none of `exclude` does.

    Raises ValueError for a pattern that matches nothing: a restricted estimate of the wrong weights looks like any other.
    """
    for pattern in [*include, *exclude]:
        if not any(_glob(pattern).fullmatch(name) for name in names):
            raise ValueError(f"found the pattern {pattern}, expected one that matches any of {', '.join(names)}")
    wanted, unwanted = ([_glob(pattern) for pattern in patterns] for patterns in (include, exclude))
    return [n for n in names if any(p.fullmatch(n) for p in wanted) and not any(p.fullmatch(n) for p in unwanted)]


def _glob(pattern: str) -> re.Pattern:
    tokens = {"**": ".*", "*": r"[^.]*"}
    return re.compile("".join(tokens.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*)", pattern)))


def mask(shapes: dict[str, Size], settings: Sampling) -> Tensor | None:
    """True over a flat buffer (P,) where a weight moves, in the order of `shapes`; None if all do."""
    chosen = selected(list(shapes), settings.include, settings.exclude)
    if len(chosen) == len(shapes):
        return None
    return torch.cat([torch.full((shape.numel(),), name in chosen) for name, shape in shapes.items()])


class Minibatches:
    """Samples of a fixed data set, fresh at every call and for every chain: tensors (C, batch, ...), C chains in all."""

    def __init__(self, data: tuple[Tensor, ...], settings: Sampling, checkpoints: int = 1):
        """data: tensors (n, ...) that share n."""
        self.data, self.batch = data, settings.batch
        self.rows = checkpoints * settings.chains
        self.generators = settings.generators(data[0].device, "minibatch", checkpoints)

    def __call__(self) -> tuple[Tensor, ...]:
        if self.batch == 0:
            return tuple(x.expand(self.rows, *x.shape) for x in self.data)
        size, where = len(self.data[0]), self.data[0].device
        draws = [torch.randint(size, (self.batch,), generator=g, device=where) for g in self.generators]
        indices = torch.stack(draws).repeat(self.rows // len(draws), 1)
        return tuple(x[indices] for x in self.data)
