"""Optimisers of a stack of models: schedule-free AdamW from its package (Defazio et al. 2024), and AdamW with a schedule.

With muP hidden matrices have the rate lr / m and the decay m weight_decay, so that their product stays.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from capacity_reasoning.model import Model
from common.limits import Amount, Decay, Natural, Rate
from common.replicas import Replicas


@dataclass
class Optim:
    """The optimiser; the paper's by default."""

    name: Literal["schedulefree", "adamw_cosine", "adamw_linear"] = "schedulefree"
    """Schedule-free AdamW; or AdamW whose rate falls to 0 as half a cosine, or in a line."""
    lr: Rate = 1e-3
    """Largest learning rate."""
    beta1: Decay = 0.99
    """Weight of the average in the point where schedule-free takes its gradient; decay of AdamW's first moment."""
    beta2: Decay = 0.999
    """Decay of the second moment."""
    eps: Rate = 1e-8
    """Epsilon."""
    weight_decay: Amount = 0.1
    """Decoupled decay."""
    decay_all: bool = True
    """Decay of embedding, readout and norms' gains too, as in the paper; off: of hidden matrices alone."""
    warmup: Natural = 1000
    """Steps in which the rate rises in a line."""


def groups(c: Optim, model: Model, replicas: Replicas) -> list[dict]:
    """Views of the flat weights (R, n) with their rate and decay: all but the hidden matrices, then those."""
    sizes = {name: shape.numel() for name, shape in replicas.shapes.items()}
    hidden = sum(size for name, size in sizes.items() if name.startswith("blocks."))
    others = replicas.flat.shape[1] - hidden
    decay = c.weight_decay if c.decay_all else 0.0
    return [
        {"params": [replicas.flat[:, :others]], "lr": c.lr, "weight_decay": decay},
        {"params": [replicas.flat[:, others:]], "lr": c.lr / model.m, "weight_decay": c.weight_decay * model.m},
    ]


class Learner:
    """The optimiser of a stack; `update` is one step, `averaged` the weights to evaluate and to keep."""

    def __init__(self, c: Optim, model: Model, replicas: Replicas, steps: int):
        self.c, self.replicas, self.steps = c, replicas, steps
        parts, betas = groups(c, model, replicas), (c.beta1, c.beta2)
        if c.name == "schedulefree":
            from schedulefree import AdamWScheduleFree

            # Its warm-up of w steps begins at lr / w, with 0 at lr.
            self.optimizer = AdamWScheduleFree(parts, lr=c.lr, betas=betas, eps=c.eps, warmup_steps=c.warmup)
            self.optimizer.train()
        else:
            self.optimizer = torch.optim.AdamW(parts, lr=c.lr, betas=betas, eps=c.eps)
            self.rates = [part["lr"] for part in parts]

    def rate(self, now: int) -> float:
        """Rate of step `now`, counted from 1, over its largest; for AdamW."""
        rise = self.c.warmup
        if now <= rise:
            return now / rise
        left = (self.steps - now + 1) / max(self.steps - rise, 1)
        return left if self.c.name == "adamw_linear" else (1 - math.cos(math.pi * left)) / 2

    @torch.no_grad()
    def update(self, gradient: Tensor, now: int) -> None:
        """One step with the gradient (R, P), which is used up. A model whose gradient is not finite learns no more."""
        gradient = self.replicas.checked(gradient)
        place = 0
        for number, group in enumerate(self.optimizer.param_groups):
            (part,) = group["params"]
            part.grad = gradient[:, place : place + part.shape[1]]
            place += part.shape[1]
            if self.c.name != "schedulefree":
                group["lr"] = self.rates[number] * self.rate(now)
        self.optimizer.step()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the weights are those to evaluate: schedule-free's average x; afterwards, bit for bit, what they were."""
        if self.c.name != "schedulefree":
            yield
            return
        before = self.replicas.flat.clone()
        self.optimizer.eval()
        try:
            yield
        finally:
            self.optimizer.train()
            with torch.no_grad():
                self.replicas.flat.copy_(before)

    def state(self) -> dict:
        """What `restore` needs to go on."""
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, saved: dict) -> None:
        self.optimizer.load_state_dict(saved["optimizer"])
