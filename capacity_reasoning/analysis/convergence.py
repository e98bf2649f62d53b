"""How long training takes, and how far new combinations of hops lag behind those trained on meanwhile (Johnston & Belrose,
arXiv 2502.03490, sections on training time and generalisation; their measure_capacity)."""

import common.process  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from capacity_reasoning.analysis import _convergence_figure
from capacity_reasoning.analysis._presets import LONG
from capacity_reasoning.analysis._runs import siblings
from capacity_reasoning.capacity import TWO_HOP
from capacity_reasoning.estimators.content import as_published
from capacity_reasoning.estimators.convergence import (
    Criterion,
    converged_at,
    gap,
    log_log_regression,
    rolling_mean,
    slopes,
    step_of_minimum,
)
from capacity_reasoning.evaluate import Analysis, Trained, uniform_loss
from capacity_reasoning.examine import ONE_HOP
from common import experiment
from common.claims import Claim
from common.limits import Count, Name, Positive, Range

COMBINATIONS = "complete_two_hop"
NOISE = 0.1
"""Nats of gap below which a run has none to speak of."""


@dataclass
class Settings(Analysis):
    onehop: Name = "onehop_"
    """Runs of one-hop questions, beside this one: those of the study whose names begin so."""
    twohop: Name = "twohop_"
    """Two-hop runs."""
    start: Annotated[float, Range(0, 1)] = 0.1
    """Part of a run before which it has not converged (the authors: 10^6 of 10^7 steps)."""
    last: Count = 50
    """Evaluations looked at, from the end."""
    threshold: Positive = 0.2
    """Nats by which a converged loss would change over the whole run at its rate (the authors: 2e-8 x 10^7 steps)."""
    window: Count = 5
    """Evaluations in the mean whose minimum is looked for."""

    def criterion(self, steps: int) -> Criterion:
        """The authors' for a run of so many steps."""
        return Criterion(self.start * steps, self.last, self.threshold / steps)


def per_seed(rows: np.ndarray, of: Callable[[np.ndarray], object]) -> list:
    """`of` the curve (T,) of every seed (S, T); None for one that diverged."""
    return [None if np.isnan(row).any() else of(row) for row in rows]


def least_step(steps: np.ndarray, losses: np.ndarray, window: int) -> float | None:
    """Step of the least smoothed loss; None if that is the last one, so that it may still fall, or if there are too few."""
    if len(losses) < window:
        return None
    step = step_of_minimum(steps, losses, window)
    return step if step < rolling_mean(steps, window)[-1] else None


def tell_gap(steps: np.ndarray, held_out: np.ndarray, trained: np.ndarray, uniform: float) -> dict | None:
    """Gap of one seed's curves (T,), from the first evaluation at which training questions are below the uniform loss.

    Before that both losses are large, and so is the noise of their difference. None where that never comes.
    """
    known = np.flatnonzero(trained <= uniform)
    if not len(known):
        return None
    late = slice(known[0], None)
    found = gap(held_out[late], trained[late])
    return {
        **{"max": found["max"], "at": int(steps[late][found["at"]])},
        **{"first": float(found["curve"][0]), "last": found["last"]},
    }


def gaps_of(run: Trained, steps: np.ndarray, curves: dict[str, np.ndarray]) -> list[dict | None] | None:
    """`tell_gap` per seed, None for one that diverged; None for a run without such questions."""
    if COMBINATIONS not in curves:
        return None
    found = []
    for number, (held_out, trained) in enumerate(zip(curves[COMBINATIONS], curves[TWO_HOP], strict=True)):
        whole = not np.isnan(held_out + trained).any()
        found.append(tell_gap(steps, held_out, trained, uniform_loss(run, number).mean()) if whole else None)
    return found


def loads(run: Trained, mode: str, losses: np.ndarray) -> list[list[float]]:
    """Content over 2 P (S, T) that mean losses (S, T) of a mode stand for; two hops as big hash."""
    copies = run.R if mode == TWO_HOP else 1
    bits = losses / np.log(2)
    return [
        [as_published(support, loss, "corrected", copies) / (2 * run.P) for loss in row]
        for support, row in zip(run.support, bits, strict=True)
    ]


def convergence(steps: np.ndarray, curves: dict[str, np.ndarray], criterion: Criterion) -> list[float | None]:
    """`converged_at` of every seed's curves; curves: by mode (S, T). None for a seed that diverged."""
    seeds = [dict(zip(curves, rows, strict=True)) for rows in zip(*curves.values(), strict=True)]
    return [None if np.isnan([*rows.values()]).any() else converged_at(steps, rows, criterion) for rows in seeds]


