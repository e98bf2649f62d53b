"""What the token and position tables look like, when that forms, and what it is for (paper Figs 7, 9, 10).

Scores come from every seed and are taken in the tables themselves; the scatter pictures show the seed of lowest final L_mask.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from abrupt_learning.analysis._embeddings_figure import draw as draw
from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end, over
from abrupt_learning.data import Batch, Data
from abrupt_learning.estimators.geometry import (
    chance_purity,
    principal_axes,
    purity,
    sign_and_magnitude,
    symmetry,
    turned_onto,
)
from abrupt_learning.estimators.marginal import entry_shares
from abrupt_learning.estimators.tsne import tsne
from abrupt_learning.evaluate import Analysis, Trained, losses, predict
from common import experiment
from common.claims import Claim, by_seed
from common.device import generator
from common.experiment import over_seeds

Experiment = Literal[
    "token_norm", "token_pca", "position_norm", "position_tsne", "token_progress", "position_progress", "permute"
]


@dataclass
class Settings(Analysis):
    experiments: list[Experiment] = field(default_factory=lambda: list(EXPERIMENTS))
    """Which of the seven to do."""
    milestones: list[str] = field(default_factory=lambda: ["early", "middle", "before", "after", "late"])
    """Checkpoints of the two progress experiments, beside the end; the paper's 4000, 10000, 14000, 16000 and 20000."""
    largest: float = 1.5
    """Values up to this size are looked at, as far as the law and the vocabulary reach."""
    rarest: float = 1e-5
    """Values with a smaller probability per entry are left out: their rows were hardly ever trained."""
    perplexity: float = 10.0
    """Perplexity of t-SNE, held below (cells - 1) / 3."""
    permutations: int = 20
    """Random orders of the position table."""
    matrices: int = 256
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


@dataclass
class Table:
    """The two tables of one seed at one step, float64 on the CPU: token (T, d) of the values looked at, position (N, d)."""

    token: Tensor
    position: Tensor


class View:
    """What the experiments look at: the values k (T,), tables[seed][milestone] with the end last, which seed to picture."""

    def __init__(self, trained: Trained, settings: Settings):
        self.trained, self.settings = trained, settings
        self.rows, self.columns = trained.data.sizes[0]
        self.k = trained_values(trained.data, settings.largest, settings.rarest)
        progress = any(name.endswith("progress") for name in settings.experiments)
        names = [*(settings.milestones if progress else []), "end"]
        finals = [trained.drop(seed).final for seed in trained.seeds]
        self.pictured = finals.index(min(finals))
        self.steps = [{name: trained.milestone(seed, name) for name in names} for seed in trained.seeds]

    @cached_property
    def tables(self) -> list[dict[str, Table]]:
        return [
            {name: self.table(seed, step) for name, step in steps.items()}
            for seed, steps in zip(self.trained.seeds, self.steps, strict=True)
        ]

    @cached_property
    def end(self) -> list[Table]:
        return [at["end"] for at in self.tables]

    def table(self, seed: int, step: int) -> Table:
        parts = self.trained.model(seed, step).embeddings
        token, position = (t.weight.cpu().double() for t in (parts.word_embeddings, parts.position_embeddings))
        return Table(token[self.k + self.trained.data.half + 1], position[: self.rows * self.columns])


def rounded(values: Tensor) -> list:
    """Nested lists with 4 decimals."""
    return values.mul(1e4).round().div(1e4).tolist()


def token_norm(view: View) -> dict:
    """|e(v)| of every value, and how alike the norms of v and -v are."""
    norms = torch.stack([t.token.norm(dim=1) for t in view.end])
    return {"norms": rounded(norms), "symmetry": over_seeds([symmetry(t.token, view.k) for t in view.end])}


def token_pca(view: View) -> dict:
    """Two principal components of the token vectors, and whether they are sign and magnitude."""
    fits = [principal_axes(t.token) for t in view.end]
    scores = [(t.token - mean) @ axes for t, (mean, axes) in zip(view.end, fits, strict=True)]
    return over_seeds([sign_and_magnitude(s, view.k) for s in scores]) | {"map": rounded(scores[view.pictured])}


