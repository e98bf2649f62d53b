"""The figure of `convergence`."""

import numpy as np

from capacity_reasoning.analysis._axes import DOTS, PARAMETERS, log_x
from common import plotting

KINDS = {"onehop": ("one-hop runs", plotting.BLUE), "twohop": ("two-hop runs", plotting.VERMILION)}


def draw(result: dict):
    """Gap over training, its largest and last against P; steps to the least loss; slopes; loss against content."""
    fig, axes = plotting.axes(3, 2, height=4.6)
    gap_curves(axes[0, 0], list(result["twohop"].values()))
    gap_sizes(axes[0, 1], list(result["twohop"].values()))
    times(axes[0, 2], result)
    loss_slopes(axes[1, 0], result)
    losses(axes[1, 1], result)
    against_content(axes[1, 2], result)
    return fig


def gap_curves(ax, runs: list[dict]) -> None:
    """Mean gap over seeds along training, a line per run, darkest for the smallest."""
    for run, color in zip(runs, plotting.ordered(len(runs)), strict=True):
        if run["gap"]:
            ax.plot(run["steps"], _gap(run).mean(0), color=color, linewidth=1)
    ax.axhline(0, color=plotting.GREY, linewidth=0.8)
    ax.set_xscale("symlog")
    ax.set(xlabel="step", ylabel="gap (nats / question)", title="new combinations - train", xlim=(0, None))


def _gap(run: dict) -> np.ndarray:
    """(S, T)."""
    held_out, trained = (np.asarray(run["curves"][mode], float) for mode in ("complete_two_hop", "train_twohop"))
    return held_out - trained


def gap_sizes(ax, runs: list[dict]) -> None:
    """Largest and last gap against P, a dot per run and seed."""
    for name, label, color in (("max", "largest", plotting.VERMILION), ("last", "at the end", plotting.SKY)):
        points = [(run["P"], each[name]) for run in runs for each in run["gap"] or [] if each]
        if points:
            ax.plot(*zip(*points, strict=True), color=color, label=label, **DOTS)
            ax.legend()
    log_x(ax, PARAMETERS)
    ax.set(ylabel="gap (nats / question)", title="gap by size")


def times(ax, result: dict) -> None:
    """Step of the least loss against P; an open ring at the last step where the loss may still fall."""
    for kind, (_, color) in KINDS.items():
        runs = list(result[kind].values())
        came = [(run["P"], step) for run in runs for step in run["least"] if step]
        open_ = [(run["P"], run["steps"][-1]) for run in runs for step in run["least"] if step is None]
        for points, face in ((came, color), (open_, "none")):
            if points:
                ax.plot(*zip(*points, strict=True), color=color, markerfacecolor=face, **DOTS)
    log_x(ax, PARAMETERS)
    ax.set(yscale="log", ylabel="step", title="least loss (ring: still falling)")


def loss_slopes(ax, result: dict) -> None:
    """Size of the smoothed derivative of the loss, late in training."""
    for kind, (_, color) in KINDS.items():
        for run in result[kind].values():
            for steps, values in filter(None, run["slopes"]):
                ax.plot(steps, np.abs(values), color=color, linewidth=0.6, alpha=0.6)
    ax.set(yscale="log", xlabel="step", ylabel="|d loss / d step| (nats)", title="slope of the loss")
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))


def losses(ax, result: dict) -> None:
    """Mean loss over seeds along training of what each run is trained on last."""
    for kind, (label, color) in KINDS.items():
        for run in result[kind].values():
            ax.plot(run["steps"], np.asarray(run["curves"][run["mode"]], float).mean(0), color=color, linewidth=0.8)
        ax.plot([], [], color=color, label=label)
    ax.set(xscale="symlog", xlabel="step", ylabel="loss (nats / question)", title="loss", xlim=(0, None))
    ax.legend()


def against_content(ax, result: dict) -> None:
    """The same against the content over 2 P that the mean loss stands for, at every evaluation from the uniform loss down."""
    for kind, (_, color) in KINDS.items():
        for run in result[kind].values():
            x, y = np.asarray(run["load"], float).mean(0), np.asarray(run["curves"][run["mode"]], float).mean(0)
            ax.plot(x[x > 0], y[x > 0], color=color, linewidth=0.8)
    ax.axvline(1, color=plotting.GREY, linestyle="--", linewidth=0.8)
    ax.set(xlabel="content / 2P", ylabel="loss (nats / question)", title="loss by content")
