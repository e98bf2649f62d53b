"""Heavy tails of the weight matrices along training (authors' logger; sheet 3.8)."""

from common import plotting
from layernorm_grok import htsr
from layernorm_grok.analysis._driver import Probe, along, draw_lives, perform
from layernorm_grok.evaluate import Trained

PANELS = {
    "alpha_pl": "power-law exponent",
    "effective_rank": "effective rank",
    "numerical_rank": "numerical rank",
    "stable_rank": "stable rank",
}


def measure(model, name: str, seed: int) -> dict:
    """Means over the matrices, as logged by the authors, and every matrix by itself."""
    found = htsr.heavy_tails(model.state_dict())
    alone = {f"{key} of {matrix}": value for matrix, row in found.items() for key, value in row.items()}
    return htsr.average(found) | alone


def analyse(trained: Trained, settings: Probe) -> dict:
    return {"cells": along(trained, settings, measure, "the development of the weights")}


def draw(result: dict):
    """The four measures, each the mean over the weight matrices."""
    fig, axes = plotting.axes(2, 2, height=4.2)
    for ax, (key, text) in zip(axes.flat, PANELS.items(), strict=True):
        draw_lives(ax, result["cells"], key)
        ax.set(xlabel="step", ylabel=text)
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    ends = ((n, [c["effective_rank"][-1] for c in cell["seeds"]]) for n, cell in result["cells"].items())
    return "mean effective rank of W^T W at the end: " + "; ".join(
        f"{name} {'/'.join(f'{v:.1f}' for v in values)}" for name, values in ends
    )


if __name__ == "__main__":
    perform("htsr", Probe, analyse, draw, finding)
