"""Gains of the attention matrix and of the MLP branch along training (paper Figs 17 to 20)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.claims import Claim
from simplifying_blocks.analysis._compare import draw_seeds
from simplifying_blocks.analysis._presets import ALL
from simplifying_blocks.estimators.attention_entropy import uniform_entropy
from simplifying_blocks.evaluate import Analysis, Trained

SHOWN = {
    "alpha": "identity alpha", "beta": "softmax beta", "gamma": "uniform gamma", "beta_FF": "MLP branch beta_FF"
}  # fmt: skip


@dataclass
class Settings(Analysis):
    """A run of a shaped block."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps; gains -> name -> value per seed, diagnostic and layer (mean over heads); entropy of attention in nats, the
    same; uniform, the entropy of uniform attention."""
    steps, entropy = trained.layers("attention_entropy")
    gains = {name: trained.layers(name)[1].tolist() for name in SHOWN}
    found = {"block": trained.config.model.block, "steps": steps.tolist(), "gains": gains, "entropy": entropy.tolist()}
    return found | {"uniform": uniform_entropy(trained.config.train.context)}


def draw(result: dict):
    """A panel per gain and one for the entropy, a line per layer."""
    fig, axes = plotting.axes(3, 2, height=4.0)
    panels = {text: result["gains"][name] for name, text in SHOWN.items()} | {
        "attention entropy (nats)": result["entropy"]
    }
    for ax, (text, rows) in zip(axes.flat, panels.items(), strict=False):
        rows = np.asarray(rows, dtype=float)
        every = -(-rows.shape[2] // 9)
        for layer, color in enumerate(plotting.ordered(rows.shape[2])):
            label = f"block {layer + 1}" if layer % every == 0 else "_"
            draw_seeds(ax, result["steps"], rows[:, :, layer], label, color)
        ax.set(title=text, xlabel="step", ylim=(min(0, np.nanmin(rows)), None))
    axes[1, 1].axhline(result["uniform"], color=plotting.GREY, ls=":", label="uniform attention")
    axes[1, 2].set_axis_off()
    axes[1, 2].legend(*axes[1, 1].get_legend_handles_labels(), loc="center")
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
