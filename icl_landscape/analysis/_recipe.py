"""The recipe that chooses sampling settings from a grid of them, on plain rows of numbers.

A row has gamma, nbeta, step, and per seed and checkpoint (S, T) what `_llc.told` tells, with walking.
"""

import numpy as np

from icl_landscape.sgmcmc.judges import SATURATED, STEP_LARGE, WALKING

BETTER = 0.9
"""A w* is judged if its loss is below this share of the trivial one; before, there is next to nothing to saturate."""
SLIGHT = 0.05
"""Share of an LLC by which it may still drift."""
RESOLVED = 2.0
"""Standard errors that a difference must exceed to have a sign."""
TROUBLES = {
    "diverged": "diverged",
    "unstable step": "its step is too large",
    "saturated": "saturated, so it repeats the loss",
    "negative LLC": "below 0, so w* is no minimum",
    "not at rest": "not at rest, so it tells when it was stopped",
}
"""What disqualifies a setting, in the order in which it is told."""


def judged(row: dict, trivial: float) -> np.ndarray:
    """(S, T): whether w* is clearly better than the trivial predictor, or its chains died so that nobody knows."""
    return ~(numbers(row, "loss_reference") >= BETTER * trivial)


def numbers(row: dict, key: str) -> np.ndarray:
    """(S, T), NaN where there is none."""
    return np.asarray(row[key], dtype=float)


def marks(row: dict, trivial: float) -> dict[str, np.ndarray]:
    """Kind of trouble -> where it is (S, T), at checkpoints that are judged."""
    llc, error = numbers(row, "llc"), np.nan_to_num(numbers(row, "llc_error"))
    there = {
        "diverged": ~np.isfinite(llc),
        "unstable step": numbers(row, "stability") > STEP_LARGE,
        "saturated": numbers(row, "saturation") >= SATURATED,
        "negative LLC": llc < -RESOLVED * error,
        "not at rest": numbers(row, "walking") > WALKING,
    }
    return {kind: where & judged(row, trivial) for kind, where in there.items()}


def troubles(row: dict, trivial: float) -> list[str]:
    """What disqualifies a setting at one checkpoint or more; all of it counts."""
    if not judged(row, trivial).any():
        return ["nothing to judge"]
    return [kind for kind, where in marks(row, trivial).items() if where.any()]


def concluded(row: dict, trivial: float, seed: int, steps: list[int]) -> str:
    """What a reader would conclude of a seed from one setting: A where the LLC rises from a checkpoint to the next, B where it
    falls, = where the difference has no sign; and why not to."""
    llc, error = numbers(row, "llc")[seed], np.nan_to_num(numbers(row, "llc_error")[seed])
    change, doubt = np.diff(llc), RESOLVED * np.hypot(error[1:], error[:-1])
    types = "".join("A" if c > d else "B" if c < -d else "=" for c, d in zip(change, doubt, strict=True))
    words = [types] if types else []
    for kind, where in marks(row, trivial).items():
        if where[seed].any():
            at = ", ".join(str(s) for s, bad in zip(steps, where[seed], strict=True) if bad)
            words.append(f"{TROUBLES[kind]} (step {at})")
    return "; ".join(words) or "nothing to compare"


def pick(rows: list[dict], trivial: float) -> int | None:
    """Number of the row to use, None if none qualifies.

    The smallest gamma first: directions of curvature h below gamma / nbeta are pulled back and hardly count. Then the largest
    nbeta: chains then lie LLC / nbeta above w*, farthest from saturation; what limits it is that w* must stay a minimum. Then
    the largest step. Where every sound setting finds losses below w*, the least nbeta, and its troubles say so.
    """
    left = [i for i, row in enumerate(rows) if not troubles(row, trivial)]
    sign = -1
    if not left:
        left, sign = [i for i, row in enumerate(rows) if troubles(row, trivial) == ["negative LLC"]], 1
    size = lambda row: float(np.nanmean(numbers(row, "epsilon")))  # noqa: E731
    return min(left, key=lambda i: (rows[i]["gamma"], sign * rows[i]["nbeta"], -size(rows[i])), default=None)


def burn_in(values, parts: int = 8) -> int | None:
    """Draws to leave out until the slope of the rest is below its standard error, or changes the mean by less than a twentieth;
    None where it never is.

    Tried in tenths, up to six. The slope is that of the means of `parts` stretches, so that draws that hang together do not
    make it look certain.
    """
    values = np.asarray(values, dtype=float)
    for start in range(0, len(values) * 6 // 10 + 1, max(len(values) // 10, 1)):
        rest = values[start:]
        if len(rest) >= parts and not steep(np.array([stretch.mean() for stretch in np.array_split(rest, parts)])):
            return start
    return None


def steep(means: np.ndarray) -> bool:
    """Whether the least-squares slope exceeds its standard error, and the change that it makes a twentieth of the mean."""
    x = np.arange(len(means)) - (len(means) - 1) / 2
    slope = (x * means).sum() / (x * x).sum()
    rest = means - means.mean() - slope * x
    error = np.sqrt((rest**2).sum() / (len(means) - 2) / (x * x).sum())
    return bool(abs(slope) >= error and abs(slope) * len(means) >= SLIGHT * abs(means.mean()))