def measure(run: Trained, settings: Settings) -> dict:
    """One run of `analyse`."""
    trained = [mode for order, mode in ((1, ONE_HOP), (2, TWO_HOP)) if order in run.config.mix.orders]
    others = [COMBINATIONS] * (COMBINATIONS in run.metrics)
    curves = {mode: run.curves(mode)[1] for mode in trained + others}
    steps, criterion, own = run.curves(trained[0])[0], settings.criterion(run.config.train.steps), trained[-1]
    return {
        **{"N": run.N, "R": run.R, "P": run.P, "layers": run.config.model.layers, "mode": own, "steps": steps.tolist()},
        "curves": {mode: values.tolist() for mode, values in curves.items()},
        "least": per_seed(curves[own], lambda losses: least_step(steps, losses, settings.window)),
        "converged": convergence(steps, {mode: curves[mode] for mode in trained}, criterion),
        "slopes": per_seed(curves[own], lambda losses: [part.tolist() for part in slopes(steps, losses, criterion)]),
        "load": loads(run, own, curves[own]),
        "gap": gaps_of(run, steps, curves),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: onehop and twohop -> name -> N, R, P, layers; mode (the kind of question it is trained on last); steps (T,);
    curves -> mode -> loss (S, T) in nats per question; and per seed least (step of the least smoothed loss, None if it may
    still fall), converged (first step from which the losses stay flat, None if there is none), slopes (steps, nats per step),
    load (T,), the content over 2 P by the mean loss (two hops as big hash), gap {max, at, first, last} of new combinations in
    nats from the step on at which trained ones are below the uniform loss, None if that never comes."""
    ones = [run for run in siblings(trained, settings.onehop, own=True) if run.config.mix.orders == [1]]
    twos = [run for run in siblings(trained, settings.twohop) if 2 in run.config.mix.orders and not run.config.data.cot]
    return {
        kind: {run.run.path.name: measure(run, settings) for run in runs}
        for kind, runs in (("onehop", ones), ("twohop", twos))
    }


def gaps(result: dict, seed: int) -> list[dict]:
    """Of one seed the runs with a gap: N, R, P and the gap's numbers."""
    runs = [run for run in result["twohop"].values() if run["gap"] and run["gap"][seed]]
    return [{**{name: run[name] for name in ("N", "R", "P")}, **run["gap"][seed]} for run in runs]


def grows_with_size(rows: list[dict]) -> float | None:
    """Goodman and Kruskal's gamma of the largest gap with P, over pairs of models of one population; None without a pair."""
    signs = [
        np.sign(a["max"] - b["max"])
        for a in rows
        for b in rows
        if (a["N"], a["R"]) == (b["N"], b["R"]) and a["P"] > b["P"]
    ]
    told = [sign for sign in signs if sign]
    return float(np.mean(told)) if told else None


def rises_and_falls(result: dict) -> dict[str, list]:
    """Per seed: gamma of the largest gap with P; medians over runs with a gap, of that at the start and at the end over it."""
    told: dict[str, list] = {
        "gamma of largest gap and P": [],
        "gap at the start / largest": [],
        "gap at the end / largest": [],
    }
    for seed in range(len(result["seeds"])):
        rows = gaps(result, seed)
        large = [row for row in rows if row["max"] >= NOISE]
        values = [grows_with_size(rows) if large else None]
        values += [
            float(np.median([row[end] / row["max"] for row in large])) if large else None for end in ("first", "last")
        ]
        for column, value in zip(told.values(), values, strict=True):
            column.append(value)
    return told


def time_to_least(result: dict, kind: str = "onehop") -> list[dict | None]:
    """Per seed: steps (geometric mean over runs), and log_log_regression of it on N and P; None where that cannot be had."""
    found = []
    for seed in range(len(result["seeds"])):
        runs = [run for run in result[kind].values() if run["least"][seed]]
        steps = [run["least"][seed] for run in runs]
        try:
            fit = log_log_regression(steps, [run["N"] for run in runs], [run["P"] for run in runs])
        except ValueError:
            found.append(None)
            continue
        found.append({"steps": float(np.exp(np.mean(np.log(steps)))), **fit})
    return found


def takes_as_long(result: dict) -> dict[str, list]:
    """Per seed the steps to the least one-hop loss, and the size of the exponents of N and P in them."""
    found = time_to_least(result)
    return {
        "steps to the least loss": [fit and fit["steps"] for fit in found],
        "exponent of N, size": [fit and abs(fit["N"][0]) for fit in found],
        "exponent of P, size": [fit and abs(fit["P"][0]) for fit in found],
    }


def regressions(result: dict) -> str:
    """The exponents of N and P, with standard errors, for one-hop and two-hop runs."""
    told = []
    for kind, what in (("onehop", "one hop"), ("twohop", "two hops")):
        fits = [fit for fit in time_to_least(result, kind) if fit]
        if fits:
            means = {name: np.mean([fit[name] for fit in fits], axis=0) for name in ("N", "P", "R2")}
            powers = ", ".join(f"{name} {means[name][0]:.2f} +- {means[name][1]:.2f}" for name in "NP")
            told.append(f"{what}: {powers}, R^2 {means['R2']:.2f}")
    return f"Exponents of {'; '.join(told)}." if told else "Too few runs have converged."


def draw(result: dict):
    """Gap over training, its largest and last against P; steps to the least loss; slopes; loss against content."""
    return _convergence_figure.draw(result)


def finding(result: dict) -> str:
    largest = [row["max"] for seed in range(len(result["seeds"])) for row in gaps(result, seed)]
    told = f"largest gap of new combinations {max(largest):.2f} nats" if largest else "no gap measured"
    return f"{told}; {regressions(result)}"


CLAIMS = [
    Claim("C10", "The gap between new combinations and trained ones rises, then falls, and is larger for larger models.",
          source="section on generalisation", presets=LONG, number=rises_and_falls,
          paper="N = 10k, P = 13.6M: 7.07 nats at step 6e6, 0.95 at 3.1e7; at most 0.2 to 2.1 nats for most models",
          above={"gamma of largest gap and P": 0.0},
          below={"gap at the start / largest": 0.5, "gap at the end / largest": 0.8}),
    Claim("C11", "One-hop training takes about 10^7 steps, hardly depending on P or N.", source="research notes",
          paper="6.2M to 12.6M steps by N; exponents -0.03 to 0.05 of N, 0.16 to 0.25 of P", presets=("paper",),
          number=takes_as_long, note=regressions, within={"steps to the least loss": (3e6, 3e7)},
          below={"exponent of N, size": 0.5, "exponent of P, size": 0.5}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
