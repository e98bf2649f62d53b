"""What every head attends to, before and after the drop (paper Figs 4, 5, 22, 23).

Maps are averaged over a batch; scores say how much of a head's attention goes to the query's own row, its own column,
itself, and to observed cells. Besides the run's own masks there are structured ones that hide whole rows or columns.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end
from abrupt_learning.analysis._maps import draw as draw
from abrupt_learning.analysis._maps import draw_masks, draw_progress
from abrupt_learning.data import Batch, from_values
from abrupt_learning.estimators.attention_scores import FOLLOWED, best, chance, head_scores
from abrupt_learning.estimators.interventions import record
from abrupt_learning.evaluate import Analysis, Trained
from common import experiment
from common.claims import Claim, by_seed
from common.config import UserError
from common.experiment import over_seeds

DESIGNED = 7  # the size that the paper's masked rows belong to


@dataclass
class Settings(Analysis):
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


def index(number: int, length: int) -> int:
    """0-based index of a row or cell that counts from 1; along fewer than 7 it is scaled, so that 7 stays the last."""
    if not 1 <= number <= max(length, DESIGNED):
        raise UserError(
            f"found masked_rows or shown_cells at {number}, expected 1 to {max(length, DESIGNED)}; "
            "the paper's: --masked_rows [3,6] --shown_cells [1,5]"
        )
    return math.ceil(number * min(length, DESIGNED) / DESIGNED) - 1


def structured(size: list[int], settings: Settings, kind: str) -> Tensor:
    """Mask (N,), True where shown: whole rows (kind row) or columns (kind col) hidden but for one cell each."""
    m, n = size
    if kind == "col":
        return structured([n, m], settings, "row").view(n, m).T.flatten()
    observed = torch.ones(m, n, dtype=torch.bool)
    for row, cell in zip(settings.masked_rows, settings.shown_cells, strict=True):
        observed[index(row, m)] = False
        observed[index(row, m), index(cell, n)] = True
    return observed.flatten()


def batches(trained: Trained, settings: Settings) -> dict[str, Batch]:
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


def look(trained: Trained, settings: Settings, tests: dict[str, Batch], seed: int) -> tuple[dict, dict]:
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

    def of_head(row: dict[str, Tensor], head: tuple[int, int]) -> dict[str, float]:
        return {name: float(score[head]) for name, score in row.items()}

    return {
        "heads": {name: {"layer": layer + 1, "head": head + 1} for name, (layer, head) in followed.items()},
        "maximum": each(lambda row: {name: float(row[key].max()) for name, key in FOLLOWED.items()}),
        "followed": each(lambda row: {name: of_head(row, head) for name, head in followed.items()}),
        "scores": each(lambda row: {name: rounded(score) for name, score in row.items()}),
    }


def pictures(maps: dict, followed: dict[str, tuple[int, int]], last: str) -> dict:
    """Of one seed: every map at the last milestone, and those of the followed heads at all, under the first mask."""
    own = next(iter(maps.values()))
    return {
        "grid": {kind: rounded(rows[last]) for kind, rows in maps.items()},
        "progress": {name: {at: rounded(m[head]) for at, m in own.items()} for name, head in followed.items()},
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: size (rows, columns); shown (index of the seed drawn); chance -> mask -> score; patterns -> mask -> cells
    shown; steps -> milestone, heads -> followed head -> layer and head, maximum -> mask -> milestone -> best score,
    followed -> mask -> milestone -> followed head -> score: {values, mean, error} over seeds; scores -> seed -> mask ->
    milestone -> score -> (L, H); maps of the seed drawn.

    Followed are, per seed, the heads of the best scores at the last milestone under the first mask.
    """
    tests = batches(trained, settings)
    size, last = trained.data.sizes[0], settings.milestones[-1]
    shown = next((i for i, seed in enumerate(trained.seeds) if trained.drop(seed).half), 0)
    rows, steps = [], []
    for number, seed in enumerate(trained.seeds):
        scores, maps = look(trained, settings, tests, seed)
        followed = best(scores[settings.masks[0]][last])
        rows.append(numbers(scores, followed))
        steps.append({at: trained.milestone(seed, at) for at in settings.milestones})
        if number == shown:
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


def over_chance(result: dict, at: str, pick) -> list[float]:
    """Per seed the lesser or greater (pick: min or max) of the best row and the best column score, over chance."""
    chance, best_scores = result["chance"]["none"], result["maximum"]["none"][at]
    scores = by_seed(*(best_scores[line]["values"] for line in ("row", "column")))
    return [pick(row / chance["row"], column / chance["column"]) for row, column in scores]


LESSER, BEFORE = "lesser of best row and column score / chance", "greater of the two on the plateau / chance"


def structured_heads(result: dict, loss: dict) -> dict[str, list]:
    """At the end, and on the plateau (4/15 t_drop)."""
    return {LESSER: over_chance(result, "end", min), BEFORE: over_chance(result, "early", max), **at_end(loss)}


JUMP, AFTER = "lesser score at 16/15 / at 14/15", "lesser score at 16/15 / chance"
CLOSE = "greater score at 14/15 / chance"


def across_the_drop(result: dict, loss: dict) -> dict[str, list]:
    """Just before the drop and just after it."""
    after, before = (over_chance(result, at, min) for at in ("after", "before"))
    jumps = [late / early for late, early in zip(after, before, strict=True)]
    return {JUMP: jumps, AFTER: after, CLOSE: over_chance(result, "before", max), **at_end(loss)}


HIDDEN, OWN = "share beyond chance, hidden rows or columns", "share beyond chance, the run's own masks"


def observed_mass(result: dict, loss: dict) -> dict[str, list]:
    """Attention from hidden to shown cells of the head that has most of it: 0 at chance, 1 for all of it.

    A structured mask is the same in every matrix, so that a head which always looks at one shown cell would do there.
    """

    def beyond(kind: str) -> list[float]:
        chance = result["chance"][kind]["observed_by_masked"]
        mass = result["followed"][kind]["end"]["observed"]["observed_by_masked"]["values"]
        return [(value - chance) / (1 - chance) for value in mass]

    return {HIDDEN: [min(pair) for pair in by_seed(beyond("row"), beyond("col"))], OWN: beyond("none"), **at_end(loss)}


CLAIMS = [
    Claim("C7", "After the drop heads attend to the query's row and to its column, and none on the plateau.", source="Fig 4",
          presets=ALL, needs=("attention_maps", "loss"), number=structured_heads, above={LESSER: 2},
          below={BEFORE: 1.5} | COMPLETES),
    Claim("C8", "Attention turns structured across the drop: between 14/15 and 16/15 of t_drop.", source="Fig 22",
          presets=ALL, needs=("attention_maps", "loss"), number=across_the_drop, above={JUMP: 1.25, AFTER: 1.5},
          below={CLOSE: 1.5} | COMPLETES),
    Claim("C9", "Under structured masks a head of the trained model looks for observed cells.", source="Figs 5, 23",
          presets=ALL, needs=("attention_maps", "loss"), number=observed_mass, above={HIDDEN: 0.5, OWN: 0.25},
          below=COMPLETES),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
