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
from abrupt_learning.evaluate import Analysis, Trained, rounded
from common import experiment
from common.claims import Claim, by_seed
from common.experiment import over_seeds

HIDDEN_ROWS = {3: 1, 6: 5}
"""Hidden row of 7 -> the one cell it shows, counted from 1 (Figs 5, 23)."""


@dataclass
class Settings(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["early", "before", "after", "late", "end"])
    """Where to look; the paper's Fig 22 has steps 4000, 14000, 16000 and 20000 of 50000."""
    matrices: int = 256
    """Matrices that maps and scores are averaged over."""


def structured(size: list[int], kind: str) -> Tensor:
    """Mask (N,), True where shown: HIDDEN_ROWS (kind row), or such columns (col), hidden but for one cell each.

    Along fewer than 7 rows or cells they are scaled, so that 7 stays the last.
    """
    m, n = size
    if kind == "col":
        return structured([n, m], "row").view(n, m).T.flatten()
    observed = torch.ones(m, n, dtype=torch.bool)
    for row, cell in HIDDEN_ROWS.items():
        i, j = (math.ceil(number * min(length, 7) / 7) - 1 for number, length in ((row, m), (cell, n)))
        observed[i] = False
        observed[i, j] = True
    return observed.flatten()


def batches(trained: Trained, settings: Settings) -> dict[str, Batch]:
    """The same matrices under the run's own masks (none) and under structured ones, the same for the whole batch."""
    own = trained.matrices(settings.matrices)
    masks = {kind: structured(trained.data.sizes[0], kind).to(trained.device) for kind in ("row", "col")}
    hidden = {kind: from_values(own.target, mask.expand_as(own.observed), trained.data) for kind, mask in masks.items()}
    return {"none": own} | hidden


def of_head(row: dict[str, Tensor], head: tuple[int, int]) -> dict[str, float]:
    return {name: float(score[head]) for name, score in row.items()}


def of_seed(trained: Trained, settings: Settings, tests: dict[str, Batch], seed: int) -> tuple[dict, dict, dict]:
    """Numbers as in `analyse`; scores by mask and milestone; maps (L, H, N, N) at the last one, and of followed heads."""
    scores, maps = ({kind: {} for kind in tests} for _ in range(2))
    for at in settings.milestones:
        model = trained.model(seed, at)
        for kind, batch in tests.items():
            attention = record(model, batch.ids, "attention")["attention"]
            scores[kind][at] = head_scores(attention, batch.observed, trained.data.sizes[0][1])
            maps[kind][at] = attention.mean(1)
    followed = best(scores["none"][at])

    def each(pick) -> dict:
        return {kind: {at: pick(row) for at, row in rows.items()} for kind, rows in scores.items()}

    numbers = {
        "heads": {name: {"layer": layer + 1, "head": head + 1} for name, (layer, head) in followed.items()},
        "maximum": each(lambda row: {name: float(row[key].max()) for name, key in FOLLOWED.items()}),
        "followed": each(lambda row: {name: of_head(row, head) for name, head in followed.items()}),
    }
    pictures = {
        "grid": {kind: rounded(rows[at]) for kind, rows in maps.items()},
        "progress": {name: {at: rounded(m[head]) for at, m in maps["none"].items()} for name, head in followed.items()},
    }
    return numbers, each(lambda row: {name: rounded(score) for name, score in row.items()}), pictures


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: size (rows, columns); shown (index of the seed drawn); chance -> mask -> score; patterns -> mask -> cells
    shown; steps -> milestone, heads -> followed head -> layer and head, maximum -> mask -> milestone -> best score,
    followed -> mask -> milestone -> followed head -> score: {values, mean, error} over seeds; scores -> seed -> mask ->
    milestone -> score -> (L, H); maps of the seed drawn.

    Followed are, per seed, the heads of the best scores at the last milestone under the run's own masks.
    """
    tests, size = batches(trained, settings), trained.data.sizes[0]
    shown = next((i for i, seed in enumerate(trained.seeds) if trained.drop(seed).half), 0)
    rows, scores, maps = zip(*(of_seed(trained, settings, tests, seed) for seed in trained.seeds), strict=True)
    result = {
        "size": size,
        "shown": shown,
        "steps": trained.milestones(settings.milestones),
        "chance": {kind: chance(batch.observed, size[1]) for kind, batch in tests.items()},
        "patterns": {kind: batch.observed[0].int().tolist() for kind, batch in tests.items() if kind != "none"},
        **over_seeds(rows),
        "scores": scores,
        "maps": maps[shown],
    }
    for name, picture in (("progress", draw_progress), ("masks", draw_masks)):
        trained.run.figure(f"attention_maps_{name}", picture(result), result | {"scores": None})
    return result


def finding(result: dict) -> str:
    milestones = result["settings"]["milestones"]
    parts = []
    for name in ("row", "column"):
        first, last = (result["maximum"]["none"][milestones[i]][name]["mean"] for i in (0, -1))
        parts.append(f"own {name} {first:.2f} -> {last:.2f} (chance {result['chance']['none'][name]:.2f})")
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
