"""Completion of matrices whose factors follow other laws than in training (sheet C27; the original's `ood` script).

Same size, rank and masks as in training. Predicting 0 gives L_mask = E[X_ij^2] of each law: r/9 for factors uniform on [-1, 1],
r s^4 for N(0, s^2), r (2 b^2)^2 for Laplace(0, b).
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import clamped
from abrupt_learning.evaluate import Trained, losses, predict
from common import device, plotting

Law = Literal["uniform", "gaussian", "laplace"]


@dataclass
class Ood(Analysis):
    laws: list[Law] = field(default_factory=lambda: list(Law.__args__))
    """Laws of the factor entries; uniform is on [-1, 1]."""
    gaussian_scale: float = 0.5
    """Standard deviation s of the Gaussian law."""
    laplace_scale: float = 0.25
    """Scale b of the Laplace law."""
    milestone: str = "end"
    """Checkpoint to test."""
    matrices: int = 1024
    """Matrices per law."""


def analyse(trained: Trained, settings: Ood) -> dict:
    changes = {
        "uniform": {"low": -1.0, "high": 1.0},
        "gaussian": {"scale": settings.gaussian_scale},
        "laplace": {"scale": settings.laplace_scale},
    }
    models = [trained.model(seed, settings.milestone) for seed in trained.seeds]
    laws = {}
    for law in settings.laws:
        data = replace(trained.data, law=law, **changes[law])
        batch = trained.matrices(settings.matrices, law=law, **changes[law])
        laws[law] = {
            "variance": data.variance,
            "zero": float(batch.target[~batch.observed].square().mean()),
            "clamped_share": clamped(data, device.generator("cpu", 0, "clamped")),
            "losses": over_seeds([losses(predict(model, batch.ids), batch) for model in models]),
        }
    steps = over_seeds([trained.milestone(seed, settings.milestone) for seed in trained.seeds])
    return {"step": steps, "trained_on": trained.data.law, "laws": laws}


def draw(result: dict):
    fig, ax = plotting.axes(width=4.2, height=2.6)
    laws = result["laws"]
    for shift, kind in enumerate(("observed", "masked")):
        cells = [law["losses"][f"loss_{kind}"] for law in laws.values()]
        places = [place + 0.4 * shift - 0.2 for place in range(len(laws))]
        ax.bar(places, [c["mean"] for c in cells], 0.4, color=plotting.PALETTE[kind], label=f"{kind} cells")
        ax.plot(places, [c["values"] for c in cells], "k.", ms=3)
    ends = [[place + side for place in range(len(laws))] for side in (-0.4, 0.4)]
    ax.hlines(
        [law["variance"] for law in laws.values()],
        *ends,
        plotting.INK,
        "--",
        lw=0.8,
        label="predicting 0 at masked cells",
    )
    ax.set_xticks(range(len(laws)), [f"{name}\n{law['clamped_share']:.2%} clamped" for name, law in laws.items()])
    ax.set(yscale="log", ylabel="mean squared error")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return fig


def finding(result: dict) -> str:
    def told(law: dict) -> str:
        masked, observed = (law["losses"][f"loss_{kind}"]["mean"] for kind in ("masked", "observed"))
        return f"L_mask {masked:.4f} (predicting 0: {law['variance']:.4f}), L_obs {observed:.1e}"

    return "; ".join(f"{name} {told(law)}" for name, law in result["laws"].items())


if __name__ == "__main__":
    perform("ood", Ood, analyse, draw, finding)
