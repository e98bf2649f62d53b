"""What the token and position tables look like, when that forms, and what it is for (paper Figs 7, 9, 10).

Scores come from every seed and are taken in the tables themselves; the scatter pictures show the seed of lowest final L_mask.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field

import torch
from torch import Tensor

from abrupt_learning.analysis._embeddings_figure import draw as draw
from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end, over
from abrupt_learning.data import Batch, Data
from abrupt_learning.estimators import geometry
from abrupt_learning.estimators.marginal import entry_shares
from abrupt_learning.estimators.tsne import tsne
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, predict, rounded
from common import experiment
from common.claims import Claim, by_seed
from common.device import generator
from common.experiment import over_seeds
from common.limits import Count, Positive, Share


@dataclass
class Settings(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["early", "middle", "before", "after", "late"])
    """Checkpoints to look at, beside the end; the paper's 4000, 10000, 14000, 16000 and 20000."""
    largest: Positive = 1.5
    """Values up to this size are looked at, as far as the law and the vocabulary reach."""
    rarest: Share = 1e-5
    """Values with a smaller probability per entry are left out: their rows were hardly ever trained."""
    perplexity: Positive = 10.0
    """Perplexity of t-SNE, held below (cells - 1) / 3."""
    permutations: Count = 20
    """Random orders of the position table."""
    matrices: Matrices = 256
    """Matrices each order is tested on."""


def trained_values(data: Data, largest: float, rarest: float) -> Tensor:
    """Sorted integers k = 10^precision v, without 0, that the run really trains on: |v| <= largest, P(v) >= rarest."""
    k = torch.arange(-data.half, data.half + 1)
    return k[(entry_shares(data) >= rarest) & (k.abs() <= round(largest * 10**data.precision)) & (k != 0)]


def permuted(model, batch: Batch, order: Tensor) -> Tensor:
    """Predictions (B, N) where cell k carries the position vector of cell order[k].

    The encoder knows no other order, so the cells are moved to these places and read there.
    """
    ids = torch.empty_like(batch.ids)
    ids[:, order] = batch.ids
    return predict(model, ids)[:, order]


def structured_orders(rows: int, columns: int) -> dict[str, Tensor]:
    """Orders of the cells that keep matrices low rank: as it was, two rows or columns swapped, the transpose if square."""
    grid = torch.arange(rows * columns).view(rows, columns)
    swapped = [torch.tensor([1, 0, *range(2, size)][-size:]) for size in (rows, columns)]
    orders = {"identity": grid, "swap_rows": grid[swapped[0]], "swap_columns": grid[:, swapped[1]]}
    orders |= {"transpose": grid.T} if rows == columns else {}
    return {name: order.flatten() for name, order in orders.items()}


def permute(trained: Trained, settings: Settings) -> list[dict]:
    """Per seed the losses for each structured order, and their means over the random ones."""
    batch, orders = trained.matrices(settings.matrices), structured_orders(*trained.data.sizes[0])
    draws = generator("cpu", 0, "permutations")
    random = [torch.randperm(batch.ids.shape[1], generator=draws) for _ in range(settings.permutations)]
    rows = []
    for seed in trained.seeds:
        model = trained.model(seed)
        shuffled = [losses(permuted(model, batch, order), batch) for order in random]
        means = {name: float(torch.tensor([row[name] for row in shuffled]).mean()) for name in shuffled[0]}
        rows.append({name: losses(permuted(model, batch, order), batch) for name, order in orders.items()})
        rows[-1]["random"] = means
    return rows


def tables(trained: Trained, seed: int, milestone: str, k: Tensor) -> tuple[Tensor, Tensor]:
    """Token vectors (T, d) of the values k (T,), and position vectors (N, d), float64 on the CPU."""
    parts, (m, n) = trained.model(seed, milestone).embeddings, trained.data.sizes[0]
    token, position = (t.weight.cpu().double() for t in (parts.word_embeddings, parts.position_embeddings))
    return token[k + trained.data.half + 1], position[: m * n]


