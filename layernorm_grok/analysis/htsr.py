"""Heavy tails of the weight matrices along training (authors' logger)."""

import common.process  # noqa: F401

from common import experiment, plotting
from layernorm_grok.analysis._lives import along, at_end, by_cell, draw_lives
from layernorm_grok.estimators import htsr
from layernorm_grok.evaluate import Probe as Settings
from layernorm_grok.evaluate import Trained

PANELS = {
    "alpha_pl": "power-law exponent",
    "effective_rank": "effective rank",
    "numerical_rank": "numerical rank",
    "stable_rank": "stable rank",
}


def measure(trained: Trained, model, name: str, seed: int) -> dict:
    """Means over the matrices, as logged by the authors, and every matrix by itself."""
    tails = {matrix: htsr.measure(W) for matrix, W in htsr.matrices(model.state_dict())}
    alone = {f"{key} of {matrix}": value for matrix, row in tails.items() for key, value in row.items()}
    return htsr.average(list(tails.values())) | alone


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along` of the measures of `estimators.htsr`: <measure>, and <measure> of <matrix>)."""
    return {"cells": along(trained, settings, measure, "the development of the weights")}


def draw(result: dict):
    """The four measures, each the mean over the weight matrices."""
    fig, axes = plotting.axes(2, 2, height=4.2)
    for ax, (key, text) in zip(axes.flat, PANELS.items(), strict=True):
        draw_lives(ax, result["cells"], key, ylabel=text)
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    return f"mean effective rank of W^T W at the end: {by_cell(result['cells'], at_end('effective_rank'), '.1f')}"


if __name__ == "__main__":
    experiment.main(__name__)
