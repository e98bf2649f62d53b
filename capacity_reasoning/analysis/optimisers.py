"""Optimisers compared on one mix of one-hop and two-hop questions (Johnston & Belrose, arXiv 2502.03490, their notebooks on the
optimiser)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from capacity_reasoning.analysis._axes import DOTS
from capacity_reasoning.analysis._losses import beside_uniform
from capacity_reasoning.analysis._presets import LONG
from capacity_reasoning.analysis._runs import siblings
from capacity_reasoning.capacity import TWO_HOP
from capacity_reasoning.evaluate import Analysis, Trained
from common import experiment, plotting
from common.claims import Claim, Missing
from common.config import UserError
from common.limits import Name, Range

CHOSEN = {"name": "schedulefree", "lr": 1e-3, "beta1": 0.99}


@dataclass
class Settings(Analysis):
    prefix: Name = "optim_"
    """Runs to compare, this one among them: those of the study whose names begin so."""
    reached: Annotated[float, Range(0, 1)] = 0.5
    """Part of the way from the uniform loss to the best run's last one; the step that gets so far tells how fast a run is."""


def measure(run: Trained, settings: Settings) -> dict:
    """One run of `analyse`."""
    steps, losses = run.curves(TWO_HOP)
    optim = run.config.optim
    final = beside_uniform(run, TWO_HOP, run.losses(TWO_HOP, settings.most))
    told = {"name": optim.name, "lr": optim.lr, "beta1": optim.beta1, "weight_decay": optim.weight_decay}
    return {**told, "N": run.N, "P": run.P, "steps": steps.tolist(), "losses": losses.tolist(), "final": final}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: reached; runs -> name -> the optimiser's name, lr, beta1, weight_decay; N, P; steps (T,), losses (S, T) of two-hop
    training questions along training; final {loss, uniform} per seed, all in nats per question."""
    if 2 not in trained.config.mix.orders:
        raise UserError(
            f"found no two-hop questions in {trained.run.path}, expected a run {settings.prefix}*; give another --run"
        )
    runs = siblings(trained, settings.prefix, own=True)
    return {
        "reached": settings.reached,
        "runs": {run.run.path.name: measure(run, settings) for run in runs if 2 in run.config.mix.orders},
    }


def chosen(result: dict) -> str:
    """The run with the authors' optimiser; raises Missing without it or without others."""
    names = [name for name, run in result["runs"].items() if all(run[key] == value for key, value in CHOSEN.items())]
    if len(names) != 1 or len(result["runs"]) < 2:
        raise Missing(
            f"found {len(names)} of {len(result['runs'])} runs with {CHOSEN}, expected one and others beside it"
        )
    return names[0]


def speeds(result: dict) -> dict[str, list[float]]:
    """Per run and seed the step at which the loss has come so far as `reached` says; inf where it does not."""
    told: dict[str, list[float]] = {name: [] for name in result["runs"]}
    for seed in range(len(result["seeds"])):
        finals = [run["final"] for run in result["runs"].values()]
        uniform, best = finals[0]["uniform"][seed], min(final["loss"][seed] for final in finals)
        goal = uniform - result["reached"] * (uniform - best)
        for name, run in result["runs"].items():
            came = np.flatnonzero(np.asarray(run["losses"][seed], float) <= goal)
            told[name].append(float(run["steps"][came[0]]) if len(came) else np.inf)
    return told


def order(result: dict) -> dict[str, list]:
    """Per seed the authors' optimiser over the best of the others, in final loss and in speed; how far all losses lie apart."""
    best, steps = chosen(result), speeds(result)
    finals = {name: run["final"]["loss"] for name, run in result["runs"].items()}
    uniform = result["runs"][best]["final"]["uniform"]
    told: dict[str, list] = {name: [] for name in NUMBERS}
    for seed, chance in enumerate(uniform):
        losses = [values[seed] for values in finals.values()]
        values = [_over_others(column, best, seed) for column in (finals, steps)]
        values += [max(losses) / min(losses), max(losses) / chance]
        for column, value in zip(told.values(), values, strict=True):
            column.append(float(value))
    return told


def _over_others(columns: dict[str, list[float]], name: str, seed: int) -> float:
    """One run's number over the least of the others'; inf where it never came."""
    least = min(values[seed] for other, values in columns.items() if other != name)
    return columns[name][seed] / least if columns[name][seed] < np.inf else np.inf


def draw(result: dict):
    """Two-hop loss over training, every optimiser, and its end."""
    fig, axes = plotting.axes(2, height=3, width_ratios=(1.6, 1))
    runs = list(result["runs"].values())
    for place, (run, color) in enumerate(zip(runs, plotting.ordered(len(runs)), strict=True)):
        plotting.seed_lines(axes[0], run["steps"], run["losses"], _name(run), color)
        losses = run["final"]["loss"]
        axes[1].plot(losses, [place] * len(losses), color=color, **DOTS)
    uniform = np.mean(runs[0]["final"]["uniform"])
    axes[0].axhline(uniform, color=plotting.GREY, linestyle="--", linewidth=0.8)
    axes[0].set(
        xscale="symlog", xlim=(1, None), ylim=(0, 1.5 * uniform), xlabel="step", ylabel="two-hop loss (nats / question)"
    )
    axes[0].legend(fontsize=6)
    axes[1].set(
        xlabel="loss at the end (nats / question)", yticks=range(len(runs)), yticklabels=[_name(run) for run in runs]
    )
    axes[1].invert_yaxis()
    return fig


def _name(run: dict) -> str:
    short = {"schedulefree": "SF", "adamw_cosine": "AdamW cos", "adamw_linear": "AdamW lin"}[run["name"]]
    return f"{short} {run['lr']:g}, {run['beta1']:g}"


def finding(result: dict) -> str:
    told = [f"{_name(run)}: {np.mean(run['final']['loss']):.2f}" for run in result["runs"].values()]
    return f"two-hop loss at the end, by optimiser, learning rate and beta1: {'; '.join(told)}"


NUMBERS = (
    "final loss / least of the others",
    "step half way / least of the others",
    "highest final loss / lowest",
    "highest final loss / uniform",
)
CLAIMS = [
    Claim("C15", "Schedule-free AdamW with learning rate 1e-3 and beta1 0.99 is fastest and ends lowest of the optimisers "
          "tried, and all end near each other.", source="notebooks, optimisers at N = 10k and P = 1.48M", presets=LONG,
          paper="all end near 2.5 to 3 nats", number=order, needs=("optim_schedulefree/optimisers",),
          below=dict(zip(NUMBERS, (1.0, 1.0, 1.35, 0.6), strict=True))),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