def token_scores(token: Tensor, end: Tensor, k: Tensor) -> dict:
    """Sign, magnitude and symmetry of token vectors, on their own components and on the final ones, centred as those."""
    axes = {"own_axes": geometry.principal_axes(token), "final_axes": geometry.principal_axes(end)}
    scores = {name: geometry.sign_and_magnitude((token - mean) @ axis, k) for name, (mean, axis) in axes.items()}
    return scores | {"symmetry": geometry.symmetry(token, k)}


def token_maps(tokens: dict[str, Tensor]) -> dict[str, list]:
    """Milestone -> points on the final two components."""
    mean, axes = geometry.principal_axes(tokens["end"])
    return {name: rounded((token - mean) @ axes) for name, token in tokens.items()}


def position_maps(positions: dict[str, Tensor], perplexity: float) -> dict[str, list]:
    """Milestone -> points: each picture is a t-SNE of its own, of unit size, turned onto the last one."""
    pictures = tsne(torch.stack(list(positions.values())), perplexity)
    pictures = pictures / pictures.square().mean((1, 2), keepdim=True).sqrt()
    turned = (geometry.turned_onto(picture, pictures[-1]) for picture in pictures)
    return {name: rounded(picture) for name, picture in zip(positions, turned, strict=True)}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps -> milestone; values (looked at); grid (rows, columns); variance; pictured_seed; tokens -> milestone ->
    own_axes, final_axes -> sign, magnitude, and symmetry; positions -> milestone -> purity by column, row; permute ->
    order -> loss: {values, mean, error} over seeds; chance -> purity; norms -> tokens, positions -> seed -> row;
    maps -> tokens, positions -> milestone -> points of the seed pictured.
    """
    (m, n), names = trained.data.sizes[0], [*settings.milestones, "end"]
    k = trained_values(trained.data, settings.largest, settings.rarest)
    seen = [{name: tables(trained, seed, name, k) for name in names} for seed in trained.seeds]
    tokens, positions = ([{at: pair[i] for at, pair in row.items()} for row in seen] for i in (0, 1))
    finals = [trained.drop(seed).final for seed in trained.seeds]
    shown = finals.index(min(finals))
    return {
        "steps": trained.milestones(names),
        "values": rounded(k / 10**trained.data.precision),
        "grid": [m, n],
        "variance": trained.data.variance,
        "pictured_seed": trained.seeds[shown],
        "tokens": over_seeds([{at: token_scores(t, row["end"], k) for at, t in row.items()} for row in tokens]),
        "positions": over_seeds([{at: geometry.purity(p, n) for at, p in row.items()} for row in positions]),
        "chance": geometry.chance_purity(m, n),
        "norms": {
            name: [rounded(row["end"].norm(dim=1)) for row in rows]
            for name, rows in (("tokens", tokens), ("positions", positions))
        },
        "maps": {
            "tokens": token_maps(tokens[shown]),
            "positions": position_maps(positions[shown], settings.perplexity),
        },
        "permute": over_seeds(permute(trained, settings)),
    }


def finding(result: dict) -> str:
    token, near, chance = result["tokens"]["end"], result["positions"]["end"], result["chance"]
    sign, magnitude = (token["own_axes"][name]["mean"] for name in ("sign", "magnitude"))
    shares = [f"{line} {near[line]['mean']:.0%} (chance {chance[line]:.0%})" for line in ("column", "row")]
    before, after = (result["permute"][name]["loss_masked"]["mean"] for name in ("identity", "random"))
    return (
        f"norms of v and -v correlate {token['symmetry']['mean']:.2f}; two components are sign and magnitude "
        f"(|r| {sign:.2f}, {magnitude:.2f}); nearest position in the same {', '.join(shares)}; "
        f"positions shuffled: L_mask {before:.3f} -> {after:.3f} (Var {result['variance']:.3f})"
    )


SYMMETRY, SIGN, MAGNITUDE = "correlation of |e(v)| and |e(-v)|", "|r| with sign", "|r| with magnitude"
PURITY = "nearest neighbours in the same line / chance"
TOKENS, POSITIONS, MEASURABLE = "share of the tokens' structure", "share of the positions' structure", 0.1
COMPLETION, COPYING = "L_mask / Var under random orders", "L_obs / Var under random orders"


def token_components(result: dict, loss: dict) -> dict[str, list]:
    scores = result["tokens"]["end"]["own_axes"]
    return {SIGN: scores["sign"]["values"], MAGNITUDE: scores["magnitude"]["values"], **at_end(loss)}


def pairs(scores: dict, *names: str) -> list[tuple]:
    """Per seed two scores by name."""
    return by_seed(*(scores[name]["values"] for name in names))


def position_lines(result: dict, loss: dict) -> dict[str, list]:
    """By row or by column: in a square problem the two are mirror images, and each seed takes one."""
    lines = (over(result["positions"]["end"][line], result["chance"][line]) for line in ("row", "column"))
    return {PURITY: [max(pair) for pair in by_seed(*lines)], **at_end(loss)}


def which_lines(result: dict, loss: dict) -> str:
    lines = pairs(result["positions"]["end"], "row", "column")
    return "by seed: " + ", ".join("column" if column > row else "row" for row, column in lines)


MOMENTS = ("middle", "after", "late")


def formed_with_the_drop(result: dict, loss: dict) -> dict[str, list]:
    """Share of each score at 20/15 of t_drop, beyond chance, that is gained between 10/15 and 16/15."""
    chance = max(result["chance"][line] for line in ("row", "column"))
    tokens = ([sum(pair) for pair in pairs(result["tokens"][at]["own_axes"], "sign", "magnitude")] for at in MOMENTS)
    lines = ([max(pair) - chance for pair in pairs(result["positions"][at], "row", "column")] for at in MOMENTS)
    structures = {TOKENS: tokens, POSITIONS: lines}
    return {name: [gained(*seed) for seed in by_seed(*scores)] for name, scores in structures.items()} | at_end(loss)


def gained(middle: float, after: float, late: float) -> float | None:
    """Share of the late score that came from middle to after; None where there is hardly a score."""
    return (after - middle) / late if late > MEASURABLE else None


def permuted_positions(result: dict, loss: dict) -> dict[str, list]:
    shuffled = {COMPLETION: "loss_masked", COPYING: "loss_observed"}
    levels = {name: over(result["permute"]["random"][part], result["variance"]) for name, part in shuffled.items()}
    return levels | at_end(loss)


HERE = ("embeddings", "loss")
CLAIMS = [
    Claim("C14", "In the trained model token-embedding norms are symmetric about 0.", source="Fig 7a", presets=ALL,
          needs=HERE, above={SYMMETRY: 0.9}, below=COMPLETES,
          number=lambda result, loss: {SYMMETRY: result["tokens"]["end"]["symmetry"]["values"]} | at_end(loss)),
    Claim("C15", "In the trained model the top two components of the token embeddings are sign and magnitude.",
          source="Fig 7b", presets=ALL, needs=HERE, number=token_components, above={SIGN: 0.7, MAGNITUDE: 0.7},
          below=COMPLETES),
    Claim("C16", "In the trained model positional embeddings cluster by column (or by row, its mirror image).",
          source="Fig 7c", presets=ALL, needs=HERE, number=position_lines, above={PURITY: 2}, below=COMPLETES,
          note=which_lines),
    Claim("C17", "Both structures appear with the drop: more than half of each comes between 10/15 and 16/15 of t_drop.",
          source="Figs 9, 10", presets=ALL, needs=HERE, number=formed_with_the_drop, above={TOKENS: 0.5, POSITIONS: 0.5},
          below=COMPLETES),
    Claim("C18", "Permuting the positions breaks completion and hardly touches copying.", source="section 4, text",
          presets=ALL, needs=HERE, number=permuted_positions, above={COMPLETION: 0.7}, below={COPYING: 0.1} | COMPLETES),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