def position_norm(view: View) -> dict:
    """Norm of every position vector."""
    return {"norms": rounded(torch.stack([t.position.norm(dim=1) for t in view.end]))}


def position_tsne(view: View) -> dict:
    """How the position vectors cluster: purity in the table itself, a picture by t-SNE."""
    chance = chance_purity(view.rows, view.columns)
    scores = over_seeds([purity(t.position, view.columns) for t in view.end])
    picture = tsne(view.end[view.pictured].position, view.settings.perplexity)
    return scores | {"chance": chance, "map": rounded(picture)}


def token_progress(view: View) -> dict:
    """Scores on the final components, centred with the final mean, and on each checkpoint's own components."""

    def scores(table: Table, end: Table) -> dict:
        fits = {"final_axes": principal_axes(end.token), "own_axes": principal_axes(table.token)}
        on_axes = {name: sign_and_magnitude((table.token - mean) @ axes, view.k) for name, (mean, axes) in fits.items()}
        return on_axes | {"symmetry": symmetry(table.token, view.k)}

    pictured = view.tables[view.pictured]
    mean, axes = principal_axes(pictured["end"].token)
    maps = {name: rounded((table.token - mean) @ axes) for name, table in pictured.items()}
    rows = [{name: scores(table, at["end"]) for name, table in at.items()} for at in view.tables]
    return {"scores": over_seeds(rows), "maps": maps}


def position_progress(view: View) -> dict:
    """Purity at every checkpoint; each picture is a t-SNE of its own, of unit size, turned onto the last one."""
    pictured = view.tables[view.pictured]
    pictures = tsne(torch.stack([table.position for table in pictured.values()]), view.settings.perplexity)
    pictures = pictures / pictures.square().mean((1, 2), keepdim=True).sqrt()
    maps = {name: rounded(turned_onto(p, pictures[-1])) for name, p in zip(pictured, pictures, strict=True)}
    rows = [{name: purity(table.position, view.columns) for name, table in at.items()} for at in view.tables]
    return {"scores": over_seeds(rows), "maps": maps}


def permute(view: View) -> dict:
    """L, L_obs, L_mask for each structured order, and the mean and sd of each over the random ones."""
    batch = view.trained.matrices(view.settings.matrices)
    draws = generator("cpu", 0, "permutations")
    cells = view.rows * view.columns
    random = [torch.randperm(cells, generator=draws) for _ in range(view.settings.permutations)]
    rows = []
    for seed in view.trained.seeds:
        model = view.trained.model(seed)
        orders = structured_orders(view.rows, view.columns)
        row = {name: losses(permuted(model, batch, order), batch) for name, order in orders.items()}
        shuffled = [losses(permuted(model, batch, order), batch) for order in random]
        row["random"] = {}
        for name in ("loss", "loss_observed", "loss_masked"):
            values = torch.tensor([row_of[name] for row_of in shuffled])
            row["random"] |= {name: float(values.mean()), f"{name}_sd": float(values.std())}
        rows.append(row)
    return over_seeds(rows)


