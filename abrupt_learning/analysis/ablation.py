"""Heads with their attention made uninformative: one, a layer, a group at a time (paper's ablation table).

Groups come from the attention scores of the seed's own heads, since no two seeds put the same head in the same place.
"""

import common.process  # noqa: F401

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end
from abrupt_learning.data import Batch
from abrupt_learning.estimators.attention_scores import KINDS, chance, head_scores, kinds
from abrupt_learning.estimators.interventions import ABLATIONS, ablate, head_sets, predict_variants, record
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, predict
from common import experiment, plotting
from common.claims import Claim
from common.device import generator
from common.limits import Count, Share


@dataclass
class Settings(Analysis):
    milestone: str = "end"
    """Checkpoint to ablate."""
    threshold: Share = 0.25
    """Share of a head's attention, beyond chance, that puts it in a group."""
    draws: Count = 8
    """Random sets of other heads that a group of row or column heads is compared with."""
    matrices: Matrices = 256
    """Matrices of the test, and the batch that batch_mean averages over."""


def matched(groups: dict[str, Tensor], draws: int) -> dict[str, dict[str, Tensor]]:
    """Sets of equally many heads: group -> its own, others (neither row nor column heads) -> masks (draws, L, H).

    As many as there are of both; none, and so masks without a head, where either is missing.
    """
    draw, shape = generator("cpu", 0, "matched heads"), groups["row"].shape

    def some(pool: Tensor, number: int) -> Tensor:
        numbers, chosen = pool.flatten().nonzero()[:, 0], torch.zeros(draws, pool.numel(), dtype=torch.bool)
        for row in chosen:
            row[numbers[torch.randperm(len(numbers), generator=draw)[:number]]] = True
        return chosen.unique(dim=0).view(-1, *shape)

    others, sets = ~(groups["row"] | groups["column"]), {}
    for name in ("row", "column"):
        number = min(int(groups[name].sum()), int(others.sum()))
        sets[name] = {"own": some(groups[name], number), "others": some(others, number)}
    return sets


def ablations(model, batch: Batch, sets: dict[str, Tensor], kind: str) -> dict[str, dict]:
    """Losses with each set ablated; None where a set has no head."""
    heads = torch.stack(list(sets.values())).to(batch.ids.device)
    outputs = predict_variants(model, batch.ids, len(heads), lambda chosen: ablate(heads[chosen], kind))
    results = {name: losses(output, batch) for name, output in zip(sets, outputs, strict=True)}
    return {name: row if sets[name].any() else dict.fromkeys(row) for name, row in results.items()}


