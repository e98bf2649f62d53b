"""What every head attends to, before and after the drop (paper Figs 4, 5, 22, 23).

Maps are averaged over a batch; scores say how much of a head's attention goes to the query's own row, its own column,
itself, and to observed cells. Besides the run's own masks there are structured ones that hide whole rows or columns.
"""

import common.process  # noqa: F401

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end
from abrupt_learning.analysis._maps import draw as draw
from abrupt_learning.analysis._maps import draw_masks, draw_progress
from abrupt_learning.data import Batch, from_values
from abrupt_learning.estimators.attention_scores import best, chance, head_scores
from abrupt_learning.estimators.interventions import record
from abrupt_learning.evaluate import Analysis, Matrices, Trained, rounded
from common import experiment
from common.claims import Claim, by_seed
from common.plain import plain

HIDDEN_ROWS = {3: 1, 6: 5}
"""Hidden row of 7 -> the one cell it shows, counted from 1 (Figs 5, 23)."""


@dataclass
class Settings(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["early", "before", "after", "late", "end"])
    """Where to look; the paper's Fig 22 has steps 4000, 14000, 16000 and 20000 of 50000."""
    matrices: Matrices = 256
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


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: size (rows, columns); shown (index of the seed drawn); chance -> mask -> score; patterns -> mask -> cells shown;
    steps -> milestone: {values, mean, error} over seeds; scores -> seed -> mask -> milestone -> score -> (L, H); heads ->
    seed -> followed head -> [layer, head] from 0; maps of the seed drawn: grid -> mask -> every head at the last milestone,
    progress -> followed head -> milestone.

    Followed are, per seed, the heads of the best scores at the last milestone under the run's own masks.
    """
    tests, size, last = batches(trained, settings), trained.data.sizes[0], settings.milestones[-1]
    shown = next((i for i, seed in enumerate(trained.seeds) if trained.drop(seed).half), 0)
    scores, maps = zip(*(look(trained, settings, tests, seed) for seed in trained.seeds), strict=True)
    heads = [best(seed["none"][last]) for seed in scores]
    own = maps[shown]["none"].items()
    result = {
        "size": size,
        "shown": shown,
        "steps": trained.milestones(settings.milestones),
        "chance": {kind: chance(batch.observed, size[1]) for kind, batch in tests.items()},
        "patterns": {kind: batch.observed[0].int() for kind, batch in tests.items() if kind != "none"},
        "scores": scores,
        "heads": heads,
        "maps": {
            "grid": {kind: rounded(rows[last]) for kind, rows in maps[shown].items()},
            "progress": {name: {at: rounded(m[head]) for at, m in own} for name, head in heads[shown].items()},
        },
    }
    result = plain(result)
    for name, picture in (("progress", draw_progress), ("masks", draw_masks)):
        trained.run.figure(f"attention_maps_{name}", picture(result), result | {"scores": None})
    return result


def strongest(result: dict, at: str, score: str) -> list[float]:
    """Per seed the highest score of any head under the run's own masks."""
    return [max(map(max, seed["none"][at][score])) for seed in result["scores"]]


def finding(result: dict) -> str:
    first, *_, last = result["steps"]
    parts = []
    for name in ("row", "column"):
        early, late = (sum(seeds) / len(seeds) for seeds in (strongest(result, at, name) for at in (first, last)))
        parts.append(f"own {name} {early:.2f} -> {late:.2f} (chance {result['chance']['none'][name]:.2f})")
    return f"attention of the best head, {first} -> {last}: {', '.join(parts)}"


def over_chance(result: dict, at: str, pick) -> list[float]:
    """Per seed the lesser or greater (pick: min or max) of the best row and the best column score, over chance."""
    chance = result["chance"]["none"]
    scores = by_seed(strongest(result, at, "row"), strongest(result, at, "column"))
    return [pick(row / chance["row"], column / chance["column"]) for row, column in scores]


LESSER, BEFORE = "lesser of best row and column score / chance", "greater of the two on the plateau / chance"
JUMP, AFTER = "lesser score at 16/15 / at 14/15", "lesser score at 16/15 / chance"
CLOSE = "greater score at 14/15 / chance"
HIDDEN, OWN = "share beyond chance, hidden rows or columns", "share beyond chance, the run's own masks"


def structured_heads(result: dict, loss: dict) -> dict[str, list]:
    """At the end, and on the plateau (4/15 t_drop)."""
    return {LESSER: over_chance(result, "end", min), BEFORE: over_chance(result, "early", max), **at_end(loss)}


def across_the_drop(result: dict, loss: dict) -> dict[str, list]:
    """Just before the drop and just after it."""
    after, before = (over_chance(result, at, min) for at in ("after", "before"))
    jumps = [late / early for late, early in by_seed(after, before)]
    return {JUMP: jumps, AFTER: after, CLOSE: over_chance(result, "before", max), **at_end(loss)}


def observed_mass(result: dict, loss: dict) -> dict[str, list]:
    """Attention from hidden to shown cells of the head that has most of it: 0 at chance, 1 for all of it.

    A structured mask is the same in every matrix, so that a head which always looks at one shown cell would do there.
    """

    def beyond(kind: str) -> list[float]:
        chance, name = result["chance"][kind]["observed_by_masked"], "observed_by_masked"
        heads = by_seed(result["scores"], [heads["observed"] for heads in result["heads"]])
        mass = [seed[kind]["end"][name][layer][head] for seed, (layer, head) in heads]
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
