"""Runs of a study side by side: losses on held-out text along training and at the end, in nats per token, per seed."""

import math
from collections.abc import Sequence

import numpy as np

from common import plotting
from common.claims import by_seed
from common.experiment import over_seeds
from simplifying_blocks.evaluate import Trained

NAMES = {
    "main": "Pre-LN", "preln": "Pre-LN", "postln": "Post-LN", "parallel": "Parallel", "naive": "skipless, naive",
    "vskipinit": "V-SkipInit", "skipless": "shaped, trained V, P", "sas": "SAS", "sas_p": "SAS-P",
    "sas_p_nonorm": "SAS-P, no norm", "op": "OP",
}  # fmt: skip
COLORS = {
    "preln": plotting.INK, "parallel": plotting.GREY, "naive": plotting.PURPLE, "vskipinit": plotting.VERMILION,
    "skipless": plotting.GREEN, "sas": plotting.BLUE, "sas_p": plotting.SKY, "sas_p_nonorm": plotting.ORANGE,
}  # fmt: skip
"""A block keeps its colour."""


def compare(trained: Trained, names: Sequence[str]) -> dict:
    """Keys: runs -> name -> block, lr, schedule, steps, tokens (seen in training), parameters, seconds (of a step, None where
    too few were timed); evaluated (steps), curve (loss per seed and evaluation), final (loss on files not trained on), packages
    (on packages not trained on), train (mean loss of the last batches) and bits_per_byte: {values, mean, error} over seeds.
    """
    return {"runs": {name: ending(run) for name, run in trained.others(list(names)).items()}}


def ending(run: Trained) -> dict:
    """One run of `compare`."""
    c, (steps, curve) = run.config.train, run.curve("valid_iid")
    unseen = {key: over_seeds(run.final(key)) for key in ("packages", "bits_per_byte") if key in run.metrics}
    return {
        "block": run.config.model.block,
        "lr": c.lr,
        "schedule": c.schedule,
        "steps": c.steps,
        "tokens": c.steps * c.batch * c.context,
        "parameters": run.parameters,
        "seconds": run.seconds_per_step,
        "evaluated": steps.tolist(),
        "curve": curve.tolist(),
        "final": over_seeds(run.final()),
        "train": over_seeds(run.final("loss")),
        **unseen,
    }


def finals(result: dict, *names: str, key: str = "final") -> list[tuple[float, ...]]:
    """A tuple per seed: the final losses of those runs; raises Missing for a run that was not compared."""
    return by_seed(*(known(result["runs"][name][key]["values"]) for name in names))


def known(values: Sequence[float | None]) -> list[float]:
    """Losses of a result as numbers: that of a seed that diverged, null in the file, is NaN."""
    return [math.nan if value is None else value for value in values]


def gap(result: dict, run: str, other: str, key: str = "final") -> list[float]:
    """Per seed the final loss of a run over that of another, in nats. The seeds share batches and held-out text."""
    return [a - b for a, b in finals(result, run, other, key=key)]


def called(name: str) -> str:
    """A run's name for a reader."""
    return NAMES.get(name, name.replace("_", " "))


def colors(runs: dict) -> dict[str, str]:
    """Name -> colour: that of the block where each run has another one, else one after another."""
    blocks = [run["block"] for run in runs.values()]
    if len(set(blocks)) == len(blocks) and set(blocks) <= set(COLORS):
        return {name: COLORS[run["block"]] for name, run in runs.items()}
    return dict(
        zip(runs, plotting.COLORS if len(runs) <= len(plotting.COLORS) else plotting.ordered(len(runs)), strict=False)
    )


def draw_curves(ax, runs: dict, seconds: bool = False) -> None:
    """Loss on held-out files along training, every seed; by the time of a seed's steps if asked, where it is known."""
    for name, color in colors(runs).items():
        if seconds and not math.isfinite(runs[name]["seconds"] or math.nan):
            continue
        # At the start all are near ln V, which would flatten the rest.
        steps, rows = runs[name]["evaluated"][1:], [row[1:] for row in runs[name]["curve"]]
        x = [step * runs[name]["seconds"] for step in steps] if seconds else steps
        draw_seeds(ax, x, rows, called(name), color)
    ax.set(xlabel="seconds of training" if seconds else "step")


def draw_seeds(ax, x, rows, label: str, color: str) -> None:
    """Every seed thin under the bold mean, without a band: with many lines, three seeds' intervals would cover them all."""
    rows = np.asarray(rows, dtype=float)
    for row in rows:
        ax.plot(x, row, color=color, lw=0.6, alpha=0.5)
    ax.plot(x, rows.mean(0), color=color, lw=1.7, label=label)


FAR = 1.0
"""Nats over the least final loss beyond which a run is told and not drawn among the others."""


def draw_finals(ax, runs: dict) -> None:
    """The final losses, a dot per seed; what is far above the others is named."""
    means = {name: float(np.mean(known(run["final"]["values"]))) for name, run in runs.items()}
    least = min((mean for mean in means.values() if math.isfinite(mean)), default=0.0)
    far = {name: mean for name, mean in means.items() if mean > least + FAR}
    runs = {name: run for name, run in runs.items() if name not in far}
    ax.set_title(", ".join(f"{called(name)}: {mean:.2f}" for name, mean in far.items()), fontsize=7)
    plotting.seed_dots(ax, {called(name): run["final"]["values"] for name, run in runs.items()})
    ax.set(ylabel="at the end (nats per token)")
    ax.tick_params(axis="x", rotation=40, labelsize=6)
    for label in ax.get_xticklabels():
        label.set_ha("right")


def draw_comparison(result: dict):
    """Curves by step, and final losses."""
    fig, axes = plotting.axes(2, height=2.8)
    draw_curves(axes[0], result["runs"])
    axes[0].set_ylabel("held-out loss (nats per token)")
    axes[0].legend(fontsize=6)
    draw_finals(axes[1], result["runs"])
    return fig


def told(result: dict) -> str:
    """The final losses in a line."""
    return ", ".join(f"{called(name)} {run['final']['mean']:.3f}" for name, run in result["runs"].items()) + " nats"
