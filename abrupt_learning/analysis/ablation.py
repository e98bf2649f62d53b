"""Heads with their attention made uninformative: one, a layer, a group at a time (paper's ablation table, sheet C10).

Groups come from the attention scores of the seed's own heads, since no two seeds put the same head in the same place.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.analysis._heads import KINDS, chance, head_scores, kinds
from abrupt_learning.analysis._points import loss_points
from abrupt_learning.data import Batch
from abrupt_learning.evaluate import Trained, losses, predict
from abrupt_learning.interventions import ablate, predict_variants, record
from common import plotting


@dataclass
class Ablation(Analysis):
    kinds: list[Literal["uniform", "batch_mean", "zero"]] = field(
        default_factory=lambda: ["uniform", "batch_mean", "zero"]
    )
    """What replaces a head's attention map: 1/N everywhere, its mean over the batch, or 0 everywhere."""
    milestone: str = "end"
    """Checkpoint to ablate."""
    threshold: float = 0.25
    """Share of a head's attention, beyond chance, that puts it in a group."""
    matrices: int = 256
    """Matrices of the test, and the batch that batch_mean averages over."""


def named(groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sets of heads, masks (L, H), by name: groups, every layer, all, every single head."""
    layers, heads = groups["row"].shape
    single = torch.eye(layers * heads, dtype=torch.bool, device=groups["row"].device).view(layers, heads, layers, heads)
    return {
        **{f"{name} heads": group for name, group in groups.items()},
        **{f"layer {layer + 1}": single[layer].any(0) for layer in range(layers)},
        "all heads": torch.ones_like(groups["row"]),
        **{f"layer {la + 1} head {h + 1}": single[la, h] for la in range(layers) for h in range(heads)},
    }


def ablations(model, batch: Batch, sets: dict[str, Tensor], kind: str) -> dict[str, dict]:
    """Losses with each set ablated; None where a set has no head."""
    heads = torch.stack(list(sets.values()))
    outputs = predict_variants(model, batch.ids, len(heads), lambda chosen: ablate(heads[chosen], kind))
    results = {name: losses(output, batch) for name, output in zip(sets, outputs, strict=True)}
    return {name: row if sets[name].any() else dict.fromkeys(row) for name, row in results.items()}


def of_seed(trained: Trained, settings: Ablation, batch: Batch, seed: int) -> tuple[dict, dict]:
    """(losses of one seed, its groups as lists of [layer, head] from 1)."""
    model, columns = trained.model(seed, settings.milestone), trained.data.sizes[0][1]
    scores = head_scores(record(model, batch.ids, "attention")["attention"], batch.observed, columns)
    groups = kinds(scores, chance(batch.observed, columns), settings.threshold)
    sets = named(groups)
    numbers = {
        "step": trained.milestone(seed, settings.milestone),
        "intact": losses(predict(model, batch.ids), batch),
        "ablated": {kind: ablations(model, batch, sets, kind) for kind in settings.kinds},
    }
    return numbers, {name: (group.nonzero() + 1).tolist() for name, group in groups.items()}


def analyse(trained: Trained, settings: Ablation) -> dict:
    batch = trained.matrices(settings.matrices)
    rows, groups = zip(*(of_seed(trained, settings, batch, seed) for seed in trained.seeds), strict=True)
    return {"batch_size": settings.matrices, "variance": trained.data.variance, "groups": list(groups)} | over_seeds(
        list(rows)
    )


def single(result: dict, kind: str, group: str) -> list[tuple[float, float]]:
    """(L_obs, L_mask) without one head, for every head of a group of every seed."""
    places = [(seed, *head) for seed, groups in enumerate(result["groups"]) for head in groups[group]]
    rows = [(result["ablated"][kind][f"layer {layer} head {head}"], seed) for seed, layer, head in places]
    return [tuple(row[f"loss_{part}"]["values"][seed] for part in ("observed", "masked")) for row, seed in rows]


def draw(result: dict):
    """A column per kind of ablation. Above: L_obs and L_mask without groups and layers. Below: without single heads."""
    kinds = list(result["ablated"])
    fig, axs = plotting.axes(len(kinds), 2, height=5.6, sharey="row", sharex="row", squeeze=False)
    for (above, below), kind in zip(axs.T, kinds, strict=True):
        sets = {name: row for name, row in result["ablated"][kind].items() if " head " not in name}
        loss_points(above, {"none": result["intact"], **sets}, result["variance"])
        above.set_title(f"{kind.replace('_', ' ')} ablation")
        for group, color in zip(KINDS, plotting.COLORS, strict=False):
            points = single(result, kind, group)
            below.plot(*(zip(*points, strict=True) if points else ([], [])), ".", color=color, label=f"{group} head")
        intact = (result["intact"][f"loss_{part}"]["mean"] for part in ("observed", "masked"))
        below.plot(*([value] for value in intact), "x", color=plotting.GREY, label="no head ablated")
        below.set(xscale="log", yscale="log", xlabel="L_obs without one head")
    axs[0, 0].set_ylabel("mean squared error without ...")
    axs[1, 0].set_ylabel("L_mask without one head")
    for ax in axs[:, -1]:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def finding(result: dict) -> str:
    kind = result["settings"]["kinds"][0]

    def levels(row: dict) -> str:
        values = ([v for v in row[name]["values"] if v is not None] for name in ("loss_observed", "loss_masked"))
        return "/".join(f"{sum(v) / len(v):.2g}" if v else "no such head" for v in values)

    parts = [f"{name} {levels(result['ablated'][kind][name])}" for name in ("row heads", "column heads", "other heads")]
    return f"L_obs/L_mask intact {levels(result['intact'])}; {kind} ablation of {', '.join(parts)}"


if __name__ == "__main__":
    perform("ablation", Ablation, analyse, draw, finding)
