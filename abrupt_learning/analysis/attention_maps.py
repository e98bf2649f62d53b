"""What every head attends to, before and after the drop (paper Figs 4, 5, 22, 23, sheet C7 to C9).

Maps are averaged over a batch; scores say how much of a head's attention goes to the query's own row, its own column,
itself, and to observed cells. Besides the run's own masks there are structured ones that hide whole rows or columns.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.analysis._heads import FOLLOWED, best, chance, head_scores
from abrupt_learning.analysis._maps import draw, draw_masks, draw_progress
from abrupt_learning.data import Batch, from_values
from abrupt_learning.evaluate import Trained
from abrupt_learning.interventions import record
from common.config import UserError

DESIGNED = 7  # the size that the paper's masked rows belong to


@dataclass
class AttentionMaps(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["early", "before", "after", "late", "end"])
    """Where to look; the paper's Fig 22 has steps 4000, 14000, 16000 and 20000 of 50000."""
    masks: list[str] = field(default_factory=lambda: ["none", "row", "col"])
    """none: the run's own masks. row: two rows hidden but for one cell each. col: the same for columns."""
    masked_rows: list[int] = field(default_factory=lambda: [3, 6])
    """Rows (columns, for col) hidden by a structured mask, counted from 1; scaled down where there are fewer than 7."""
    shown_cells: list[int] = field(default_factory=lambda: [1, 5])
    """Place of the one cell that each of them shows, counted from 1."""
    matrices: int = 256
    """Matrices that maps and scores are averaged over."""

    def __post_init__(self):
        if len(self.masked_rows) != len(self.shown_cells):
            raise ValueError(
                f"masked_rows {self.masked_rows} and shown_cells {self.shown_cells}: expected one cell per row"
            )
        if unknown := sorted(set(self.masks) - {"none", "row", "col"}):
            raise ValueError(f"masks has {', '.join(unknown)}; expected some of none, row, col")


def index(place: int, length: int) -> int:
    """0-based index of a place that counts from 1; along fewer than 7 it is scaled, so that 7 stays the last."""
    if not 1 <= place <= max(length, DESIGNED):
        raise UserError(
            f"found masked_rows or shown_cells at {place}, expected 1 to {max(length, DESIGNED)}; "
            "the paper's: --masked_rows [3,6] --shown_cells [1,5]"
        )
    return math.ceil(place * min(length, DESIGNED) / DESIGNED) - 1


def structured(size: list[int], settings: AttentionMaps, kind: str) -> Tensor:
    """Mask (N,), True where shown: whole rows (kind row) or columns (kind col) hidden but for one cell each."""
    m, n = size
    if kind == "col":
        return structured([n, m], settings, "row").view(n, m).T.flatten()
    observed = torch.ones(m, n, dtype=torch.bool)
    for row, cell in zip(settings.masked_rows, settings.shown_cells, strict=True):
        observed[index(row, m)] = False
        observed[index(row, m), index(cell, n)] = True
    return observed.flatten()


def batches(trained: Trained, settings: AttentionMaps) -> dict[str, Batch]:
    """The same matrices under each kind of mask; a structured mask is one for the whole batch."""
    own = trained.matrices(settings.matrices)
    result = {}
    for kind in settings.masks:
        if kind == "none":
            result[kind] = own
        else:
            observed = structured(trained.data.sizes[0], settings, kind).to(trained.device)
            result[kind] = from_values(own.target, observed.expand(len(own.ids), -1), trained.data)
    return result


def rounded(values: Tensor) -> list:
    """Nested lists with four decimals, for the result file."""
    return values.double().round(decimals=4).tolist()


def look(trained: Trained, settings: AttentionMaps, tests: dict[str, Batch], seed: int) -> tuple[dict, dict]:
    """Of one seed, by kind of mask and milestone: scores (L, H) by name, and maps (L, H, N, N)."""
    scores, maps = ({kind: {} for kind in tests} for _ in range(2))
    for at in settings.milestones:
        model = trained.model(seed, at)
        for kind, batch in tests.items():
            attention = record(model, batch.ids, "attention")["attention"]
            scores[kind][at] = head_scores(attention, batch.observed, trained.data.sizes[0][1])
            maps[kind][at] = attention.mean(1)
    return scores, maps


def numbers(scores: dict, followed: dict[str, tuple[int, int]]) -> dict:
    """Of one seed: the highest scores of any head, and all scores of the heads that are followed."""

    def each(pick) -> dict:
        return {kind: {at: pick(row) for at, row in rows.items()} for kind, rows in scores.items()}

    def of_head(row: dict[str, Tensor], place: tuple[int, int]) -> dict[str, float]:
        return {name: float(score[place]) for name, score in row.items()}

    return {
        "heads": {name: {"layer": layer + 1, "head": head + 1} for name, (layer, head) in followed.items()},
        "maximum": each(lambda row: {name: float(row[key].max()) for name, key in FOLLOWED.items()}),
        "followed": each(lambda row: {name: of_head(row, place) for name, place in followed.items()}),
        "scores": each(lambda row: {name: rounded(score) for name, score in row.items()}),
    }


def pictures(maps: dict, followed: dict[str, tuple[int, int]], last: str) -> dict:
    """Of one seed: every map at the last milestone, and those of the followed heads at all, under the first mask."""
    own = next(iter(maps.values()))
    return {
        "grid": {kind: rounded(rows[last]) for kind, rows in maps.items()},
        "progress": {name: {at: rounded(m[place]) for at, m in own.items()} for name, place in followed.items()},
    }


def analyse(trained: Trained, settings: AttentionMaps) -> dict:
    """Followed are, per seed, the heads of the best scores at the last milestone under the first mask."""
    tests = batches(trained, settings)
    size, last = trained.data.sizes[0], settings.milestones[-1]
    shown = next((i for i, seed in enumerate(trained.seeds) if trained.drop(seed).half), 0)
    rows, steps = [], []
    for place, seed in enumerate(trained.seeds):
        scores, maps = look(trained, settings, tests, seed)
        followed = best(scores[settings.masks[0]][last])
        rows.append(numbers(scores, followed))
        steps.append({at: trained.milestone(seed, at) for at in settings.milestones})
        if place == shown:
            drawn = pictures(maps, followed, last)
    scores = [row.pop("scores") for row in rows]
    result = {
        "size": size,
        "shown": shown,
        "steps": over_seeds(steps),
        "chance": {kind: chance(batch.observed, size[1]) for kind, batch in tests.items()},
        "patterns": {kind: batch.observed[0].int().tolist() for kind, batch in tests.items() if kind != "none"},
        **over_seeds(rows),
        "scores": scores,
        "maps": drawn,
    }
    trained.run.figure("attention_maps_progress", draw_progress(result), result | {"scores": None})
    if result["patterns"]:
        trained.run.figure("attention_maps_masks", draw_masks(result), result | {"scores": None})
    return result


def finding(result: dict) -> str:
    kind, milestones = result["settings"]["masks"][0], result["settings"]["milestones"]
    parts = []
    for name in ("row", "column"):
        first, last = (result["maximum"][kind][milestones[i]][name]["mean"] for i in (0, -1))
        parts.append(f"own {name} {first:.2f} -> {last:.2f} (chance {result['chance'][kind][name]:.2f})")
    return f"attention of the best head, {milestones[0]} -> {milestones[-1]}: {', '.join(parts)}"


if __name__ == "__main__":
    perform("attention_maps", AttentionMaps, analyse, draw, finding)
