"""A grid of runs in one process: seeds x placements x alpha x eta x lambda, each point a replica of one stack (sheet 7.3)."""

import itertools
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from common.replicas import Replicas
from layernorm_grok.data import split
from layernorm_grok.placement import SWITCHES, Placement

LrRule = Literal["fixed", "inv_alpha2"]
DecayRule = Literal["fixed", "constant_product", "inv_alpha2_product"]


@dataclass
class Grid:
    placement: list[str] = field(default_factory=lambda: ["off"])
    """Where the norms sit: off, attn-pre, pre, mlp-pre, attn-pre-qk, attn-pre-v, pre-v, ..., or switches as in qk+mlp."""
    alpha: list[float] = field(default_factory=lambda: [1.0])
    """Readout scale: the loss is that of alpha times the logits."""
    lr: list[float] = field(default_factory=lambda: [1e-3])
    """Learning rate eta."""
    lr_rule: list[LrRule] = field(default_factory=lambda: ["fixed"])
    """fixed: eta = lr; inv_alpha2: eta = lr / alpha^2."""
    weight_decay: list[float] = field(default_factory=lambda: [1.0])
    """Decoupled decay lambda: a step subtracts eta lambda theta."""
    decay_rule: list[DecayRule] = field(default_factory=lambda: ["fixed"])
    """fixed: lambda = weight_decay; constant_product: eta lambda = lr_reference weight_decay; the last: that over alpha^2."""
    lr_reference: float | None = None
    """eta at which (with alpha = 1) the products leave lambda as it is; the first lr where it is not given."""
    er_strength: list[float] = field(default_factory=lambda: [0.0])
    """Strength of the effective-rank term in the loss, from train.er_start on."""
    init_scale: list[float] = field(default_factory=lambda: [1.0])
    """Factor on every initial parameter, gains of norms included."""

    def __post_init__(self):
        for axis in AXES:
            values = getattr(self, axis)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"grid.{axis} is {values}; expected at least one value, each once")
        for axis in ("alpha", "lr", "init_scale"):
            if min(getattr(self, axis)) <= 0:
                raise ValueError(f"grid.{axis} is {getattr(self, axis)}; expected values above 0")
        for axis in ("weight_decay", "er_strength"):
            if min(getattr(self, axis)) < 0:
                raise ValueError(f"grid.{axis} is {getattr(self, axis)}; expected values of 0 or more")
        if self.lr_reference is not None and self.lr_reference <= 0:
            raise ValueError(f"grid.lr_reference is {self.lr_reference}; expected a value above 0")
        structures = {Placement.parse(text).structure for text in self.placement}
        if len(structures) > 1:
            raise ValueError(
                f"grid.placement is {self.placement}; post, peri, final, unit and qk-norm change the shape: "
                "expected placements that differ in q, k, v and mlp alone, and a run for each other"
            )


AXES = ("placement", "alpha", "lr", "lr_rule", "weight_decay", "decay_rule", "er_strength", "init_scale")


@dataclass(frozen=True)
class Cell:
    """One point of a grid, without the seed."""

    name: str
    """The axes that vary: mlp-pre, or alpha=0.5 lr_rule=inv_alpha2."""
    placement: str
    alpha: float
    lr: float
    """eta as used, after lr_rule."""
    weight_decay: float
    """lambda as used, after decay_rule."""
    er_strength: float
    init_scale: float


def cells(grid: Grid) -> list[Cell]:
    """Every point of the grid, in the order of its axes."""
    varied = [axis for axis in AXES if len(getattr(grid, axis)) > 1] or ["placement"]
    found = []
    for point in itertools.product(*(getattr(grid, axis) for axis in AXES)):
        p = dict(zip(AXES, point, strict=True))
        lr = p["lr"] / p["alpha"] ** 2 if p["lr_rule"] == "inv_alpha2" else p["lr"]
        product = p["weight_decay"] * (grid.lr_reference or grid.lr[0])
        decays = {
            "fixed": p["weight_decay"],
            "constant_product": product / lr,
            "inv_alpha2_product": product / p["alpha"] ** 2 / lr,
        }
        name = " ".join(p[axis] if axis == "placement" else f"{axis}={_text(p[axis])}" for axis in varied)
        decay = decays[p["decay_rule"]]
        found.append(Cell(name, p["placement"], p["alpha"], lr, decay, p["er_strength"], p["init_scale"]))
    return found


def _text(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass
class Stack:
    """Replicas with everything that differs between them; each tensor has the replica axis first."""

    replicas: Replicas
    members: list[int]
    """Their numbers in the whole grid."""
    used: Tensor
    """(R, parameters): 1 where the replica's placement uses the weight."""
    train: Tensor
    """Pair indices (R, N)."""
    test: Tensor
    """Pair indices (R, P^2 - N)."""
    choice: Tensor
    """Switches q, k, v, mlp (R, 4), bools."""
    alpha: Tensor
    """Readout scale (R,)."""
    lr: Tensor
    """(R, 1)."""
    decay: Tensor
    """(R, 1) or (R, parameters)."""
    er: Tensor
    """Effective-rank strength (R,)."""
    fit: Tensor
    """First step with train loss at most 0.01 (R,); 0 before it."""
    offset: Tensor
    """Logits at the start over all pairs (R, P^2, C), or (R, 0, 0) where they are not subtracted."""

    def subset(self, keep: list[int]) -> "Stack":
        """The replicas at places `keep` of this stack, copied."""
        tensors = {k: v[keep] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Stack(self.replicas.subset(keep), [self.members[i] for i in keep], **tensors)

    def absorb(self, part: "Stack", numbers: list[int]) -> None:
        """Take back from a subset of this whole grid the state of the replicas `numbers`."""
        places = [part.members.index(n) for n in numbers]
        self.replicas.absorb(part.replicas, numbers, places)
        self.fit[numbers] = part.fit[places]


def switches(placement: Placement) -> list[bool]:
    return [getattr(placement, name) for name in SWITCHES]


def pair_splits(data, seeds: list[int]) -> tuple[Tensor, Tensor]:
    """Train and test pairs of several seeds, (seeds, N) and (seeds, P^2 - N)."""
    sides = zip(*(split(data, seed) for seed in seeds), strict=True)
    train, test = (torch.stack(side) for side in sides)
    return train, test
