"""BERT beside nuclear-norm minimisation over the share of hidden entries (paper Fig 3).

One model, trained at one share, is tested at all of them, on the matrices that the solver completes.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from abrupt_learning.analysis._judging import ALL, over
from abrupt_learning.data import Batch
from abrupt_learning.estimators.nuclear_norm import complete
from abrupt_learning.evaluate import Analysis, Trained, losses, predict
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.experiment import over_seeds


@dataclass
class Settings(Analysis):
    shares: list[float] = field(default_factory=lambda: [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6])
    """Probabilities that an entry is hidden, each entry by itself."""
    matrices: int = 512
    """Matrices per share."""
    solver: str = "interior_point"
    """interior_point, or cvxpy (one matrix after another)."""
    tolerance: float = 1e-5
    """Largest certified gap, in units of the nuclear norm."""


def nuclear(values: Tensor, size: list[int]) -> float:
    """Mean nuclear norm of (B, N) as matrices."""
    return float(torch.linalg.svdvals(values.double().unflatten(1, size)).sum(1).mean())


def of_model(output: Tensor, solved: Tensor, batch: Batch, size: list[int]) -> dict:
    """Losses of a model's output (B, N), its nuclear norm, and its mean squared distance to the solver's at hidden cells."""
    distance = float((output - solved)[~batch.observed].square().mean())
    return losses(output, batch) | {"nuclear": nuclear(output, size), "to_solver": distance}


def point(trained: Trained, settings: Settings, models: list, share: float, **changes) -> dict:
    """Losses and nuclear norms at one share: every seed's model, the solver, the truth."""
    size = trained.data.sizes[0]
    batch = trained.matrices(settings.matrices, **changes)
    outputs = [predict(model, batch.ids).cpu() for model in models]
    batch = Batch(*(part.cpu() for part in batch))
    solution = complete(
        *(t.unflatten(1, size) for t in (batch.target, batch.observed)), settings.tolerance, settings.solver
    )
    solved = solution.X.flatten(1)
    return {
        "share": share,
        "bert": over_seeds([of_model(output, solved, batch, size) for output in outputs]),
        "nuclear_norm": losses(solved, batch)
        | {"nuclear": nuclear(solved, size), "largest_gap": float(solution.gap.max())},
        "truth": {"nuclear": nuclear(batch.target, size)},
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: trained_at (share hidden in training); points, and at_training_p under the run's own masks (Bernoulli
    elsewhere) -> share; bert -> loss, nuclear (norm), to_solver (mean squared distance at hidden cells): {values, mean,
    error} over seeds; nuclear_norm -> loss, nuclear, largest_gap; truth -> nuclear.
    """
    own = trained.data.share
    models = [trained.model(seed) for seed in trained.seeds]
    points = [point(trained, settings, models, p, p_mask=p, mask="bernoulli") for p in settings.shares]
    return {"trained_at": own, "points": points, "at_training_p": point(trained, settings, models, own)}


def draw(result: dict):
    points = result["points"]
    shares = [p["share"] for p in points]
    fig, axs = plotting.axes(ncols=2, width=6.5, height=2.7)
    for ax, metric, label in zip(axs, ("loss", "nuclear"), ("mean squared error", "mean nuclear norm"), strict=True):
        seeds = zip(*(p["bert"][metric]["values"] for p in points), strict=True)
        plotting.seed_lines(ax, shares, list(seeds), "BERT", plotting.PALETTE["model"])
        solver = [p["nuclear_norm"][metric] for p in points]
        ax.plot(shares, solver, ".-", color=plotting.PALETTE["baseline"], label="nuclear-norm minimisation")
        ax.axvline(result["trained_at"], color=plotting.GREY, ls=":", lw=0.8, label="trained at")
        ax.set(xlabel="share of hidden entries p", ylabel=label)
    errors = [p["nuclear_norm"]["loss_se"] for p in points]
    axs[0].errorbar(
        shares, [p["nuclear_norm"]["loss"] for p in points], errors, fmt="none", color=plotting.PALETTE["baseline"]
    )
    truth = [p["truth"]["nuclear"] for p in points]
    axs[1].plot(shares, truth, "--", lw=0.9, color=plotting.PALETTE["truth"], label="truth")
    axs[0].set_yscale("log")
    axs[1].legend()
    return fig


def finding(result: dict) -> str:
    own = result["at_training_p"]
    bert, solver, truth = own["bert"], own["nuclear_norm"], own["truth"]["nuclear"]
    return (
        f"at p = {own['share']} MSE {bert['loss']['mean']:.4f} (BERT) and {solver['loss']:.4f} (solver); "
        f"nuclear norm {bert['nuclear']['mean']:.3f} and {solver['nuclear']:.3f}, truth {truth:.3f}"
    )


L, DISTANCE = "L(BERT) / L(solver)", "squared distance to the solver / to the truth, at hidden cells"


def beside_the_solver(result: dict) -> dict[str, list]:
    """At the training share. The solver's output with any independent noise, which is not another method, lies nearer to the
    solver's than to the truth; so does anything between it and halfway to the truth.
    """
    bert, solver = result["at_training_p"]["bert"], result["at_training_p"]["nuclear_norm"]
    distances = by_seed(bert["to_solver"]["values"], bert["loss_masked"]["values"])
    return {
        L: over(bert["loss"], solver["loss"]),
        DISTANCE: [to / off for to, off in distances],
    }


CLAIMS = [
    Claim("C6", "At the training share BERT beats nuclear-norm minimisation, and is not implementing it: it comes nearer to "
          "the truth than to the solver.", source="Fig 3", presets=ALL, number=beside_the_solver, below={L: 1},
          above={DISTANCE: 1}, paper="L ratio 0.36", note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
