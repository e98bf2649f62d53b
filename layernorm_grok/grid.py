"""A grid of runs in one process: seeds x placements x alpha x eta x lambda, each point a replica of one stack."""

import itertools
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from common.device import generator
from common.limits import Amount, Distinct, Positive, Rate
from common.replicas import Replicas
from layernorm_grok.data import split
from layernorm_grok.model import Transformer
from layernorm_grok.placement import Placement

LrRule = Literal["fixed", "inv_alpha2"]
DecayRule = Literal["fixed", "constant_product", "inv_alpha2_product"]


@dataclass
class Grid:
    placement: Annotated[list[str], Distinct(1)] = field(default_factory=lambda: ["off"])
    """Positions of the norms: off, attn-pre, pre, mlp-pre, attn-pre-qk, attn-pre-v, pre-v, ..., or switches as in qk+mlp."""
    alpha: Annotated[list[Positive], Distinct(1)] = field(default_factory=lambda: [1.0])
    """Readout scale: the loss is that of alpha times the logits."""
    lr: Annotated[list[Rate], Distinct(1)] = field(default_factory=lambda: [1e-3])
    """Learning rate eta."""
    lr_rule: Annotated[list[LrRule], Distinct(1)] = field(default_factory=lambda: ["fixed"])
    """fixed: eta = lr; inv_alpha2: eta = lr / alpha^2."""
    weight_decay: Annotated[list[Amount], Distinct(1)] = field(default_factory=lambda: [1.0])
    """Decoupled decay lambda: a step subtracts eta lambda theta."""
    decay_rule: Annotated[list[DecayRule], Distinct(1)] = field(default_factory=lambda: ["fixed"])
    """fixed: lambda = weight_decay; constant_product: eta lambda = lr_reference weight_decay; the last: that over alpha^2."""
    lr_reference: Rate | None = None
    """eta at which (with alpha = 1) the products leave lambda as it is; the first lr where it is not given."""
    er_strength: Annotated[list[Amount], Distinct(1)] = field(default_factory=lambda: [0.0])
    """Strength of the effective-rank term in the loss, from train.er_start on."""
    init_scale: Annotated[list[Positive], Distinct(1)] = field(default_factory=lambda: [1.0])
    """Factor on every initial parameter, gains of norms included."""
    borrow: dict[str, str] = field(default_factory=dict)
    """Cells of a sweep over one axis that another run of the study trains; name here: run/name there, as in
    {lr=0.004: wd_sweep/weight_decay=1}."""

    def __post_init__(self):
        self._check_borrowed()
        structures = {Placement.parse(text).structure for text in self.placement}
        if len(structures) > 1:
            raise ValueError(
                f"grid.placement is {self.placement}; post, peri, final, unit and qk-norm change the shape: "
                "expected placements that differ in q, k, v and mlp alone, and a run for each other"
            )

    def _check_borrowed(self):
        swept = [axis for axis in AXES if len(getattr(self, axis)) > 1]
        own = {cell.name for cell in cells(self)} if self.borrow else {}
        for name, source in self.borrow.items():
            axis, _, value = name.partition("=")
            wrong = (
                swept != [axis] or axis not in NUMBERS or not re.fullmatch(r"\d[\d.e+-]*", value) or "/" not in source
            )
            if wrong or name in own:
                raise ValueError(
                    f"grid.borrow is {self.borrow}, and {', '.join(swept) or 'nothing'} varies; expected further values of one "
                    "axis of numbers that varies, such as {lr=0.004: wd_sweep/weight_decay=1}"
                )
        borrowed(self)


AXES = ("placement", "alpha", "lr", "lr_rule", "weight_decay", "decay_rule", "er_strength", "init_scale")
NUMBERS = ("alpha", "lr", "weight_decay", "er_strength", "init_scale")
"""Axes whose values are numbers."""


@dataclass(frozen=True)
class Cell:
    """A point of a grid, without the seed; its replicas are one per seed."""

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
    made = []
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
        made.append(Cell(name, p["placement"], p["alpha"], lr, decay, p["er_strength"], p["init_scale"]))
    return made


