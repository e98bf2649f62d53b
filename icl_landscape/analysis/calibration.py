"""Which sampling settings give an LLC that means something: a grid over gamma, nbeta and step size, and the choice it leaves
(paper appendix on calibration).

The recipe: of all settings whose chains rest, do not explode, do not fall below w* and stay below l* + 0.3 (trivial - l*) at
every checkpoint, the smallest gamma; with it the largest nbeta; and then this one setting for the whole curve.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Annotated

import numpy as np

from common import experiment, plotting
from common.limits import Amount, Count, Distinct, Positive
from icl_landscape.analysis._grid import Grid, first_seeds, over_settings
from icl_landscape.analysis._llc import Measured, findings, told, with_sampling
from icl_landscape.analysis._recipe import burn_in, concluded, marks, numbers, pick, troubles
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.judges import walking


@dataclass
class Settings(Grid):
    gammas: Annotated[list[Amount], Distinct(1)] = field(default_factory=lambda: [50.0, 150.0, 500.0, 1500.0, 5000.0])
    """Localisations tried."""
    nbetas: Annotated[list[Positive], Distinct(1)] = field(default_factory=lambda: [30.0, 66.67, 100.0])
    """Inverse temperatures tried."""
    stabilities: Annotated[list[Positive], Distinct()] = field(default_factory=lambda: [0.4])
    """Step sizes tried, as epsilon (nbeta lambda_max + gamma), for each checkpoint its own."""
    epsilons: Annotated[list[Positive], Distinct()] = field(default_factory=list)
    """Step sizes tried besides, the same for every checkpoint."""
    trace: Count = 400
    """Draws from w* on that are told of the setting chosen, and from which its burn-in follows."""

    def __post_init__(self):
        super().__post_init__()
        if not [*self.stabilities, *self.epsilons]:
            raise ValueError("found no stabilities and no epsilons, expected step sizes such as --stabilities [0.4]")
        if self.stabilities and not self.sharpness:
            raise ValueError("found stabilities and sharpness 0, expected sequences to measure lambda_max on")


def grid(settings: Settings) -> list[Settings]:
    """The settings of every cell."""
    sizes = [{"stability": s} for s in settings.stabilities] + [{"epsilon": e} for e in settings.epsilons]
    return [
        cell(settings, gamma, nbeta, step) for step, nbeta, gamma in product(sizes, settings.nbetas, settings.gammas)
    ]


def cell(settings: Settings, gamma: float, nbeta: float, step: dict) -> Settings:
    """step: {"stability": ...} or {"epsilon": ...}."""
    epsilon = step.get("epsilon", settings.sampling.epsilon)
    changed = with_sampling(settings, gamma=gamma, nbeta=nbeta, epsilon=epsilon)
    return replace(changed, stability=step.get("stability", 0.0))


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: seeds (those looked at); steps (T); trivial (loss of the prediction 0); grid, a row per setting: gamma, nbeta, step
    ({"stability": ...} or {"epsilon": ...}), per seed and checkpoint (S, T) what llc.py tells, walking (0 at rest, 1 a random
    walk) and worst (kind of the worst finding, or ""), troubles (what disqualifies it), concluded (per seed, in words);
    pick (a row's gamma, nbeta, step and burn_in, with the flags to use; null where no setting is left); trace (of the setting
    chosen, or else of the least gamma: gamma, nbeta and LLC of single draws from w* on, mean over chains, (S, T, draws))."""
    trained = first_seeds(trained, settings.seeds)
    steps = settings.steps(trained)
    result = {"seeds": trained.seeds, "steps": steps, "trivial": trained.trivial}
    cells = grid(settings)
    every = over_settings(trained, cells, steps)
    rows = [row_of(trained, each, steps, parts) for each, parts in zip(cells, every, strict=True)]
    chosen = pick(rows, trained.trivial)
    shown = cells[min(range(len(rows)), key=lambda i: rows[i]["gamma"]) if chosen is None else chosen]
    result["trace"] = traced(trained, shown, steps)
    choice = None if chosen is None else choose(rows[chosen], result["trace"], settings)
    return result | {"grid": rows, "pick": choice}


def row_of(trained: Trained, settings: Settings, steps: list[int], parts: dict[int, list[Measured]]) -> dict:
    """A row of the grid."""
    curves = [told(parts[seed]) | {"walking": walk(parts[seed], settings)} for seed in trained.seeds]
    step = {"stability": settings.stability} if settings.stability else {"epsilon": settings.sampling.epsilon}
    row = {"gamma": settings.sampling.gamma, "nbeta": settings.sampling.nbeta, "step": step}
    row |= {key: [seed[key] for seed in curves] for key in curves[0]}
    row["worst"] = [worst_of(findings(seed, steps, parts[seed]), steps) for seed in trained.seeds]
    words = [concluded(row, trained.trivial, seed, steps) for seed in range(len(trained.seeds))]
    return row | {"troubles": troubles(row, trained.trivial), "concluded": words}


def walk(parts: list[Measured], settings: Settings) -> list[float]:
    return [value for part in parts for value in walking(part.trace, settings.sampling).tolist()]


def worst_of(found: list[dict], steps: list[int]) -> list[str]:
    """The first finding at each step, which the judges tell worst first; "" where there is none."""
    return [next((row["kind"] for row in found if row["step"] == step), "") for step in steps]


