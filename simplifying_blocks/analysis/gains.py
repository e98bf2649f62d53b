"""Gains of the attention matrix and of the MLP branch along training (paper Figs 17 to 20)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.claims import Claim
from simplifying_blocks.analysis._presets import ALL
from simplifying_blocks.evaluate import Analysis, Trained

SHOWN = {
    "alpha": "identity alpha", "beta": "softmax beta", "gamma": "uniform gamma", "beta_FF": "MLP branch beta_FF"
}  # fmt: skip


@dataclass
class Settings(Analysis):
    """A run of a shaped block."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps; gains -> name -> value per seed, diagnostic and layer (mean over heads); entropy of attention, the same."""
    steps, entropy = trained.layers("attention_entropy")
    gains = {name: trained.layers(name)[1].tolist() for name in SHOWN}
    return {"block": trained.config.model.block, "steps": steps.tolist(), "gains": gains, "entropy": entropy.tolist()}


def draw(result: dict):
    """A panel per gain, a line per layer."""
    fig, axes = plotting.axes(2, 2, height=4.2, sharex=True)
    for ax, (name, text) in zip(axes.flat, SHOWN.items(), strict=True):
        rows = np.asarray(result["gains"][name])
        for layer, color in enumerate(plotting.ordered(rows.shape[2])):
            shown = layer in (0, rows.shape[2] - 1)
            plotting.seed_lines(ax, result["steps"], rows[:, :, layer], f"block {layer + 1}" if shown else "_", color)
        ax.set(title=text, ylim=(min(0, rows.min()), None))
    axes[0, 0].legend()
    axes[1, 0].set_xlabel("step")
    axes[1, 1].set_xlabel("step")
    return fig


def finding(result: dict) -> str:
    kept = {name: np.mean(values) for name, values in least(result).items()}
    return "least of any block on the way, over the start: " + ", ".join(
        f"{name} {value:.2f}" for name, value in kept.items()
    )


def least(result: dict) -> dict[str, list[float]]:
    """C6: per gain and seed, the smallest |value| that any block has on the way, over its |start|."""
    rows = {name: np.abs(np.asarray(values, dtype=float)) for name, values in result["gains"].items()}
    return {name: (value / value[:, :1]).min((1, 2)).tolist() for name, value in rows.items()}


CLAIMS = [
    Claim(
        "C6",
        "The other gains do not vanish.",
        source="Figs 17 to 20",
        presets=ALL,
        needs=("sas/gains",),
        number=least,
        above=dict.fromkeys(SHOWN, 0.2),
        paper="beta_h falls from 1 to 0.8 to 1 (read off)",
        note=lambda r: "least of any block on the way, over the start",
    ),
]

if __name__ == "__main__":
    experiment.main(__name__)
