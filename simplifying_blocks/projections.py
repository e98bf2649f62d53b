"""Value and projection matrices as alpha W0 + beta dW (He & Hofmann Eq 6), and the packed gains of the whole model."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from simplifying_blocks.attention import Gain, scaled

Start = Literal["normal", "orthogonal", "identity"]


@torch.no_grad()
def draw(weight: Tensor, start: Start, std: float, generator: Generator | None) -> Tensor:
    """Fill a square matrix: N(0, std^2), Haar orthogonal, or the identity."""
    if start == "identity":
        return nn.init.eye_(weight)
    if start == "orthogonal":
        return nn.init.orthogonal_(weight, generator=generator)
    return weight.normal_(0, std, generator=generator)


class Projection(nn.Module):
    """x (..., d) -> x (alpha W0 + beta dW) + bias.

    With alpha, W0 is fixed (a saved buffer; for the identity, nothing) and dW starts at 0; without, dW starts as W0 would.
    Without beta there is no dW. Matrices are stored transposed, as torch.nn.Linear has them.
    """

    def __init__(self, d: int, start: Start, std: float, gains: dict, bias: bool, name: str):
        super().__init__()
        self.alpha, self.beta, self.start = f"alpha_{name}", f"beta_{name}", start
        self.based = self.alpha in gains
        self.std = d**-0.5 if self.based else std
        self.weight = nn.Parameter(torch.zeros(d, d)) if self.beta in gains else None
        self.bias = nn.Parameter(torch.zeros(d)) if bias else None
        self.register_buffer("base", torch.empty(d, d) if self.based and start != "identity" else None)

    def reset(self, generator: Generator | None) -> None:
        """Draw W0, or dW where there is no W0."""
        drawn = self.base if self.based else self.weight
        if drawn is not None:
            draw(drawn.data, self.start, self.std, generator)

    def matrix(self, gains: dict[str, Gain]) -> Tensor | None:
        """The effective weight (d, d), made once a step; None where it is alpha times the identity."""
        alpha, beta = gains.get(self.alpha), gains.get(self.beta)
        learned = None if self.weight is None else scaled(self.weight, beta)
        if not self.based or self.base is None and learned is None:
            return learned
        if self.base is None:
            return torch.diagonal_scatter(learned, learned.diagonal() + alpha)
        fixed = scaled(self.base, alpha)
        return fixed if learned is None else fixed + learned

    def forward(self, x: Tensor, gains: dict[str, Gain]) -> Tensor:
        matrix = self.matrix(gains)
        if matrix is not None:
            return F.linear(x, matrix, self.bias)
        x = scaled(x, gains[self.alpha])
        return x if self.bias is None else x + self.bias


@torch.no_grad()
def tie(pairs: list[tuple[Projection, Projection]], how: Literal["last_block", "all_blocks"]) -> None:
    """Make the bases of (V_l, P_l), l = 1 .. L, undo each other (He & Hofmann Fig 15).

    all_blocks: P_l = V_l^T. last_block: P_L = (V_1 P_1 ... V_{L-1} P_{L-1} V_L)^T, so that the whole product is the identity.
    """
    if any(part.base is None for pair in pairs for part in pair):
        return
    chain = torch.eye(len(pairs[0][0].base), dtype=pairs[0][0].base.dtype)
    for number, (value, projection) in enumerate(pairs, 1):
        if how == "all_blocks":
            projection.base.copy_(value.base.mT)
            continue
        chain = chain @ value.base.mT
        if number == len(pairs):
            projection.base.copy_(chain)
        chain = chain @ projection.base.mT


class Gains(nn.Module):
    """All trainable gains of a model in one vector, read as views: one parameter for the optimiser, no kernel per gain."""

    def __init__(self, layers: list[dict[str, tuple[float, int]]]):
        """layers: per layer, name -> (value at the start, number of entries)."""
        super().__init__()
        self.names = [(number, name) for number, layer in enumerate(layers) for name in layer]
        self.sizes = [layers[number][name][1] for number, name in self.names]
        self.n_layer = len(layers)
        starts = [torch.full((size,), value) for layer in layers for value, size in layer.values()]
        self.packed = nn.Parameter(torch.cat(starts)) if starts else None

    def forward(self) -> list[dict[str, Tensor]]:
        """Per layer, name -> view of the packed vector."""
        layers = [{} for _ in range(self.n_layer)]
        if self.packed is not None:
            for (number, name), part in zip(self.names, self.packed.split(self.sizes), strict=True):
                layers[number][name] = part
        return layers
