"""Activations of a run on X patched into a run on -X under the same mask (paper section 3.2).

Patched are the attention outputs z = A v of chosen heads at chosen cells, before the output matrix. The authors' script
patches the last layer, all heads and all cells.
"""

import common.process  # noqa: F401

from dataclasses import dataclass

import torch
from torch import Tensor

from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end
from abrupt_learning.data import Batch, from_values
from abrupt_learning.estimators.interventions import head_sets, patch, predict_variants, record
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, predict
from common import experiment, plotting
from common.claims import Claim, by_seed

CELLS = ("all", "masked", "observed")


@dataclass
class Settings(Analysis):
    milestone: str = "end"
    """Checkpoint to patch in."""
    matrices: Matrices = 256
    """Pairs (X, -X)."""


def moved(output: Tensor, start: Tensor, goal: Tensor, cells: Tensor) -> float:
    """How far the outputs (B, N) at some cells (B, N) went from `start` (0) to `goal` (1), by least squares."""
    way = (goal - start)[cells]
    return float((way * (output - start)[cells]).sum() / way.square().sum())


def distances(output: Tensor, pair: dict[str, Batch], clean: dict[str, Tensor]) -> dict:
    """Losses of an output (B, N) against X and -X, and the shares of the way from clean -X to clean X."""
    kinds = {"observed": pair["X"].observed, "masked": ~pair["X"].observed}
    way = {f"moved_{name}": moved(output, clean["-X"], clean["X"], cells) for name, cells in kinds.items()}
    return {name: losses(output, batch) for name, batch in pair.items()} | way


def of_seed(trained: Trained, settings: Settings, pair: dict[str, Batch], seed: int) -> dict:
    model, observed = trained.model(seed, settings.milestone), pair["X"].observed
    clean = {name: predict(model, batch.ids) for name, batch in pair.items()}
    donor = record(model, pair["X"].ids, "heads")["heads"]
    sets = head_sets(donor.shape[0], donor.shape[2])
    kinds = dict(zip(CELLS, (torch.ones_like(observed), ~observed, observed), strict=True))
    heads = torch.stack([heads for heads in sets.values() for _ in kinds]).to(trained.device)
    cells = torch.stack([*kinds.values()] * len(sets))
    outputs = predict_variants(
        model, pair["-X"].ids, len(heads), lambda chosen: patch(donor, heads[chosen], cells[chosen])
    )
    rows = iter([distances(output, pair, clean) for output in outputs])
    return {
        "step": trained.milestone(seed, settings.milestone),
        "clean": distances(clean["-X"], pair, clean),
        "patched": {name: {at: next(rows) for at in kinds} for name in sets},
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: variance; step; clean (the run on -X), patched -> set of heads -> cells (all, masked, observed), and original
    (the last layer at all cells) -> X, -X -> loss against it, moved_observed, moved_masked: {values, mean, error} over
    seeds.
    """
    batch = trained.matrices(settings.matrices)
    pair = {"X": batch, "-X": from_values(-batch.target, batch.observed, trained.data)}
    rows = experiment.over_seeds([of_seed(trained, settings, pair, seed) for seed in trained.seeds])
    last = f"layer {trained.config.model.n_layer}"
    return {"variance": trained.data.variance, "original": rows["patched"][last]["all"]} | rows


def draw(result: dict):
    """Share of the way from the prediction for -X to that for X, at hidden and observed cells, by what is patched."""
    sets = {
        name: name.replace("layer ", "").replace(" heads", "") for name in result["patched"] if " head " not in name
    }
    fig, axs = plotting.axes(len(CELLS), height=2.6, sharey=True)
    for ax, at in zip(axs, CELLS, strict=True):
        for part in ("observed", "masked"):
            dots = {label: result["patched"][name][at][f"moved_{part}"]["values"] for name, label in sets.items()}
            plotting.seed_dots(ax, dots, plotting.PALETTE[part], f"at {part} cells")
        ax.set(title=f"patched at {at} cells", xlabel="layers patched")
    axs[0].set_ylabel("way from the prediction for -X (0)\nto the prediction for X (1)")
    axs[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def finding(result: dict) -> str:
    row = result["original"]
    return (
        f"last layer's heads from X in a run on -X: masked cells go {row['moved_masked']['mean']:.2f} of the way to X, "
        f"observed ones {row['moved_observed']['mean']:.2f}"
    )


HIDDEN, BEYOND = "way to X at hidden cells", "way at hidden cells beyond that at observed ones"


def moved_by_the_last_layer(result: dict, loss: dict) -> dict[str, list]:
    """Shares of the way from the prediction for -X to that for X."""
    hidden, observed = (result["original"][f"moved_{part}"]["values"] for part in ("masked", "observed"))
    return {HIDDEN: hidden, BEYOND: [far - near for far, near in by_seed(hidden, observed)], **at_end(loss)}


CLAIMS = [
    Claim("C11", "Last-layer attention of X in a run on -X moves hidden cells towards X, and farther than observed ones.",
          source="section 3.2, patching", presets=ALL, needs=("patch", "loss"), number=moved_by_the_last_layer,
          above={HIDDEN: 0.1, BEYOND: 0.1}, below=COMPLETES),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
