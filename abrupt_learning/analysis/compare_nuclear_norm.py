"""BERT beside nuclear-norm minimisation over the share of hidden entries (paper Fig 3).

One model, trained at one share, is tested at all of them, on the matrices that the solver completes.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated, Literal

from abrupt_learning.analysis._beside_solver import beside_solver
from abrupt_learning.analysis._judging import ALL, over
from abrupt_learning.evaluate import Analysis, Matrices, Trained
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.limits import Distinct, Share


@dataclass
class Settings(Analysis):
    shares: Annotated[list[Share], Distinct(1)] = field(default_factory=lambda: [n / 20 for n in range(2, 13)])
    """Probabilities that an entry is hidden, each entry by itself."""
    matrices: Matrices = 512
    """Matrices per share."""
    solver: Literal["interior_point", "cvxpy"] = "interior_point"
    """interior_point, or cvxpy (one matrix after another)."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: trained_at (share hidden in training); points, and at_training_p under the run's own masks (Bernoulli
    elsewhere) -> share; bert -> losses, nuclear_norm, to_solver (mean squared distance at hidden cells): {values, mean,
    error} over seeds; solver -> losses, nuclear_norm, largest_gap; truth (nuclear norm).
    """
    own, size = trained.data.share, trained.data.sizes[0]

    def point(share: float, **changes) -> dict:
        batch = trained.matrices(settings.matrices, **changes)
        return {"share": share, **beside_solver(trained.final, batch, size, solver=settings.solver)}

    points = [point(share, p_mask=share, mask="bernoulli") for share in settings.shares]
    return {"trained_at": own, "points": points, "at_training_p": point(own)}


def draw(result: dict):
    """Error and nuclear norm over the share of hidden entries."""
    points = result["points"]
    shares = [p["share"] for p in points]
    fig, axs = plotting.axes(ncols=2, height=2.7)
    color = plotting.PALETTE["baseline"]
    for ax, metric, label in zip(
        axs, ("loss", "nuclear_norm"), ("mean squared error", "mean nuclear norm"), strict=True
    ):
        seeds = by_seed(*(p["bert"][metric]["values"] for p in points))
        plotting.seed_lines(ax, shares, seeds, "BERT", plotting.PALETTE["model"])
        errors = [p["solver"]["loss_se"] if metric == "loss" else 0.0 for p in points]
        solver = [p["solver"][metric] for p in points]
        ax.errorbar(shares, solver, errors, fmt=".-", color=color, label="nuclear-norm minimisation")
        ax.axvline(result["trained_at"], color=plotting.GREY, ls=":", lw=0.8, label="trained at")
        ax.set(xlabel="share of hidden entries p", ylabel=label)
    axs[0].set_yscale("log")
    truth = [p["truth"] for p in points]
    axs[1].plot(shares, truth, "--", lw=0.9, color=plotting.PALETTE["truth"], label="truth")
    axs[1].legend()
    return fig


def finding(result: dict) -> str:
    own = result["at_training_p"]
    bert, solver = own["bert"], own["solver"]
    return (
        f"at p = {own['share']} MSE {bert['loss']['mean']:.4f} (BERT) and {solver['loss']:.4f} (solver); "
        f"nuclear norm {bert['nuclear_norm']['mean']:.3f} and {solver['nuclear_norm']:.3f}, truth {own['truth']:.3f}"
    )


L, DISTANCE = "L(BERT) / L(solver)", "squared distance to the solver / to the truth, at hidden cells"


def beside_the_solver(result: dict) -> dict[str, list]:
    """At the training share. The solver's output with any independent noise, which is not another method, lies nearer to the
    solver's than to the truth; so does anything between it and halfway to the truth.
    """
    bert, solver = (result["at_training_p"][key] for key in ("bert", "solver"))
    distances = by_seed(bert["to_solver"]["values"], bert["loss_masked"]["values"])
    return {L: over(bert["loss"], solver["loss"]), DISTANCE: [to / off for to, off in distances]}


CLAIMS = [
    Claim("C6", "At the training share BERT beats nuclear-norm minimisation, and is not implementing it: it comes nearer to "
          "the truth than to the solver.", source="Fig 3", presets=ALL, number=beside_the_solver, below={L: 1},
          above={DISTANCE: 1}, paper="L ratio 0.36", note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
