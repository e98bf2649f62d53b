"""Scores of attention heads: what share of a head's attention goes to which cells (paper Figs 4, 5, 22, 23)."""

import math

import torch
from torch import Tensor

KINDS = ("row", "column", "self", "observed", "other")
FOLLOWED = {"row": "row", "column": "column", "observed": "observed_by_masked"}


def head_scores(attention: Tensor, observed: Tensor, columns: int) -> dict[str, Tensor]:
    """Scores (L, H) of attention (L, B, H, N, N), row = query, for masks (B, N): means over queries and matrices.

    row, column: attention to the other cells of the query's row, column; self: to the query; observed_by_masked,
    observed_by_observed: to observed cells, by kind of query; entropy: of a query's attention, over ln N.
    """
    cells = attention.shape[-1]
    cell = torch.arange(cells, device=attention.device)
    itself = cell[:, None] == cell
    row, column = (line[:, None] == line for line in (cell // columns, cell % columns))
    mean, shown = attention.mean(1), observed.to(attention.dtype)
    seen = torch.einsum("lbhqk,bk->lbhq", attention, shown)

    def to(keys: Tensor) -> Tensor:
        return (mean * keys).sum((-1, -2)) / cells

    def seen_by(queries: Tensor) -> Tensor:
        return torch.einsum("lbhq,bq->lh", seen, queries) / queries.sum()

    return {
        "row": to(row & ~itself),
        "column": to(column & ~itself),
        "self": to(itself),
        "observed_by_masked": seen_by(1 - shown),
        "observed_by_observed": seen_by(shown),
        "entropy": torch.special.entr(attention).sum(-1).mean((1, 3)) / math.log(cells),
    }


def chance(observed: Tensor, columns: int) -> dict[str, float]:
    """The scores of uniform attention under masks (B, N)."""
    cells = observed.shape[1]
    uniform = torch.full((1, len(observed), 1, cells, cells), 1 / cells, device=observed.device)
    return {name: float(score) for name, score in head_scores(uniform, observed, columns).items()}


def best(scores: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    """(layer, head), from 0, that looks most at rows, at columns, and from hidden cells at observed ones."""
    return {name: divmod(int(scores[key].argmax()), scores[key].shape[1]) for name, key in FOLLOWED.items()}


def kinds(scores: dict[str, Tensor], levels: dict[str, float], threshold: float) -> dict[str, Tensor]:
    """Every head in one group: masks (L, H) under the names in KINDS.

    A score s with chance c counts as (s - c) / (1 - c), 0 for uniform attention and 1 for all of it. The largest of
    row, column and self decides, if it reaches the threshold; else `observed`, if hidden queries' observed mass does;
    else `other`.
    """
    gain = {name: (score - levels[name]) / (1 - levels[name]) for name, score in scores.items()}
    lines = torch.stack([gain[name] for name in ("row", "column", "self")])
    strongest = torch.where(lines.amax(0) >= threshold, lines.argmax(0), 3)
    strongest = torch.where((strongest == 3) & (gain["observed_by_masked"] < threshold), 4, strongest)
    return {name: strongest == number for number, name in enumerate(KINDS)}
