"""The plateau and the drop (paper Figs 1B, 2, section 3): loss curves and how abrupt they are."""

import common.process  # noqa: F401

from dataclasses import asdict, dataclass

from abrupt_learning.analysis._judging import ALL, FLAT, SHARP, at_end, over, shape
from abrupt_learning.data import Batch
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, predict, seed_losses
from common import experiment, plotting
from common.claims import Claim
from common.experiment import over_seeds
from common.plain import steps

CURVES = {
    "loss_masked": ("hidden cells", "masked"),
    "loss": ("all cells", "all"),
    "loss_observed": ("observed cells", "observed"),
}


@dataclass
class Settings(Analysis):
    matrices: Matrices = 4096
    """Fresh matrices of the last checkpoint's test loss."""


def on_plateau(trained: Trained, seed: int, batch: Batch) -> dict:
    """Losses at 4/15 t_drop; `relative` is L_mask over the loss of predicting 0 at the same hidden cells, 1 for a copy."""
    result = losses(predict(trained.model(seed, "early"), batch.ids), batch)
    return result | {"relative": result["loss_masked"] / float(batch.target[~batch.observed].square().mean())}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: levels (loss, loss_masked of the plateau); drop -> field of Drop, early -> loss at 4/15 t_drop, end -> loss on
    fresh matrices: {values, mean, error} over seeds; steps (of the rows); curves -> loss -> seed -> value per row.
    """
    batch = trained.matrices(settings.matrices)
    variance = trained.data.variance
    curves = [trained.curve(seed) for seed in trained.seeds]
    return {
        "levels": {"loss": trained.data.share * variance, "loss_masked": variance},
        "drop": over_seeds([asdict(trained.drop(seed)) for seed in trained.seeds]),
        "early": over_seeds([on_plateau(trained, seed, batch) for seed in trained.seeds]),
        "end": seed_losses(trained.final, batch),
        "steps": curves[0]["step"].tolist(),
        "curves": {name: [curve[name].round(7).tolist() for curve in curves] for name in CURVES},
    }


def draw(result: dict):
    """The curves on a linear and on a logarithmic scale, the two levels dashed, each t_drop dotted."""
    fig, axs = plotting.axes(ncols=2, height=2.7)
    for ax, scale in zip(axs, ("linear", "log"), strict=True):
        for name, (label, concept) in CURVES.items():
            color = plotting.PALETTE[concept]
            plotting.each_seed(ax, result["steps"], result["curves"][name], label=label, color=color)
        for level in result["levels"].values():
            ax.axhline(level, color=plotting.GREY, ls="--", lw=0.8)
        for half in result["drop"]["half"]["values"]:
            if half is not None:
                ax.axvline(half, color=plotting.GREY, ls=":", lw=0.8)
        bottom = 0 if scale == "linear" else None
        ax.set(xlabel="step", yscale=scale, ylim=(bottom, 1.5 * result["levels"]["loss_masked"]))
    axs[0].set_ylabel("mean squared error")
    for name, text in (("loss_masked", "Var"), ("loss", "p Var")):
        axs[0].text(1.01, result["levels"][name], text, transform=axs[0].get_yaxis_transform(), va="center")
    axs[0].legend(loc="center left")
    return fig


def finding(result: dict) -> str:
    drop, variance = result["drop"], result["levels"]["loss_masked"]
    return (
        f"L_mask stays at {drop['plateau']['mean'] / variance:.3f} Var, then drops (step {steps(drop['half']['values'])}) "
        f"to {drop['final']['mean'] / variance:.2f} Var; L_obs on the plateau {drop['plateau_observed']['mean']:.1e}"
    )


def copying(result: dict) -> dict[str, list]:
    """What the model does at 4/15 t_drop, the paper's step 4000, on fixed matrices."""
    early, variance = result["early"], result["levels"]["loss_masked"]
    return {
        "L_obs / Var": over(early["loss_observed"], variance),
        "L_mask / that of predicting 0": early["relative"]["values"],
        "mean |prediction| at hidden cells": early["mask_value"]["values"],
    }


CLAIMS = [
    Claim("C1", "The loss at hidden entries has a long flat plateau at Var and then a sharp drop, with no change of "
          "procedure.", source="Figs 1B, 2", presets=ALL, below=SHARP, within=FLAT,
          number=lambda result: shape(result["drop"], result["levels"]["loss_masked"]), paper="width / t_drop 0.13",
          note=lambda result: f"t_drop at {steps(result['drop']['half']['values'])}"),
    Claim("C2", "On the plateau, at 4/15 of t_drop (or of a run without one), the model copies: observed cells are right, "
          "hidden ones near 0.", source="section 3.1", presets=ALL, number=copying,
          below={"L_obs / Var": 0.02, "mean |prediction| at hidden cells": 0.1},
          within={"L_mask / that of predicting 0": (0.97, 1.03)}),
    Claim("C5", "After the drop hidden entries are computed.", source="section 3.2", presets=ALL, number=at_end,
          below={"L_mask / Var at the end": 0.25}, paper="0.06", note=lambda result: "on 4096 fresh matrices"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
