"""What a setting may be, declared with its field: `steps: Count = 100`, `p: Annotated[float, Range(0, 0.5)] = 0.1`.

`common.config` checks every value that a file or a flag gives, the elements of lists one by one, before any config is made. A
limit has `admits(value)`; its text says what is expected.
"""

import math
import re
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from common.plain import from_yaml


@dataclass(frozen=True, repr=False)
class Range:
    """A finite number from low to high, both included but for ends named in `without`."""

    low: float = -math.inf
    high: float = math.inf
    without: tuple[float, ...] = ()

    def admits(self, value) -> bool:
        """Whether it is a number, and in the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < math.inf and self.low <= value <= self.high and value not in self.without

    def __repr__(self) -> str:
        ends = {"from": self.low, "to": self.high}
        words = {("from", True): "above", ("from", False): "from", ("to", True): "below", ("to", False): "to"}
        told = [f"{words[w, end in self.without]} {end:g}" for w, end in ends.items() if abs(end) < math.inf]
        return " ".join(told) or "finite"


@dataclass(frozen=True, repr=False)
class Text:
    """A text that a pattern matches as a whole, and how that is told."""

    pattern: str
    told: str

    def admits(self, value) -> bool:
        """Whether it matches."""
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None

    def __repr__(self) -> str:
        return self.told


@dataclass(frozen=True, repr=False)
class Distinct:
    """A list of at least `least` elements, each once."""

    least: int = 0

    def admits(self, values) -> bool:
        """Whether none stands twice, and there are enough."""
        return len(values) >= self.least and len({repr(value) for value in values}) == len(values)

    def __repr__(self) -> str:
        return f"at least {self.least}, each once" if self.least else "each once"


@dataclass(frozen=True, repr=False)
class Length:
    """A list of so many elements."""

    length: int

    def admits(self, values) -> bool:
        """Whether it is as long."""
        return len(values) == self.length

    def __repr__(self) -> str:
        return f"{self.length} of them"


Count = Annotated[int, Range(1, 10**9)]
Natural = Annotated[int, Range(0, 10**9)]
Positive = Annotated[float, Range(0, 1e30, without=(0,))]
Amount = Annotated[float, Range(0, 1e30)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, without=(1,))]
Rate = Positive
Number = Annotated[float, Range(-1e30, 1e30)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Name = Annotated[
    str, Text(r"(?!\.\.?$)[^/\\\x00-\x1f\x7f]{1,120}", "a name of 1 to 120 characters, without / or control characters")
]
Place = Annotated[str, Text(r"[^\x00-\x1f\x7f]{1,1000}", "a path of 1 to 1000 characters")]
Device = Annotated[str, Text(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:1 or mps")]
Threads = Annotated[int, Range(0, 4096)]


def bare(kind):
    """The type without its limits."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def kinds_of(kind) -> list:
    """The types that a value may have, without limits."""
    kind = bare(kind)
    return [bare(part) for part in get_args(kind)] if get_origin(kind) in (Union, UnionType) else [kind]


def words(kinds: list) -> bool:
    """Whether one of the types is a text."""
    return str in kinds or any(get_origin(kind) is Literal for kind in kinds)


def usual(value, kind):
    """The value in the form that its type expects, where people, YAML readers and agents write another that means the same.

    Raises ValueError for a text that is none of what is expected.
    """
    kinds = kinds_of(kind)
    part = next((part for part in kinds if get_origin(part) is list), None)
    if isinstance(value, str) and not words(kinds):
        value = from_yaml(value)
        if isinstance(value, str) and not (part and words([bare(get_args(part)[0])]) and "," not in value):
            raise ValueError(value)
    if part and value is not None:
        return [usual(item, get_args(part)[0]) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    if isinstance(value, int) and bool in kinds and value in (0, 1):
        return bool(value)
    if isinstance(value, bool) and bool not in kinds and words(kinds):
        # What other YAML readers make of a word without quotes.
        return "on" if value else "off"
    return value


def refused(value, kind) -> tuple[object, object] | None:
    """The value, or the first element of it, that its type or the type's limits refuse, and the type; None if there is none."""
    base, *limits = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if get_origin(base) in (Union, UnionType):
        wrong = [refused(value, part) for part in get_args(base)]
        return None if None in wrong else wrong[0]
    if base is type(None):
        return None if value is None else (value, kind)
    if value is None or not all(limit.admits(value) for limit in limits):
        return value, kind
    if get_origin(base) in (list, dict):
        items = value if get_origin(base) is list else [*value.values()]
        return next(filter(None, (refused(item, get_args(base)[-1]) for item in items)), None)
    return None


def short(value) -> str:
    """A value as a message shows it."""
    text = (
        "null"
        if value is None
        else str(value)
        if isinstance(value, str) and value.isprintable() and value
        else repr(value)
    )
    return text if len(text) <= 60 else f"{text[:57]}..."


def type_name(kind) -> str:
    """A type with its limits as a message shows it."""
    if get_origin(kind) is Annotated:
        base, *limits = get_args(kind)
        told = ", ".join(map(str, limits))
        return told if base is str else f"{type_name(base)}{',' if get_origin(base) is list else ''} {told}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(type_name(part) for part in get_args(kind))
    if kind is type(None):
        return "null"
    if get_origin(kind) is list:
        part = get_args(kind)[0]
        example = {int: "[0, 1]", float: "[0.5, 1]", str: "[a, b]"}.get(bare(part))
        return f"list[{type_name(part)}]" + (f", such as {example}" if example else "")
    return str(kind) if get_origin(kind) else kind.__name__
