"""Is there a lazy phase? Drift of the empirical NTK from its start (paper section 4.1, authors' notebooks; sheet C21)."""

from dataclasses import dataclass

from common import plotting
from layernorm_grok.analysis._drift import with_drift
from layernorm_grok.analysis._driver import Probe, at, draw_lives, over_seeds, perform
from layernorm_grok.evaluate import Trained


@dataclass
class Ntk(Probe):
    pairs: int = 512
    """Train pairs in the kernel, the same at every checkpoint."""


def analyse(trained: Trained, settings: Ntk) -> dict:
    """Curves of the drift; its value at the first checkpoint after T_train, and at the end."""
    cells = with_drift(trained, settings, settings.pairs)
    for name, cell in cells.items():
        fitted = trained.times(name)["t_train"]
        cell["t_train"] = fitted
        cell["at_fit"] = over_seeds(
            [None if t is None else at(curve, "projected", t) for curve, t in zip(cell["seeds"], fitted, strict=True)]
        )
    return {"cells": cells}


def draw(result: dict):
    """Drift in the directions cross-entropy sees, and of the sum of logits, to which it is blind."""
    fig, axes = plotting.axes(2, height=2.6)
    titles = {"projected": "orthogonal to the sum of logits", "sum": "of the sum of logits (as in the code)"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        draw_lives(ax, result["cells"], kind)
        ax.set(title=title, xlabel="step", ylabel="||K_t - K_0|| / ||K_0||", xscale="symlog", yscale="symlog")
        ax.set_ylim(bottom=0)
    axes[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    return "drift when the train loss reaches 0.01: " + "; ".join(
        f"{name} {'/'.join('-' if v is None else f'{v:.1f}' for v in cell['at_fit']['values'])}"
        for name, cell in result["cells"].items()
    )


if __name__ == "__main__":
    perform("ntk", Ntk, analyse, draw, finding)