def borrowed(grid: Grid) -> dict[str, Cell]:
    """Name -> cell of what the grid leaves to other runs, as it would have made it."""
    made = {}
    for name in grid.borrow:
        axis, _, value = name.partition("=")
        point = {axis: [float(value)], "lr_reference": grid.lr_reference or grid.lr[0], "borrow": {}}
        made[name] = replace(cells(replace(grid, **point))[0], name=name)
    return made


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
    er_strength: Tensor
    """Strength of the effective-rank term (R,)."""
    t_train: Tensor
    """First step with a train loss of at most 0.01 (R,); 0 before it."""
    offset: Tensor
    """Logits at the start over all pairs (R, P^2, C), or (R, 0, 0) where they are not subtracted."""

    def subset(self, keep: list[int]) -> "Stack":
        """The replicas at rows `keep` of this stack, copied."""
        tensors = {k: v[keep] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Stack(self.replicas.subset(keep), [self.members[i] for i in keep], **tensors)

    def absorb(self, part: "Stack", numbers: list[int]) -> None:
        """Take back from a subset of this whole grid the state of the replicas `numbers`."""
        rows = [part.members.index(n) for n in numbers]
        self.replicas.absorb(part.replicas, numbers, rows)
        self.t_train[numbers] = part.t_train[rows]


def is_norm(name: str) -> bool:
    """Whether a parameter belongs to a norm."""
    return ".ln" in name or name.startswith("final_norm")


def build(settings, cell: Cell, seed: int, norms: set[str] | None = None) -> Transformer:
    """A fresh model of a cell, on the CPU; all weights but those of norms are the same in every cell of a seed.

    settings: the Config of train.py. norms: those of a block that exist, by default those that the placement uses.
    """
    init = generator("cpu", seed, "init")
    model = Transformer(settings.model, settings.data.P, Placement.parse(cell.placement), init, norms)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(cell.init_scale)
    return model


def stack_of(settings, device: torch.device) -> tuple[Stack, list[dict]]:
    """All replicas of a Config's grid, cell by cell and in each seed by seed, and what names them: {cell, seed} each."""
    points = [(cell, seed) for cell in cells(settings.grid) for seed in settings.seeds]
    placements = [Placement.parse(cell.placement) for cell, _ in points]
    norms = set().union(*(placement.norms for placement in placements))
    models = [build(settings, cell, seed, norms).to(device) for cell, seed in points]
    names = {name for name, _ in models[0].named_parameters()}
    used = [{n for n in names if not any(f".{norm}." in n for norm in norms - p.norms)} for p in placements]
    frozen = {n for n in names if is_norm(n)} if settings.model.frozen_norms else set()
    replicas = Replicas(models, [u - frozen for u in used] if frozen or any(u < names for u in used) else None)

    def column(key: str) -> Tensor:
        return torch.tensor([getattr(cell, key) for cell, _ in points], device=device)

    decay = column("weight_decay")[:, None]
    if not settings.train.decay_norms:
        decay = decay * replicas.mask([{n for n in names if not is_norm(n)}] * len(models))
    sides = zip(*(split(settings.data, seed) for seed in settings.seeds), strict=True)
    train, test = (torch.stack(side).repeat(len(points) // len(settings.seeds), 1).to(device) for side in sides)
    stack = Stack(
        replicas, list(range(len(models))), replicas.mask(used), train, test,
        choice=torch.tensor([placement.switches for placement in placements], device=device),
        alpha=column("alpha"), lr=column("lr")[:, None], decay=decay, er_strength=column("er_strength"),
        t_train=torch.zeros(len(models), dtype=torch.int32, device=device),
        offset=torch.zeros(len(models), 0, 0, device=device),
    )  # fmt: skip
    if settings.train.subtract_init:
        every = torch.arange(settings.data.P**2, device=device).expand(len(models), -1)
        with torch.no_grad():
            (stack.offset,) = replicas.each(
                lambda model, rows, choice: (model(rows, choice).logits,), every, stack.choice
            )
    return stack, [{"cell": cell.name, "seed": seed} for cell, seed in points]
