"""Loss of every kind of question along training, subject by subject, over all questions (Johnston & Belrose, arXiv 2502.03490;
their loss_over_time)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from capacity_reasoning.analysis._losses import beside_uniform, subject_losses
from capacity_reasoning.evaluate import Analysis, Trained, grid, two_hop_modes, uniform_loss
from capacity_reasoning.examine import ONE_HOP
from common import experiment, plotting
from common.limits import Range

COLUMNS = 3


@dataclass
class Settings(Analysis):
    points: Annotated[int, Range(1, 1000)] = 20
    """Checkpoints, evenly spaced among those that there are, the last always."""
    bins: Annotated[int, Range(0, 500)] = 0
    """Bins of histograms of the losses of single questions at the last checkpoint; 0: none."""


def tell(trained: Trained, mode: str, steps: list[int], settings: Settings) -> dict:
    """One mode of `analyse`."""
    losses, subjects = [], []
    for step in steps:
        found = trained.losses(mode, settings.most, step)
        told = beside_uniform(trained, mode, found)
        losses.append(told["loss"])
        subjects.append(subject_losses(trained, found))
    return {
        **{"loss": np.transpose(losses).tolist(), "uniform": told["uniform"]},
        "by_subject": [list(rows) for rows in zip(*subjects, strict=True)],
        "histogram": histogram(np.concatenate([one.nats for one in found]), settings.bins),
    }


def histogram(nats: np.ndarray, bins: int) -> dict | None:
    """Counts (bins,) and edges (bins + 1,) from 0 to the highest loss."""
    if not bins:
        return None
    counts, edges = np.histogram(nats, bins, range=(0, max(float(nats.max()), 1e-3)))
    return {"counts": counts.tolist(), "edges": edges.tolist()}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T,); subjects; uniform_by_subject (S, subjects); modes -> train_onehop and every class of two-hop questions
    -> loss (S, T), uniform (S,), by_subject (S, T, subjects; None for one that is not asked), in nats per question, and
    histogram {counts, edges} of single questions' losses at the last checkpoint, all seeds together."""
    steps = grid(trained.steps, settings.points)
    modes = [ONE_HOP] * (1 in trained.config.mix.orders)
    modes += two_hop_modes(trained) if 2 in trained.config.mix.orders else []
    return {
        **{"steps": steps, "subjects": list(trained.support[0].subjects)},
        "uniform_by_subject": [uniform_loss(trained, number).tolist() for number in range(len(trained.seeds))],
        "modes": {mode: tell(trained, mode, steps, settings) for mode in modes},
    }


def draw(result: dict):
    """A panel per mode: subjects thin under the mean of all, over the uniform loss; below them the histograms, if any."""
    modes = result["modes"]
    histograms = {mode: cell["histogram"] for mode, cell in modes.items() if cell["histogram"]}
    rows = -(-len(modes) // COLUMNS)
    fig, axes = plotting.axes(
        COLUMNS, rows * (2 if histograms else 1), height=1.75 * rows * (2 if histograms else 1), squeeze=False
    )
    panels = axes.flatten()
    for ax in panels:
        ax.set_visible(False)
    for ax, (mode, cell) in zip(panels, modes.items(), strict=False):
        curves(ax, result["steps"], mode, cell)
    panels[0].legend(fontsize=6)
    for ax, (mode, told) in zip(panels[rows * COLUMNS :], histograms.items(), strict=False):
        ax.set_visible(True)
        ax.stairs(told["counts"], told["edges"], fill=True, color=plotting.SKY)
        ax.set(yscale="log", xlabel="nats of a question", ylabel="questions", title=mode.replace("_", " "))
    return fig


def curves(ax, steps: list[int], mode: str, cell: dict) -> None:
    """Loss over training of one mode: a thin grey line per subject (its mean over seeds), and the mean of all per seed."""
    ax.set_visible(True)
    uniform, subjects = np.mean(cell["uniform"]), np.asarray(cell["by_subject"], float).mean(0)
    for number, row in enumerate(subjects.T[~np.isnan(subjects).any(0)]):
        ax.plot(steps, row, color=plotting.GREY, linewidth=0.5, alpha=0.6, label=None if number else "a subject")
    plotting.each_seed(ax, steps, cell["loss"], "all, by seed", plotting.PALETTE["model"])
    ax.axhline(uniform, color=plotting.VERMILION, linestyle="--", linewidth=0.8, label="uniform")
    ax.set(xlabel="step", ylabel="nats / question", title=mode.replace("_", " "), ylim=(0, 2 * uniform))
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))


def finding(result: dict) -> str:
    told = [f"{mode} {np.mean([row[-1] for row in cell['loss']]):.2f}" for mode, cell in result["modes"].items()]
    return f"nats per question at step {result['steps'][-1]}: {', '.join(told)}"


CLAIMS = []

if __name__ == "__main__":
    experiment.main(__name__)
