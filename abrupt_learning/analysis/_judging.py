"""What claims share: presets, the condition that a model completes, the shape of a drop, ratios of steps that may be
missing.
"""

import math

from common.claims import by_seed

ALL = ("quick", "medium", "gpu", "paper")
COMPANY = ("quick", "medium", "paper")
"""Presets that train other runs beside main."""
LONG = ("medium", "paper")

END = "L_mask / Var at the end"
COMPLETES = {END: 0.5}
"""Upper bound in every claim about trained models: a seed that never dropped fails it."""

WIDTH, PLATEAU, SLOPE = "width / t_drop", "plateau L_mask / Var", "slope of the plateau"
SHARP = {WIDTH: 1 / 3}
FLAT = {PLATEAU: (0.9, 1.1), SLOPE: (-0.15, 0.15)}
"""A plateau within a tenth of Var that changes by less than 15% over [0.3, 0.8] t_drop; the drop then takes 65% of Var."""


def over(node: dict, unit: float) -> list[float]:
    """Values per seed of a number of a result, in a unit."""
    return [value / unit for value in node["values"]]


def at_end(loss: dict) -> dict[str, list]:
    """END per seed, from the result `loss`."""
    return {END: over(loss["end"]["loss_masked"], loss["levels"]["loss_masked"])}


def shape(drop: dict, variance: float) -> dict[str, list]:
    """WIDTH (from 0.9 to 0.25 Var; inf without a drop), PLATEAU and SLOPE per seed, from a result's drop."""
    return {
        WIDTH: [math.inf if value is None else value for value in drop["sharpness"]["values"]],
        PLATEAU: over(drop["plateau"], variance),
        SLOPE: drop["slope"]["values"],
    }


def ratio(one: float | None, other: float | None, ends: tuple[float, float], bound: float = 1.0) -> float | None:
    """one / other for two steps, None where a run never came there; ends: the last steps of the two runs.

    A step that is missing is later than its run's end, so that the ratio is bounded from one side: it is that bound, or inf
    for a missing `one`, where this decides whether it is below `bound`, and None (cannot tell) where not.
    """
    if one is not None and other is not None:
        return one / other
    if one is not None:
        return one / ends[1] if one / ends[1] < bound else None
    return math.inf if other is not None and ends[0] / other >= bound else None


def time_ratios(runs: dict, one: str, other: str, level: str = "half", bound: float = 1.0) -> list[float | None]:
    """Per seed `ratio` of the steps at which two runs come below a level for good."""
    ends = [runs[name]["steps"][-1] for name in (one, other)]
    pairs = by_seed(*(runs[name]["drop"][level]["values"] for name in (one, other)))
    return [ratio(*pair, ends, bound) for pair in pairs]