def of_seed(trained: Trained, settings: Settings, batch: Batch, seed: int) -> tuple[dict, dict]:
    """(losses of one seed, its groups as lists of [layer, head] from 1)."""
    model, columns = trained.model(seed, settings.milestone), trained.data.sizes[0][1]
    scores = head_scores(record(model, batch.ids, "attention")["attention"], batch.observed, columns)
    groups = kinds(scores, chance(batch.observed, columns), settings.threshold)
    groups = {name: group.cpu() for name, group in groups.items()}
    sets = {f"{name} heads": group for name, group in groups.items()} | head_sets(*groups["row"].shape)
    equal = matched(groups, settings.draws)

    def without(heads: Tensor) -> float | None:
        """Mean L_mask without each of some sets of heads (sets, L, H) made uniform; None if they have no head."""
        rows = ablations(model, batch, dict(enumerate(heads)), "uniform").values()
        return sum(row["loss_masked"] for row in rows) / len(heads) if heads.any() else None

    numbers = {
        "step": trained.milestone(seed, settings.milestone),
        "intact": losses(predict(model, batch.ids), batch),
        "ablated": {kind: ablations(model, batch, sets, kind) for kind in ABLATIONS},
        "matched": {name: {kind: without(heads) for kind, heads in pair.items()} for name, pair in equal.items()},
    }
    return numbers, {name: (group.nonzero() + 1).tolist() for name, group in groups.items()}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: variance; groups -> seed -> group -> [layer, head] from 1; step; intact -> loss, ablated -> kind ->
    set of heads -> loss, matched -> row, column -> own, others (L_mask without equally many of them, uniform): {values,
    mean, error} over seeds, None where there is no such head.
    """
    batch = trained.matrices(settings.matrices)
    rows, groups = zip(*(of_seed(trained, settings, batch, seed) for seed in trained.seeds), strict=True)
    return {"variance": trained.data.variance, "groups": groups} | experiment.over_seeds(rows)


def fold(result: dict, kind: str, name: str, seed: int) -> tuple[float, float] | None:
    """(L_obs, L_mask) of a seed without a set of heads over those of its intact model; None if it has no such head."""
    row, intact, parts = result["ablated"][kind][name], result["intact"], ("loss_observed", "loss_masked")
    if row["loss"]["values"][seed] is None:
        return None
    return tuple(row[part]["values"][seed] / intact[part]["values"][seed] for part in parts)


def loss_points(axs, rows: dict[str, dict], variance: float) -> None:
    """L_mask above (linear, with Var dashed) and L_obs below (log): a dot per seed, the mean over seeds a dash.

    axs: two axes that share x. rows: name -> losses as over_seeds gives them, None for a seed that has no such row.
    """
    for ax, part in zip(axs, ("masked", "observed"), strict=True):
        plotting.seed_dots(
            ax, {name: row[f"loss_{part}"]["values"] for name, row in rows.items()}, plotting.PALETTE[part]
        )
        ax.tick_params(axis="x", rotation=90)
    axs[0].axhline(variance, color=plotting.GREY, ls="--", lw=0.8)
    axs[0].tick_params(axis="x", labelbottom=False)
    axs[1].set_yscale("log")


def draw(result: dict):
    """A column per kind of ablation: L_mask and L_obs without groups and layers, and the change without single heads."""
    from matplotlib.ticker import LogLocator

    fig, axs = plotting.axes(len(result["ablated"]), 3, height=6.6, sharey="row", sharex="row", squeeze=False)
    for (*upper, lower), (kind, rows) in zip(axs.T, result["ablated"].items(), strict=True):
        sets = {name: row for name, row in rows.items() if " head " not in name}
        loss_points(upper, {"none": result["intact"], **sets}, result["variance"])
        upper[0].set_title(kind.replace("_", " "))
        for group, color in zip(KINDS, plotting.COLORS, strict=False):
            heads = [(seed, *head) for seed, groups in enumerate(result["groups"]) for head in groups[group]]
            points = [fold(result, kind, f"layer {layer} head {head}", seed) for seed, layer, head in heads]
            lower.plot([x for x, _ in points], [y for _, y in points], ".", color=color, label=group)
        lower.set(xscale="log", yscale="log", xlabel="L_obs without a head\nover L_obs with all")
        for axis in (lower.xaxis, lower.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    axs[0, 0].set(ylabel="L_mask (dashed: Var)", ylim=(0, None))
    axs[1, 0].set_ylabel("L_obs")
    axs[2, 0].set_ylabel("L_mask without a head\nover L_mask with all")
    axs[2, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), title="heads")
    return fig


def finding(result: dict) -> str:
    parts = []
    for name in [f"{group} heads" for group in KINDS]:
        changes = (fold(result, "uniform", name, seed) for seed in range(len(result["groups"])))
        if seeds := [change for change in changes if change]:
            observed, masked = (sum(side) / len(seeds) for side in zip(*seeds, strict=True))
            parts.append(f"{name} x{masked:.1f} and x{observed:.1f} ({len(seeds)} seeds)")
    return f"uniform ablation changes L_mask and L_obs: {', '.join(parts)}"


HARM, SHOWN = "rise of L_mask / Var", "rise of L_obs / of L_mask"
OTHERS = "rise without as many other heads / without these"


def selective_harm(result: dict, loss: dict) -> dict[str, list]:
    """Of the row heads or the column heads made uniform, whichever harm more."""
    seeds = [selective_harm_of(result, seed) for seed in range(len(result["seeds"]))]
    return dict(zip((HARM, SHOWN, OTHERS), map(list, zip(*seeds, strict=True)), strict=True)) | at_end(loss)


def selective_harm_of(result: dict, seed: int) -> tuple[float, float | None, float | None]:
    """HARM, SHOWN, OTHERS of one seed; without row and column heads there is no harm."""

    def rise(part: str, node: dict) -> float | None:
        value = node["values"][seed]
        return None if value is None else value - result["intact"][part]["values"][seed]

    rows = {name: result["ablated"]["uniform"][f"{name} heads"] for name in ("row", "column")}
    harms = {name: rise("loss_masked", row["loss_masked"]) for name, row in rows.items()}
    known = {name: harm for name, harm in harms.items() if harm is not None}
    name = max(known, key=known.get, default=None)
    harm = known.get(name, 0.0)
    if harm <= 0:
        return harm / result["variance"], None, None
    own, others = (rise("loss_masked", result["matched"][name][kind]) for kind in ("own", "others"))
    share = None if own is None else others / own if own > 0 else math.inf
    return harm / result["variance"], rise("loss_observed", rows[name]["loss_observed"]) / harm, share


CLAIMS = [
    Claim("C10", "Without its row heads, or its column heads, the model completes far worse, copies little worse, and loses "
          "more than without as many other heads.", source="ablation table", presets=ALL, needs=("ablation", "loss"),
          number=selective_harm, above={HARM: 0.25}, below={SHOWN: 1 / 3, OTHERS: 0.5} | COMPLETES),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
