"""What becomes of beta / alpha of values and projections where both are trained (paper Figs 4, 16, 21, 22)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.claims import Claim
from simplifying_blocks.analysis._compare import draw_seeds, ending, gap
from simplifying_blocks.analysis._presets import SLOW
from simplifying_blocks.evaluate import Analysis, Trained

SMALL, LEFT = 0.1, 0.05
"""|beta / alpha| that counts as vanished, and the paper's line above which only the first layer's V ends."""


@dataclass
class Settings(Analysis):
    """A run with alpha_V, beta_V, alpha_P and beta_P trained."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (of the diagnostics), V and P (|beta / alpha| per seed, diagnostic and layer), final (loss: values, mean,
    error over seeds), block."""
    steps, _ = trained.layers("ratio_V")
    ratios = {part: np.abs(trained.layers(f"ratio_{part}")[1]).tolist() for part in "VP"}
    return {"block": trained.config.model.block, "steps": steps.tolist(), **ratios, "final": ending(trained)["final"]}


def draw(result: dict):
    """A line per layer, mean over seeds, values beside projections."""
    fig, axes = plotting.axes(2, height=2.7, sharey=True)
    for ax, part in zip(axes, "VP", strict=True):
        rows = np.asarray(result[part])
        for layer, color in enumerate(plotting.ordered(rows.shape[2])):
            shown = layer in (0, rows.shape[2] - 1)
            draw_seeds(ax, result["steps"], rows[:, :, layer], f"block {layer + 1}" if shown else "_", color)
        ax.axhline(SMALL, color=plotting.GREY, ls=":", label="0.1")
        ax.set(xlabel="step", title={"V": "values", "P": "projections"}[part], yscale="log", ylim=(5e-4, None))
    axes[0].set_ylabel("|beta / alpha|")
    axes[0].legend()
    return fig


def finding(result: dict) -> str:
    small, first = np.mean(vanished(result)), np.mean([seed[-1][0] for seed in result["V"]])
    return f"{small:.0%} of the ratios end below {SMALL}; values of the first block at {first:.2f}"


def last(result: dict, part: str) -> np.ndarray:
    """Ratios at the end (S, L)."""
    return np.asarray(result[part], dtype=float)[:, -1]


def vanished(result: dict) -> list[float]:
    """Per seed the share of all 2L ratios that end below SMALL; NaN where it diverged."""
    rows = np.concatenate([last(result, "V"), last(result, "P")], 1)
    return np.where(np.isnan(rows), np.nan, rows < SMALL).mean(1).tolist()


def first_over_others(result: dict) -> list[float]:
    """Per seed the ratio of the first block's V over the largest of the other 2L - 1, at the end."""
    values, projections = last(result, "V"), last(result, "P")
    return (values[:, 0] / np.concatenate([values[:, 1:], projections], 1).max(1)).tolist()


def growth(result: dict) -> list[float]:
    """Per seed the median over all 2L ratios of end over start."""
    ends = [last(result, part) / np.asarray(result[part], dtype=float)[:, 0] for part in "VP"]
    return np.median(np.concatenate(ends, 1), 1).tolist()


def vanish(ratios: dict, blocks: dict) -> dict[str, list[float]]:
    """C5."""
    return {
        "share below 0.1": vanished(ratios),
        "first V": last(ratios, "V")[:, 0].tolist(),
        "first V over the largest other": first_over_others(ratios),
        "loss over SAS": gap(blocks, "skipless", "sas"),
    }


def elsewhere(parallel: dict, orthogonal: dict) -> dict[str, list[float]]:
    """C7."""
    return {"share below 0.1, parallel": vanished(parallel), "share below 0.1, orthogonal": vanished(orthogonal)}


def with_skip(ratios: dict, identity: dict) -> dict[str, list[float]]:
    """C8."""
    return {
        "end of ratio over start, median": growth(ratios),
        "V = P = I over Pre-LN": gap(identity, "preln_identity", "main"),
        "V = P = I, small branch, over Pre-LN": gap(identity, "preln_identity_small", "main"),
    }


CLAIMS = [
    Claim(
        "C5",
        "Trained beta / alpha of V and P go to 0 in nearly all blocks, the first one's V is the largest, "
        "and the loss ends above that of SAS, where they are 0 but for it.",
        source="Fig 4",
        presets=("quick", *SLOW),
        needs=("skipless/gain_ratios", "blocks"),
        number=vanish,
        above={
            "share below 0.1": 0.79,
            "first V": LEFT,
            "first V over the largest other": 1.0,
            "loss over SAS": 0.0,
        },
        paper="all but the first V below 0.05; 1.194 beside 1.178 nats",
        note=lambda r, b: f"above 0.05 at the end: {above_line(r)} of the ratios",
    ),
    Claim(
        "C7",
        "They go to 0 in the parallel block too, and with orthogonal bases.",
        source="Figs 16, 21",
        presets=SLOW,
        needs=("skipless_p/gain_ratios_parallel", "skipless_orthogonal/gain_ratios_orthogonal"),
        number=elsewhere,
        above={"share below 0.1, parallel": 0.79, "share below 0.1, orthogonal": 0.7},
        paper="slightly more exceptions",
    ),
    Claim(
        "C8",
        "With the attention skip in place the ratios grow instead, and V = P = I is slightly worse than Pre-LN, "
        "also with a smaller attention branch.",
        source="Figs 22, 23",
        presets=SLOW,
        needs=("preln_skip/gain_ratios_preln", "preln_identity"),
        number=with_skip,
        above={
            "end of ratio over start, median": 1.0,
            "V = P = I over Pre-LN": 0.0,
            "V = P = I, small branch, over Pre-LN": 0.0,
        },
        below=dict.fromkeys(("V = P = I over Pre-LN", "V = P = I, small branch, over Pre-LN"), 0.15),
        paper="grow; slightly worse",
    ),
]


def above_line(result: dict) -> str:
    """How many of the ratios end above the paper's line, over the seeds."""
    rows = np.concatenate([last(result, "V"), last(result, "P")], 1)
    return f"{', '.join(str(int(n)) for n in (rows > LEFT).sum(1))} of {rows.shape[1]}"


if __name__ == "__main__":
    experiment.main(__name__)
