"""The plateau and the drop (paper Figs 1B, 2; sheet C1, C2, C5): loss curves and how abrupt they are."""

from dataclasses import asdict, dataclass

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import plateau_levels
from abrupt_learning.evaluate import Trained, losses, predict
from common import plotting

CURVES = {
    "loss_masked": ("hidden cells", "masked"),
    "loss": ("all cells", "all"),
    "loss_observed": ("observed cells", "observed"),
}


@dataclass
class Loss(Analysis):
    matrices: int = 4096
    """Fresh matrices of the last checkpoint's test loss."""


def on_plateau(trained: Trained, seed: int, batch) -> dict:
    """Losses at 4/15 t_drop; `relative` is L_mask over the loss of predicting 0 at the same hidden cells, 1 for a copy."""
    result = losses(predict(trained.model(seed, "early"), batch.ids), batch)
    return result | {"relative": result["loss_masked"] / float(batch.target[~batch.observed].square().mean())}


def analyse(trained: Trained, settings: Loss) -> dict:
    batch = trained.matrices(settings.matrices)
    level, variance = plateau_levels(trained.data)
    metrics = {seed: trained.metrics(seed) for seed in trained.seeds}
    return {
        "levels": {"loss": level, "loss_masked": variance},
        "drop": over_seeds([asdict(trained.drop(seed)) for seed in trained.seeds]),
        "early": over_seeds([on_plateau(trained, seed, batch) for seed in trained.seeds]),
        "end": over_seeds([losses(predict(trained.model(seed), batch.ids), batch) for seed in trained.seeds]),
        "steps": metrics[trained.seeds[0]]["step"].tolist(),
        "curves": {name: [m[name].round(7).tolist() for m in metrics.values()] for name in CURVES},
    }


def draw(result: dict):
    fig, axs = plotting.axes(ncols=2, width=6.5, height=2.7)
    for ax, scale in zip(axs, ("linear", "log"), strict=True):
        for name, (label, concept) in CURVES.items():
            color = plotting.PALETTE[concept]
            plotting.seed_lines(ax, result["steps"], result["curves"][name], label=label, color=color)
        for level in result["levels"].values():
            ax.axhline(level, color=plotting.GREY, ls="--", lw=0.8)
        for half in result["drop"]["half"]["values"]:
            if half is not None:
                ax.axvline(half, color=plotting.GREY, ls=":", lw=0.8)
        ax.set(
            xlabel="step", yscale=scale, ylim=(0 if scale == "linear" else None, 1.5 * result["levels"]["loss_masked"])
        )
    axs[0].set_ylabel("mean squared error")
    for name, text in (("loss_masked", "Var"), ("loss", "p Var")):
        place = (1, result["levels"][name])
        axs[0].annotate(text, place, xycoords=("axes fraction", "data"), xytext=(2, -2), textcoords="offset points")
    axs[0].legend(loc="center right")
    return fig


def finding(result: dict) -> str:
    drop, variance = result["drop"], result["levels"]["loss_masked"]
    halves = ", ".join("none" if v is None else f"{v:.0f}" for v in drop["half"]["values"])
    return (
        f"L_mask stays at {drop['plateau']['mean'] / variance:.3f} Var, then drops (step {halves}) "
        f"to {drop['final']['mean'] / variance:.2f} Var; L_obs on the plateau {drop['plateau_observed']['mean']:.1e}"
    )


if __name__ == "__main__":
    perform("loss", Loss, analyse, draw, finding)