EXPERIMENTS = {
    function.__name__: function
    for function in (token_norm, token_pca, position_norm, position_tsne, token_progress, position_progress, permute)
}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps -> milestone; values (looked at); grid (rows, columns); variance; pictured_seed; and of each experiment its
    name -> scores as {values, mean, error} over seeds, beside norms (seed -> row) and maps (points of the seed pictured).
    """
    view = View(trained, settings)
    result = {"steps": over_seeds(view.steps), "values": rounded(view.k / 10**trained.data.precision)}
    result |= {"grid": [view.rows, view.columns], "variance": trained.data.variance}
    result |= {"pictured_seed": trained.seeds[view.pictured]}
    return result | {name: EXPERIMENTS[name](view) for name in settings.experiments}


def finding(result: dict) -> str:
    parts = []
    if "token_norm" in result:
        parts.append("norms of v and -v correlate {mean:.2f}".format(**result["token_norm"]["symmetry"]))
    if "token_pca" in result:
        sign, magnitude = (result["token_pca"][name]["mean"] for name in ("sign", "magnitude"))
        parts.append(f"two components are sign and magnitude (|r| {sign:.2f}, {magnitude:.2f})")
    if "position_tsne" in result:
        near, chance = result["position_tsne"], result["position_tsne"]["chance"]
        shares = [f"{x} {near[x]['mean']:.0%} (chance {chance[x]:.0%})" for x in ("column", "row")]
        parts.append(f"nearest position in the same {', '.join(shares)}")
    if "permute" in result:
        before, after = (result["permute"][name]["loss_masked"]["mean"] for name in ("identity", "random"))
        parts.append(f"positions shuffled: L_mask {before:.3f} -> {after:.3f} (Var {result['variance']:.3f})")
    return "; ".join(parts) or f"drawn: {', '.join(result['settings']['experiments'])}"


SYMMETRY, SIGN, MAGNITUDE = "correlation of |e(v)| and |e(-v)|", "|r| with sign", "|r| with magnitude"


def norm_symmetry(result: dict, loss: dict) -> dict[str, list]:
    return {SYMMETRY: result["token_norm"]["symmetry"]["values"], **at_end(loss)}


def token_components(result: dict, loss: dict) -> dict[str, list]:
    scores = result["token_pca"]
    return {SIGN: scores["sign"]["values"], MAGNITUDE: scores["magnitude"]["values"], **at_end(loss)}


PURITY = "nearest neighbours in the same line / chance"


def position_lines(result: dict, loss: dict) -> dict[str, list]:
    """By row or by column: in a square problem the two are mirror images, and each seed takes one."""
    near = result["position_tsne"]
    lines = (over(near[line], near["chance"][line]) for line in ("row", "column"))
    return {PURITY: [max(pair) for pair in by_seed(*lines)], **at_end(loss)}


def which_lines(result: dict, loss: dict) -> str:
    near = result["position_tsne"]
    pairs = by_seed(near["row"]["values"], near["column"]["values"])
    return "by seed: " + ", ".join("column" if column > row else "row" for row, column in pairs)


MOMENTS = ("middle", "after", "late")
TOKENS, POSITIONS, MEASURABLE = "share of the tokens' structure", "share of the positions' structure", 0.1


def formed_with_the_drop(result: dict, loss: dict) -> dict[str, list]:
    """Share of each score at 20/15 of t_drop, beyond chance, that is gained between 10/15 and 16/15."""
    tokens, positions = (result[f"{part}_progress"]["scores"] for part in ("token", "position"))
    chance = result["position_tsne"]["chance"]

    def share(pick, *names: str, of: Callable[[str], dict], zero: float) -> list:
        """Per seed, of the sum or the greater of two scores."""
        scores = [
            [pick(pair) - zero for pair in by_seed(*(of(at)[name]["values"] for name in names))] for at in MOMENTS
        ]
        return [gained(*seed) for seed in by_seed(*scores)]

    return {
        TOKENS: share(sum, "sign", "magnitude", of=lambda at: tokens[at]["own_axes"], zero=0.0),
        POSITIONS: share(max, "row", "column", of=lambda at: positions[at], zero=max(chance["row"], chance["column"])),
    } | at_end(loss)


def gained(middle: float, after: float, late: float) -> float | None:
    """Share of the late score that came from middle to after; None where there is hardly a score."""
    return (after - middle) / late if late > MEASURABLE else None


COMPLETION, COPYING = "L_mask / Var under random orders", "L_obs / Var under random orders"


def permuted_positions(result: dict, loss: dict) -> dict[str, list]:
    hidden, observed = (
        over(result["permute"]["random"][f"loss_{x}"], result["variance"]) for x in ("masked", "observed")
    )
    return {COMPLETION: hidden, COPYING: observed, **at_end(loss)}


HERE = ("embeddings", "loss")
CLAIMS = [
    Claim("C14", "In the trained model token-embedding norms are symmetric about 0.", source="Fig 7a", presets=ALL,
          needs=HERE, number=norm_symmetry, above={SYMMETRY: 0.9}, below=COMPLETES),
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
