"""Completion of matrices whose factors follow other laws than in training (appendix J.2; the authors' `ood` script).

Same size, rank and masks as in training. Predicting 0 gives L_mask = E[X_ij^2] of each law: r/9 for factors uniform on [-1,
1], r s^4 for N(0, s^2), r (2 b^2)^2 for Laplace(0, b).
"""

import common.process  # noqa: F401

from dataclasses import dataclass, replace

from abrupt_learning.analysis._judging import ALL, over
from abrupt_learning.data import clamped
from abrupt_learning.evaluate import Analysis, Matrices, Trained, seed_losses
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.device import generator
from common.limits import Positive


@dataclass
class Settings(Analysis):
    gaussian_scale: Positive = 0.5
    """Standard deviation s of the Gaussian law."""
    laplace_scale: Positive = 0.25
    """Scale b of the Laplace law."""
    matrices: Matrices = 1024
    """Matrices per law."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: trained_on (law); laws -> law -> variance, zero (L_mask of predicting 0 on these matrices), clamped_share (of
    entries beyond the vocabulary), losses: {values, mean, error} over seeds.
    """

    def under(**law) -> dict:
        data, batch = replace(trained.data, **law), trained.matrices(settings.matrices, **law)
        return {
            "variance": data.variance,
            "zero": float(batch.target[~batch.observed].square().mean()),
            "clamped_share": clamped(data, generator("cpu", 0, "clamped")),
            "losses": seed_losses(trained.final, batch),
        }

    laws = {
        "uniform": under(law="uniform", low=-1.0, high=1.0),
        "gaussian": under(law="gaussian", scale=settings.gaussian_scale),
        "laplace": under(law="laplace", scale=settings.laplace_scale),
    }
    return {"trained_on": trained.data.law, "laws": laws}


def draw(result: dict):
    """L_obs and L_mask by law; the levels of predicting 0 dashed."""
    fig, ax = plotting.axes(width=4.2, height=2.6)
    laws = result["laws"]
    names = {name: f"{name}\n{law['clamped_share']:.2%} clamped" for name, law in laws.items()}
    for kind in ("observed", "masked"):
        dots = {names[name]: law["losses"][f"loss_{kind}"]["values"] for name, law in laws.items()}
        plotting.seed_dots(ax, dots, plotting.PALETTE[kind], f"{kind} cells")
    ends = [[number + side for number in range(len(laws))] for side in (-0.4, 0.4)]
    levels = [law["variance"] for law in laws.values()]
    ax.hlines(levels, *ends, plotting.INK, "--", lw=0.8, label="predicting 0 at masked cells")
    ax.set(yscale="log", ylabel="mean squared error")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return fig


def finding(result: dict) -> str:
    def levels(law: dict) -> str:
        masked, observed = (law["losses"][f"loss_{kind}"]["mean"] for kind in ("masked", "observed"))
        return f"L_mask {masked:.4f} (predicting 0: {law['variance']:.4f}), L_obs {observed:.1e}"

    return "; ".join(f"{name} {levels(law)}" for name, law in result["laws"].items())


def relative(result: dict) -> dict[str, list]:
    """L_mask over that of predicting 0, per law and seed."""
    return {name: over(law["losses"]["loss_masked"], law["zero"]) for name, law in result["laws"].items()}


def by_law(result: dict) -> str:
    return ", ".join(f"{name} {sum(values) / len(values):.2f}" for name, values in relative(result).items())


CLAIMS = [
    Claim("C27", "The model completes matrices of other factor laws: less than half of the error of predicting 0 is left for "
          "each.", source="appendix J.2", presets=ALL, unit="L_mask / that of predicting 0, the hardest law", below=0.5,
          number=lambda result: [max(seed) for seed in by_seed(*relative(result).values())], note=by_law),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
