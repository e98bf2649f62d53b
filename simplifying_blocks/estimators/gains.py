"""What the gains of a model have become, layer by layer, with their sign."""

from collections.abc import Iterator

import torch
from torch import Tensor

from simplifying_blocks.attention import wide
from simplifying_blocks.blocks import Block
from simplifying_blocks.model import Transformer
from simplifying_blocks.projections import Projection

PER_HEAD = ("alpha", "beta", "gamma")
Values = dict[tuple[str, int], float | Tensor]
"""(name, layer) -> number, on the host or, as a tensor (), where the model is."""


@torch.no_grad()
def gains_at(model: Transformer) -> Values:
    """(name, layer) -> value, where the model is: nothing waits for the device. What a layer has not is not there.

    alpha_SA, beta_SA, ..., fixed or trained: the signed value, or the mean over heads or channels where there are several.
    alpha_std, beta_std, gamma_std: unbiased standard deviation over heads, where each has its own.
    ratio_V, ratio_P: beta_V / alpha_V and beta_P / alpha_P (He & Hofmann Eq 6).
    distance_V, distance_P: |W - I|_F / sqrt(d) of W = alpha W0 + beta dW, where there is such a matrix.
    """
    pairs = zip(model.blocks, model.gains(), strict=True)
    return {(name, layer): value for layer, pair in enumerate(pairs) for name, value in block_gains(*pair)}


def on_host(values: Values) -> dict[tuple[str, int], float]:
    """All as Python numbers, in one transfer."""
    there = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    moved = torch.stack([*there.values()]).tolist() if there else []
    return values | dict(zip(there, moved, strict=True))


def block_gains(block: Block, trained: dict[str, Tensor]) -> Iterator[tuple[str, float | Tensor]]:
    """Names and values of one block."""
    gains = block.fixed | trained
    for name, value in gains.items():
        yield name, value.mean() if isinstance(value, Tensor) else value
    for name in PER_HEAD:
        if name in trained and len(trained[name]) > 1:
            yield f"{name}_std", trained[name].std()
    for part, projection in (("V", block.attention.value), ("P", block.attention.projection)):
        if {projection.alpha, projection.beta} <= gains.keys():
            ratio = gains[projection.beta] / gains[projection.alpha]
            yield f"ratio_{part}", ratio.mean() if isinstance(ratio, Tensor) else ratio
        yield from distance(projection, gains, part)


def distance(projection: Projection, gains: dict, part: str) -> Iterator[tuple[str, Tensor]]:
    """|W - I|_F / sqrt(d) of the effective matrix, if there is one."""
    matrix = projection.matrix(gains)
    if matrix is not None:
        matrix = matrix.to(wide(matrix))
        away = torch.diagonal_scatter(matrix, matrix.diagonal() - 1)
        yield f"distance_{part}", away.norm() / len(matrix) ** 0.5