def traced(trained: Trained, settings: Settings, steps: list[int]) -> dict:
    """LLC of every draw from w* on, at one setting."""
    sampling = settings.sampling
    whole = replace(with_sampling(settings, burn_in=0, draws=settings.trace, every=1), acceptance=0)
    (parts,) = over_settings(trained, [whole], steps)
    llc = [[row for part in parts[seed] for row in draws_of(part, sampling.nbeta)] for seed in trained.seeds]
    return {"gamma": sampling.gamma, "nbeta": sampling.nbeta, "llc": llc}


def draws_of(part: Measured, nbeta: float) -> list[list[float]]:
    """nbeta (loss of w - loss of w*) of each draw, mean over chains: (M, draws)."""
    trace, base = part.trace, part.estimate.reference.repeat_interleave(part.trace.chains)
    losses = trace.losses.cpu().double().mean(2)
    base = base if trace.reference is None else trace.reference.cpu().double().mean(2)
    return (nbeta * (losses - base)).unflatten(1, (-1, trace.chains)).mean(2).T.tolist()


def choose(row: dict, trace: dict, settings: Settings) -> dict:
    """The setting to use for a whole curve, and its flags."""
    # One series, as each checkpoint alone would often seem to drift by chance
    found = burn_in(np.mean(trace["llc"], axis=(0, 1)))
    steps = settings.trace if found is None else found
    choice = {key: row[key] for key in ("gamma", "nbeta", "step", "troubles")}
    choice |= {"burn_in": steps, "rests": found is not None}
    step = "--stability {stability:g}" if "stability" in row["step"] else "--sampling.epsilon {epsilon:g}"
    names = {"nbeta": row["nbeta"], "gamma": row["gamma"], "burn_in": steps, "draws": settings.sampling.draws}
    flags = [f"--sampling.{name} {value:g}" for name, value in names.items()]
    return choice | {"flags": " ".join([*flags, step.format(**row["step"])])}


def draw(result: dict):
    """Above, LLC over gamma for each nbeta, hollow where it disqualifies, and the draws of the setting chosen; below, sampled
    losses between those of w* and of the prediction 0, and the distance from w*."""
    shown = shown_step(result)
    nbetas = sorted({row["nbeta"] for row in shown})
    fig, axes = plotting.axes(len(nbetas) + 1, 2, height=4.0, squeeze=False)
    for column, nbeta in enumerate(nbetas):
        rows = sorted((row for row in shown if row["nbeta"] == nbeta), key=lambda row: row["gamma"])
        over_gamma(axes[0, column], result, rows, "llc", f"$n\\beta$ = {nbeta:g}")
        over_gamma(axes[1, column], result, rows, "loss_sampled", "")
        axes[1, column].axhline(result["trivial"], color=plotting.GREY, linewidth=0.8, label="prediction 0")
    axes[0, 0].set_ylabel(r"$\hat\lambda$ (hollow: not to be used)")
    axes[1, 0].set_ylabel("sampled loss")
    axes[0, 0].legend(fontsize=5)
    axes[1, 0].legend(fontsize=5)
    trace = result["trace"]
    for row, color in zip(trace["llc"][0], plotting.ordered(len(result["steps"])), strict=True):
        axes[0, -1].plot(np.cumsum(row) / np.arange(1, len(row) + 1), color=color, linewidth=1)
    axes[0, -1].set(xlabel="draw", title=rf"$\hat\lambda$ so far, $\gamma$ {trace['gamma']:g}")
    over_gamma(axes[1, -1], result, rows, "distance", r"$|w - w^*| / |w^*|$")
    return fig


def shown_step(result: dict) -> list[dict]:
    """The rows of the step size chosen, or of the first."""
    step = (result["pick"] or result["grid"][0])["step"]
    return [row for row in result["grid"] if row["step"] == step]


def over_gamma(ax, result: dict, rows: list[dict], key: str, title: str) -> None:
    """A line per checkpoint over gamma, of the first seed."""
    gammas = [max(row["gamma"], 1.0) for row in rows]
    bad = [np.any(list(marks(row, result["trivial"]).values()), axis=0)[0] for row in rows]
    for t, color in enumerate(plotting.ordered(len(result["steps"]))):
        values = [numbers(row, key)[0, t] for row in rows]
        ax.plot(gammas, values, color=color, linewidth=1, label=f"step {result['steps'][t]}")
        faces = ["white" if row[t] else color for row in bad]
        ax.scatter(gammas, values, s=12, c=faces, edgecolors=color, linewidths=0.9, zorder=3)
    ax.set_xscale("log")
    ax.set(xlabel=r"$\gamma$", title=title)


def finding(result: dict) -> str:
    lines = [advice(result)]
    for row in result["grid"]:
        step = ", ".join(f"{name} {value:g}" for name, value in row["step"].items())
        words = " / ".join(dict.fromkeys(row["concluded"]))
        lines.append(f"  nbeta {row['nbeta']:g}, gamma {row['gamma']:g}, {step}: {words}")
    return "\n".join(lines)


def advice(result: dict) -> str:
    """The flags to use, or what to try next."""
    choice = result["pick"]
    if choice is None:
        kinds = dict.fromkeys(kind for row in result["grid"] for kind in row["troubles"])
        return f"no setting of the grid is sound ({', '.join(kinds)}): try larger gammas, more burn-in, or later steps"
    doubt = "" if choice["rests"] else "; its draws still drift, raise burn_in further"
    doubt += "; LLCs below 0 remain: w* is no minimum there" if choice["troubles"] else ""
    return f"use {choice['flags']}{doubt}"


if __name__ == "__main__":
    experiment.main(__name__)
