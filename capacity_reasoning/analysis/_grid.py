"""Numbers per seed over the runs of `scaling`: the line through them, how flat they are, the extremes, the dip.

A run is saturated where its dataset holds at least 2 bits per parameter. Here and wherever one scheme has to be chosen it is
`corrected`: what any store of the dataset needs; the published schemes leave bits out or credit some that need not be there.
"""

from collections.abc import Callable

import numpy as np

from capacity_reasoning.estimators.content import flatness

EXACT = "corrected"
CAPACITY = 2.0
"""Bits per parameter of a saturated model (Allen-Zhu & Li)."""


def at(run: dict, key: str, seed: int, scheme: str = EXACT) -> float:
    """A number of a run under a scheme: bits, dataset, baseline, per_parameter, load."""
    return run["schemes"][scheme][key][seed]


def saturated(run: dict, seed: int) -> bool:
    """Whether a run's dataset holds at least 2 bits per parameter."""
    return at(run, "load", seed) >= CAPACITY


def by_seed(result: dict, number: Callable, chosen: Callable | None = None) -> list:
    """number(runs, seed) for every seed, over the runs that `chosen(run, seed)` takes, all by default."""
    runs, seeds = list(result["runs"].values()), range(len(result["seeds"]))
    return [number([run for run in runs if chosen is None or chosen(run, seed)], seed) for seed in seeds]


def line(runs: list[dict], seed: int) -> tuple[float, float] | None:
    """Slope of content over P, by least squares, and R^2 of that line; None for fewer than three sizes."""
    P, bits = np.array([(run["P"], at(run, "bits", seed)) for run in runs]).T if runs else (np.zeros(0),) * 2
    if len(set(P)) < 3:
        return None
    slope, start = np.polyfit(P, bits, 1)
    return float(slope), float(1 - np.var(bits - slope * P - start) / np.var(bits))


def variation(result: dict, scheme: str) -> dict[str, list]:
    """Per seed the coefficient of variation of bits per parameter over saturated runs, and its jackknife error.

    None for fewer than three runs, and where content is negative on average: a spread over no amount says nothing.
    """

    def flat(runs: list[dict], seed: int) -> tuple[float | None, float | None]:
        points = [at(run, "per_parameter", seed, scheme) for run in runs]
        return flatness(points) if len(points) > 2 and np.mean(points) > 0 else (None, None)

    found = by_seed(result, flat, saturated)
    return {"values": [one for one, _ in found], "jackknife": [error for _, error in found]}


def extremes(runs: list[dict], seed: int) -> tuple[dict, dict] | None:
    """The runs of least and of largest load; None unless one is saturated and the other is not."""
    ordered = sorted(runs, key=lambda run: at(run, "load", seed))
    return (ordered[0], ordered[-1]) if saturated(ordered[-1], seed) and not saturated(ordered[0], seed) else None


def dip(runs: list[dict], seed: int) -> float | None:
    """Least bits per parameter of a run that knows names and at most a fifth of the facts, over the best of its model's others.

    Under `enumerate`, the scheme under which the authors call it slight.
    """
    found = []
    for run in runs:
        facts = at(run, "dataset", seed) - at(run, "baseline", seed)
        others = [other for other in runs if other is not run and _model(other) == _model(run)]
        best = max((at(other, "per_parameter", seed, "enumerate") for other in others), default=0.0)
        if best > 0 and at(run, "bits", seed) - at(run, "baseline", seed) <= facts / 5:
            found.append(at(run, "per_parameter", seed, "enumerate") / best)
    return min(found, default=None)


def _model(run: dict) -> tuple:
    return run["P"], run["layers"], run["R"]
