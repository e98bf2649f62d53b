"""Where the numbers of a claim lie against its bound: the geometry of a strip that the page draws, in CSS pixels."""

import math
import re
from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN, GUTTER = 272, 46, 10, 38
# Above this ratio of the largest to the smallest number a strip is logarithmic.
LOGARITHMIC = 30


def strip(values: Sequence, seeds: Sequence, bounds: Sequence[dict], paper: float | None = None) -> dict:
    """Places of a strip's marks along x, and their texts.

    values: numbers per seed, "never" or None. bounds: those of this name. paper: the paper's own number, in the same unit.
    Numbers share an axis; "never" and None stand in a gutter to the right of it. Seeds are spread over the height. Numbers
    that are not one per seed, such as a solver's, have no seed in their text.
    """
    owners = [f"seed {seed}: " for seed in seeds] if len(seeds) == len(values) else [""] * len(values)
    numbers = [value for value in values if isinstance(value, int | float)]
    ends = [end for bound in bounds for end in _ends(bound)]
    axis = _Axis([*numbers, *ends], paper, WIDTH - GUTTER * (len(numbers) < len(values)))
    dots = [
        {
            "x": axis.x(value) if isinstance(value, int | float) else WIDTH - GUTTER / 2,
            "y": round(HEIGHT / 2 + 10 * (place / max(1, len(values) - 1) - 0.5), 1),
            "hollow": value is None,
            "text": f"{owner}{number(value)}",
        }
        for place, (value, owner) in enumerate(zip(values, owners, strict=True))
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "logarithmic": axis.scale is math.log,
        "end": axis.right,
        "dots": dots,
        "passing": [_passing(bound, axis) for bound in bounds],
        "limits": [mark for bound in bounds for mark in axis.limits(bound)],
        "paper": None if paper is None else axis.mark(paper, f"paper {number(paper)}"),
        "gutter": " ".join(text for text, there in (("never", "never" in values), ("–", None in values)) if there),
    }


class _Axis:
    """Linear or logarithmic axis over the numbers; the paper's widens it where it is near enough to be the same thing."""

    def __init__(self, numbers: Sequence[float], paper: float | None, right: float):
        self.right = right
        low, high = (min(numbers), max(numbers)) if numbers else (0, 1)
        if paper is not None and (
            low - 2 * (high - low) <= paper <= high + 2 * (high - low) or 0.2 * low <= paper <= 5 * high
        ):
            low, high = min(low, paper), max(high, paper)
        self.scale = math.log if low > 0 and high > LOGARITHMIC * low else float
        low, high = self.scale(low), self.scale(high)
        pad = 0.12 * (high - low) or 0.12 * abs(high) or 1
        self.low, self.high = low - pad, high + pad

    def x(self, value: float) -> float:
        inside = value > 0 or self.scale is float
        share = (self.scale(value) - self.low) / (self.high - self.low) if inside else 0
        return round(MARGIN + min(1, max(0, share)) * (self.right - 2 * MARGIN), 1)

    def mark(self, value: float, text: str, anchor: str = "middle") -> dict:
        """A place with its text, anchored so that it stays on the strip."""
        x = self.x(value)
        return {"x": x, "text": text, "anchor": "start" if x < 50 else "end" if x > self.right - 50 else anchor}

    def limits(self, bound: dict) -> list[dict]:
        """The marks of a bound's ends; the texts of two stand apart."""
        ends = _ends(bound)
        anchors = ("end", "start") if len(ends) > 1 else ("middle",)
        return [self.mark(end, number(end), anchor) for end, anchor in zip(ends, anchors, strict=True)]


def _ends(bound: dict) -> list[float]:
    return list(bound["value"]) if bound["kind"] == "within" else [bound["value"]]


def _passing(bound: dict, axis: _Axis) -> dict:
    """The stretch on the good side of a bound."""
    ends = [axis.x(end) for end in _ends(bound)]
    left = 0 if bound["kind"] == "below" else ends[0]
    right = axis.right if bound["kind"] == "above" else ends[-1]
    return {"x": left, "width": round(right - left, 1)}


def number(value: float | str | None) -> str:
    """A value of claims.json as text: four digits, "never" as it is, a dash for None."""
    if value is None or isinstance(value, str):
        return value or "–"
    return (f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}").replace("-", "−")


def papers(text: str, name: str, first: bool) -> float | None:
    """The paper's value of a named number as its text has it: after the name, or at the start for the first number."""
    _, named, after = text.partition(name) if name else ("", "", "")
    return leading(after.strip()) if named else leading(text) if first else None


def leading(text: str) -> float | None:
    """The number that a text starts with, None where there is none or where it is one of a list: "0.967 (Fig 2)"."""
    plain = re.match(
        r"[<>~≈]?\s*([-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?![\w.%/]|\s?[,x×:]|\s?to\b|\s?[-–]\s?\w|\s?and\b)", text
    )
    return float(plain[1].replace("−", "-")) if plain else None
