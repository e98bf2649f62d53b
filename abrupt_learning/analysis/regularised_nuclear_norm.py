"""Least squares with a nuclear-norm penalty, over its weight, beside BERT (paper's regularisation table)."""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated, Literal

from abrupt_learning.analysis._judging import ALL, over
from abrupt_learning.data import Batch
from abrupt_learning.estimators.nuclear_norm import regularised
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, seed_losses
from common import experiment, plotting
from common.claims import Claim
from common.limits import Distinct, Positive

PARTS = {"loss": "all", "loss_observed": "observed", "loss_masked": "masked"}


@dataclass
class Settings(Analysis):
    lambdas: Annotated[list[Positive], Distinct(1)] = field(
        default_factory=lambda: [5e-4, 1e-3, 1.5e-3, 1.75e-3, 2e-3, 5e-3, 1e-2]
    )
    """Weights of the nuclear norm beside the mean squared error over observed entries."""
    matrices: Matrices = 256
    """Matrices completed."""
    solver: Literal["interior_point", "cvxpy"] = "interior_point"
    """interior_point, or cvxpy (one matrix after another)."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: rows, one per weight -> lam, losses, largest_gap (certified); bert -> losses: {values, mean, error} over seeds."""
    size = trained.data.sizes[0]
    batch = trained.matrices(settings.matrices)
    bert = seed_losses(trained.final, batch)
    batch = Batch(*(part.cpu() for part in batch))
    A, mask = (t.unflatten(1, size) for t in (batch.target, batch.observed))
    rows = []
    for lam in settings.lambdas:
        solution = regularised(A, mask, lam, solver=settings.solver)
        rows.append({"lam": lam, **losses(solution.X.flatten(1), batch), "largest_gap": float(solution.gap.max())})
    return {"rows": rows, "bert": bert}


def draw(result: dict):
    fig, ax = plotting.axes(width=4.5, height=2.9)
    lambdas = [row["lam"] for row in result["rows"]]
    for part, name in PARTS.items():
        color, label = plotting.PALETTE[name], {"masked": "hidden"}.get(name, name)
        errors = [row[f"{part}_se"] for row in result["rows"]]
        ax.errorbar(
            lambdas, [row[part] for row in result["rows"]], errors, fmt=".-", color=color, label=f"{label} cells"
        )
        for value in result["bert"][part]["values"]:
            ax.axhline(value, color=color, ls="--", lw=0.7)
    ax.plot([], [], "k--", lw=0.7, label="BERT (each seed)")
    ax.set(xscale="log", yscale="log", xlabel="weight of the nuclear norm", ylabel="mean squared error")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def finding(result: dict) -> str:
    best = min(result["rows"], key=lambda row: row["loss"])
    return f"best L over lambda {best['loss']:.4f} (lambda {best['lam']:g}); BERT {result['bert']['loss']['mean']:.4f}"


CLAIMS = [
    Claim("C30", "None of the weights tried of a nuclear-norm penalty reaches BERT's error.", source="regularisation table",
          presets=ALL, unit="L(BERT) / least L over the weights", below=1, note=finding,
          number=lambda result: over(result["bert"]["loss"], min(row["loss"] for row in result["rows"]))),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
