"""Low-rank matrices with hidden entries, made on the device (paper section 2).

X = U V^T with i.i.d. factor entries; X is rounded to `precision` decimals and the rounded matrix is the target. Tokens are
integers throughout: k = round(10^precision x), so that no value ever lands on its neighbour's id.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from common.limits import Distinct, Length, Range, Share

MASK = 0
Side = Annotated[int, Range(1, 1000)]
Size = Annotated[list[Side], Length(2)]
Factor = Annotated[float, Range(-1e6, 1e6)]


@dataclass
class Data:
    """Law of the matrices, of what is hidden, and of the tokens."""

    sizes: Annotated[list[Size], Distinct(1)] = field(default_factory=lambda: [[7, 7]])
    """Matrix sizes [rows, columns]; with several, each step draws one of them uniformly (a mixture)."""
    rank: Annotated[int, Range(1, 1000)] = 2
    """Rank r of the product U V^T."""
    law: Literal["uniform", "gaussian", "laplace"] = "uniform"
    """Law of the factor entries: uniform on [low, high], scale * N(0, 1), or Laplace(0, scale)."""
    low: Factor = -1.0
    """Lower end of the uniform law. 0 gives the non-centred control."""
    high: Factor = 1.0
    """Upper end of the uniform law."""
    scale: Annotated[float, Range(0, 1e6, without=(0,))] = 1.0
    """Standard deviation of the Gaussian law; scale b of the Laplace law."""
    precision: Annotated[int, Range(0, 6)] = 2
    """Decimals kept."""
    limit: Annotated[float, Range(0, 1e6, without=(0,))] = 10.0
    """The vocabulary covers [-limit, limit]; entries beyond are clamped, and counted."""
    p_mask: Share = 0.3
    """Probability that an entry is hidden."""
    mask: Literal["bernoulli", "exact", "coherent"] = "bernoulli"
    """Independent entries; exactly p N, rounded down; or as many, a share `coherence` of them the most coherent."""
    coherence: Share = 0.0
    """Share tau of hidden entries placed at the largest local coherence (mask: coherent)."""

    def __post_init__(self):
        if self.high <= self.low:
            raise ValueError(f"data.low {self.low} is not below data.high {self.high}")

    @property
    def half(self) -> int:
        """Largest integer k of the vocabulary: ids are 1 .. 2 half + 1, and 0 for a hidden entry."""
        return round(self.limit * 10**self.precision)

    @property
    def vocabulary(self) -> int:
        """Number of ids, the mask included (2002 for [-10, 10] with 2 decimals)."""
        return 2 * self.half + 2

    @property
    def cells(self) -> int:
        """Cells of the largest matrix: rows of the position table."""
        return max(map(math.prod, self.sizes))

    @property
    def share(self) -> float:
        """Share of entries hidden in a matrix of the first size: p_mask, or the whole number of entries it comes to."""
        cells = math.prod(self.sizes[0])
        return self.p_mask if self.mask == "bernoulli" else self.hidden(cells) / cells

    def hidden(self, cells: int) -> int:
        """Entries hidden of so many where their number is exact: p_mask of them, rounded down (29 of 100 at 0.29)."""
        return math.floor(round(self.p_mask * cells, 6))

    @property
    def variance(self) -> float:
        """E[X_ij^2]: the loss of predicting 0 (r/9 for factors uniform on [-1, 1])."""
        second = {
            "uniform": (self.low**2 + self.low * self.high + self.high**2) / 3,
            "gaussian": self.scale**2,
            "laplace": 2 * self.scale**2,
        }[self.law]
        return self.rank * second**2 + self.rank * (self.rank - 1) * self._factor_mean**4

    @property
    def baseline(self) -> float:
        """Variance of X_ij: the loss of predicting its mean. It is `variance` for centred factors."""
        return self.variance - (self.rank * self._factor_mean**2) ** 2

    @property
    def _factor_mean(self) -> float:
        return (self.low + self.high) / 2 if self.law == "uniform" else 0.0


class Batch(NamedTuple):
    """ids (B, N) int64, target (B, N) float32, observed (B, N) bool; N = rows * columns, row-major."""

    ids: Tensor
    target: Tensor
    observed: Tensor


def factors(shape: tuple[int, ...], data: Data, generator: Generator) -> Tensor:
    """I.i.d. factor entries of the law, on the generator's device."""
    device = generator.device
    if data.law == "gaussian":
        return torch.randn(shape, generator=generator, device=device) * data.scale
    uniform = torch.rand(shape, generator=generator, device=device)
    if data.law == "uniform":
        return uniform * (data.high - data.low) + data.low
    centred = uniform - 0.5
    return -data.scale * centred.sign() * torch.log1p(-2 * centred.abs())


