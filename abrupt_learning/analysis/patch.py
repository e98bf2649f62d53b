"""Activations of a run on X patched into a run on -X under the same mask (paper section 3.2, sheet C11).

Patched are the attention outputs z = A v of chosen heads at chosen cells, before the output matrix. The authors' script
patches the last layer, all heads and all cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import Batch, from_values
from abrupt_learning.evaluate import Trained, losses, predict
from abrupt_learning.interventions import patch, predict_variants, record
from common import plotting

CELLS = ("all", "masked", "observed")
LOSSES = ("loss", "loss_observed", "loss_masked")


@dataclass
class Patch(Analysis):
    milestone: str = "end"
    """Checkpoint to patch in."""
    matrices: int = 256
    """Pairs (X, -X)."""


def heads_of(layers: int, heads: int) -> dict[str, Tensor]:
    """Sets of heads, masks (L, H), by name: every layer, all, every single head."""
    single = torch.eye(layers * heads, dtype=torch.bool).view(layers, heads, layers, heads)
    return {
        **{f"layer {layer + 1}": single[layer].any(0) for layer in range(layers)},
        "all layers": torch.ones(layers, heads, dtype=torch.bool),
        **{f"layer {la + 1} head {h + 1}": single[la, h] for la in range(layers) for h in range(heads)},
    }


def moved(output: Tensor, start: Tensor, goal: Tensor, where: Tensor) -> float:
    """How far the outputs (B, N) at some cells went from `start` (0) to `goal` (1), by least squares."""
    way = (goal - start)[where]
    return float((way * (output - start)[where]).sum() / way.square().sum())


def distances(output: Tensor, pair: dict[str, Batch], clean: dict[str, Tensor]) -> dict:
    """Mean squared errors of an output (B, N) against X and -X, and the shares of the way from clean -X to clean X."""
    observed = pair["X"].observed
    against = {
        name: {k: v for k, v in losses(output, batch).items() if k.startswith("loss")} for name, batch in pair.items()
    }
    places = {"observed": observed, "masked": ~observed}
    return against | {f"moved_{name}": moved(output, clean["-X"], clean["X"], at) for name, at in places.items()}


def of_seed(trained: Trained, settings: Patch, pair: dict[str, Batch], seed: int) -> dict:
    model = trained.model(seed, settings.milestone)
    clean = {name: predict(model, batch.ids) for name, batch in pair.items()}
    donor = record(model, pair["X"].ids, "heads")["heads"]
    observed = pair["X"].observed
    cells = {"all": torch.ones_like(observed), "masked": ~observed, "observed": observed}
    sets = heads_of(donor.shape[0], donor.shape[2])
    sites = [(name, at) for name in sets for at in cells]
    heads = torch.stack([sets[name] for name, _ in sites]).to(trained.device)

    def hook(chosen: Tensor):
        return patch(donor, heads[chosen], torch.stack([cells[sites[i][1]] for i in chosen.tolist()]))

    outputs = predict_variants(model, pair["-X"].ids, len(sites), hook)
    patched = {name: {} for name in sets}
    for (name, at), output in zip(sites, outputs, strict=True):
        patched[name][at] = distances(output, pair, clean)
    return {
        "step": trained.milestone(seed, settings.milestone),
        "clean": distances(clean["-X"], pair, clean),
        "patched": patched,
    }


def analyse(trained: Trained, settings: Patch) -> dict:
    batch = trained.matrices(settings.matrices)
    pair = {"X": batch, "-X": from_values(-batch.target, batch.observed, trained.data)}
    rows = over_seeds([of_seed(trained, settings, pair, seed) for seed in trained.seeds])
    last = f"layer {trained.config.model.n_layer}"
    return {"variance": trained.data.variance, "original": rows["patched"][last]["all"]} | rows


def draw(result: dict):
    """Share of the way from the prediction for -X to that for X, at hidden and observed cells, by what is patched."""
    sets = [name for name in result["patched"] if " head " not in name]
    fig, axs = plotting.axes(len(CELLS), height=2.6, sharey=True)
    for ax, at in zip(axs, CELLS, strict=True):
        for shift, part in ((-0.2, "observed"), (0.2, "masked")):
            rows = [result["patched"][name][at][f"moved_{part}"] for name in sets]
            places = [place + shift for place in range(len(sets))]
            ax.bar(places, [row["mean"] for row in rows], 0.4, color=plotting.PALETTE[part], label=f"at {part} cells")
            for place, row in zip(places, rows, strict=True):
                ax.plot([place] * len(row["values"]), row["values"], "k.", ms=2)
        ax.set_title(f"patched at {at} cells")
        ax.set_xticks(range(len(sets)), [name.replace("layers", "").replace("layer", "") for name in sets])
        ax.set_xlabel("layers patched")
        ax.grid(False, axis="x")
    axs[0].set_ylabel("way from the prediction for -X (0)\nto the prediction for X (1)")
    axs[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def finding(result: dict) -> str:
    row = result["original"]
    return (
        f"last layer's heads from X in a run on -X: masked cells go {row['moved_masked']['mean']:.2f} of the way to X, "
        f"observed ones {row['moved_observed']['mean']:.2f}"
    )


if __name__ == "__main__":
    perform("patch", Patch, analyse, draw, finding)
