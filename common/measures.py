"""Small pieces of which measurements are made: from a result's {values, mean, error} over seeds to a verdict."""

from common.claims import Measurement, interval, verdict_above, verdict_below


def spread(values: list[float]) -> dict:
    """{values, mean, error} of one number per seed, as analyses save it."""
    mean, error = interval(values)
    return {"values": values, "mean": mean, "error": error}


def told(node: dict, verdict: str, note: str = "") -> Measurement:
    """A measurement from a result's {values, mean, error}."""
    return Measurement(node["mean"], node["error"], verdict, len(node["values"]), note)


def every(rows: list[bool], min_seeds: int = 3) -> str:
    """Verdict on several conditions at once: each entry says whether one seed meets all of them."""
    return verdict_above([float(row) for row in rows], 0.5, min_seeds)


def at_most(node: dict, threshold: float, note: str = "", min_seeds: int = 3) -> Measurement:
    return told(node, verdict_below(node["values"], threshold, min_seeds), note)


def at_least(node: dict, threshold: float, note: str = "", min_seeds: int = 3) -> Measurement:
    return told(node, verdict_above(node["values"], threshold, min_seeds), note)


def columns(*nodes: dict) -> list[tuple]:
    """Per seed the values of several nodes."""
    return list(zip(*(node["values"] for node in nodes), strict=True))


def steps(values: list) -> str:
    """Steps of the seeds, for a note."""
    return ", ".join("never" if v is None else f"{v:.0f}" for v in values)


def earlier(values: list, others: list) -> list[bool]:
    """Per pair of steps, None for never: is the first the earlier?"""
    return [a is not None and (b is None or a < b) for a, b in zip(values, others, strict=True)]