def local_coherence(U: Tensor, V: Tensor) -> Tensor:
    """(m/r) |u_i|^2 + (n/r) |v_j|^2 from orthonormal bases of the factors' spans: (B, m, r), (B, n, r) -> (B, m n)."""
    rank = U.shape[-1]
    rows, columns = (torch.linalg.qr(F)[0].square().sum(-1) * F.shape[-2] / rank for F in (U, V))
    return (rows[:, :, None] + columns[:, None, :]).flatten(1)


def _observed(data: Data, U: Tensor, V: Tensor, generator: Generator) -> Tensor:
    """Mask (B, N): True where the entry is shown."""
    batch, cells = len(U), U.shape[1] * V.shape[1]
    noise = torch.rand(batch, cells, generator=generator, device=U.device)
    if data.mask == "bernoulli":
        return noise > data.p_mask
    hidden = data.hidden(cells)
    biased = round(data.coherence * hidden) if data.mask == "coherent" else 0
    if biased:
        top = local_coherence(U, V).topk(biased, dim=1).indices
        noise.scatter_(1, top, -1.0)
    return noise.argsort(1).argsort(1) >= hidden


def tokens(k: Tensor, observed: Tensor, half: int) -> Tensor:
    """Ids of integer values k in [-half, half]; MASK where not observed. A sign flip maps id to vocabulary - id."""
    return torch.where(observed, k + (half + 1), MASK)


def product(data: Data, batch: int, size: list[int], generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """X = U V^T (B, m, n), U (B, m, r), V (B, n, r)."""
    U, V = (factors((batch, length, data.rank), data, generator) for length in size)
    # Not a matrix product, which TF32 would round to ten bits
    return (U[:, :, None] * V[:, None]).sum(-1), U, V


def sample(data: Data, batch: int, generator: Generator, size: list[int] | None = None) -> Batch:
    """A fresh batch of matrices of one size (the first of `data.sizes` by default)."""
    X, U, V = product(data, batch, size or data.sizes[0], generator)
    return from_values(X.flatten(1), _observed(data, U, V, generator), data)


def from_values(values: Tensor, observed: Tensor, data: Data) -> Batch:
    """The batch of given real matrices (B, N), rounded to `precision` and clamped to the vocabulary.

    An infinite value is an end of the vocabulary; NaN raises RuntimeError.
    """
    torch._assert_async(~values.isnan().any(), "found NaN among the entries, expected numbers")
    k = (values * 10**data.precision).round().clamp(-data.half, data.half).long()
    return Batch(tokens(k, observed, data.half), k / 10**data.precision, observed)


def draw_size(data: Data, generator: Generator) -> list[int]:
    """One of the sizes, uniformly; no draw is spent when there is only one. generator: on the CPU."""
    if len(data.sizes) == 1:
        return data.sizes[0]
    return data.sizes[int(torch.randint(len(data.sizes), (), generator=generator))]


def clamped(data: Data, generator: Generator, batch: int = 4096) -> float:
    """Share of entries whose value falls outside the vocabulary, from one batch (P(|x| > 10) = 4.5e-5 for N(0,1), r = 2)."""
    X, _, _ = product(data, batch, data.sizes[0], generator)
    return float((X.abs() > data.limit + 0.5 * 10**-data.precision).float().mean())
