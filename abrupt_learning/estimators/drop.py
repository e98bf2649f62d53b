"""When a loss curve leaves its plateau for good, how flat it was before and how fast it fell (paper Figs 1B, 2)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

OUTLIERS = 3
"""Rows in succession that may say anything at all, in any place, without moving a drop."""


@dataclass
class Drop:
    """The drop of L_mask in one run. Steps are None where the run never gets to a level, or does not keep it to its end."""

    plateau: float
    """L_mask over the last half before the departure, the step from which L_mask stays below 0.9 Var (`level_of`)."""
    plateau_observed: float
    """L_obs over the same steps."""
    half: int | None
    """t_drop: the step from which L_mask stays below 0.5 Var to the end."""
    quarter: int | None
    """The step from which L_mask stays below 0.25 Var to the end."""
    width: int | None
    """Steps from the departure to `quarter`."""
    sharpness: float | None
    """width over t_drop; about 0.13 in the paper's setting."""
    slope: float | None
    """Relative change of L_mask over [0.3, 0.8] t_drop, from its means over the two halves; 0 for a true plateau."""
    at_level: float
    """Share of the steps to t_drop (of all, where there is none) with L_mask within 10% of Var; near 1 for a plateau."""
    final: float
    """Mean L_mask over the last `window` steps."""


def robust(values: pd.Series) -> pd.Series:
    """Centred rolling median that OUTLIERS rows cannot sway, the last ones of all included: they repeat the one before."""
    medians = values.rolling(2 * OUTLIERS + 1, min_periods=1).median().shift(-OUTLIERS)
    return medians.ffill().fillna(values.median())


def kept_from(steps: np.ndarray, values: np.ndarray, level: float) -> int | None:
    """The first step from which values (T,) stay below the level to the end; None if the last one is not below."""
    above = np.flatnonzero(~(values < level))
    first = above[-1] + 1 if len(above) else 0
    return int(steps[first]) if first < len(steps) else None


def level_of(values: pd.Series) -> float:
    """Median of the means of 2 OUTLIERS + 1 stretches of values (T,): squared errors are skewed, and so is their median."""
    parts = np.array_split(values.to_numpy(), 2 * OUTLIERS + 1)
    return float(np.median([part.mean() for part in parts if len(part)]))


def share_near(values: np.ndarray, level: float, tolerance: float) -> float:
    """Share of values (T,) within tolerance * level of a level: near 1 on a plateau, small where a curve passes through."""
    return float(np.mean(np.abs(values - level) < tolerance * level)) if len(values) else 0.0


def find_drop(metrics: pd.DataFrame, variance: float, window: int = 200) -> Drop:
    """The drop in one seed's rows of metrics.jsonl (columns step, loss_masked, loss_observed).

    variance: L_mask of the plateau. Levels are judged on the rolling median's mean over the last `window` steps.
    """
    steps = metrics["step"].to_numpy()
    rows = max(1, round(window / max(1, int(steps[0]))))
    masked = robust(metrics["loss_masked"])
    smooth = masked.rolling(rows, min_periods=1).mean().to_numpy()
    departure, half, quarter = (kept_from(steps, smooth, share * variance) for share in (0.9, 0.5, 0.25))
    end = departure or int(steps[-1])
    before = metrics[(steps >= end / 2) & (steps <= end)]
    width = quarter - departure if quarter else None
    return Drop(
        plateau=level_of(before["loss_masked"]),
        plateau_observed=level_of(before["loss_observed"]),
        half=half,
        quarter=quarter,
        width=width,
        sharpness=width / half if width is not None else None,
        slope=_slope(masked[(steps >= 0.3 * half) & (steps <= 0.8 * half)]) if half else None,
        at_level=share_near(smooth[steps <= half] if half else smooth, variance, 0.1),
        final=float(metrics["loss_masked"].tail(rows).mean()),
    )


def _slope(values: pd.Series) -> float | None:
    """Relative change from the first value to the last, by the means of both halves; None for a single value."""
    middle = len(values) // 2
    return float(2 * (values[middle:].mean() / values[:middle].mean() - 1)) if middle else None
