"""Times of the same seed in different cells, side by side: which came first, and when that cannot be told.

T is the first of three evaluations in a row with test accuracy at 0.99. Seeds are paired: all cells share a seed's split and
initial weights. What had not come when a replica was last looked at is later than that, and no more is known of it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise

from common.claims import by_seed
from common.plain import steps
from layernorm_grok.analysis._lives import by_cell

LARGE = ("medium", "gpu", "paper", "paper_figures")
ALL = ("quick", *LARGE)

ORDER = ("mlp-pre", "pre", "attn-pre", "off")
"""M, M+A*, A*, No LN: fastest first."""

IN_ORDER = "share of neighbours in order, two that never came aside"
"""What `faster` and `slower` count."""

Time = tuple[float, bool] | None
"""(step, True) of what came; (last step looked at, False) of what had not come by then; None where the replica diverged."""


def came(cell: dict, when: Sequence[float | None] | None = None) -> list[Time]:
    """Per seed the Time of `when`, by default of T; before T a replica that diverged tells nothing."""
    rows = by_seed(cell["times"]["t_gen"] if when is None else when, cell["last"], cell["lost"])
    return [(t, True) if t is not None else None if lost else (last, False) for t, last, lost in rows]


def cells_of(result: dict, names: Sequence[str] = ORDER) -> list[dict]:
    """The cells of those names."""
    return [result["cells"][name] for name in names]


def placements(result: dict, names: Sequence[str] = ORDER) -> list[tuple[Time, ...]]:
    """A tuple per seed: T in the cells of those names."""
    return by_seed(*map(came, cells_of(result, names)))


def sooner(a: Time, b: Time) -> bool | None:
    """Did a come strictly before b? None where one is lost, neither came, or b was last looked at before a came."""
    if a is None or b is None or not (a[1] or b[1]):
        return None
    if a[1] and b[1]:
        return a[0] < b[0]
    if a[1]:
        return True if a[0] <= b[0] else None
    return False if b[0] <= a[0] else None


def alike(a: tuple[Time, Time], b: tuple[Time, Time]) -> bool | None:
    """Are a and b strictly in the same order by both of their times? None where that cannot be told."""
    one, other = (sooner(x, y) for x, y in zip(a, b, strict=True))
    if one is None or other is None:
        return None
    back = [sooner(y, x) for x, y in zip(a, b, strict=True)]
    return (one and other) or all(back)


def agreements(result: dict, when: Callable[[dict], list[Time]]) -> list[list[bool | None]]:
    """Per seed `alike` of the six pairs of placements, by when(cell) and by T."""
    rows = by_seed(by_seed(*map(when, cells_of(result))), placements(result))
    return [[alike(a, b) for a, b in combinations(zip(*row, strict=True), 2)] for row in rows]


def share(rows: Iterable[bool | None]) -> float | None:
    """Share that is true; None where one cannot be told and none is false: it may yet be all."""
    rows = list(rows)
    return None if not rows or (None in rows and False not in rows) else rows.count(True) / len(rows)


def in_order(result: dict) -> list[float | None]:
    """Per seed the share of neighbours of M, M+A*, A*, No LN that generalise strictly in this order (see `share`)."""
    return [share(sooner(a, b) for a, b in pairwise(row)) for row in placements(result)]


def monotone(times: Sequence[Time]) -> float | None:
    """Share of neighbours in which the first came strictly sooner (see `share`), but for those of which neither came; None also
    where fewer than two came and none refutes.

    So a sweep may end in values that the budget does not reach (paper Fig 4c), but not consist of them.
    """
    rows = [sooner(a, b) for a, b in pairwise(times) if a is None or b is None or a[1] or b[1]]
    enough = sum(t is not None and t[1] for t in times) > 1
    return share(rows) if enough or False in rows else None


def ratio(a: Time, b: Time, low: float, high: float | None = None) -> float | None:
    """T_a / T_b. Of a time that never came the last step is known to be less: inf where T_a / T_b so is above `high`, and
    the quotient, an upper bound, where it is below `low`; None where it may be on either side. high: by default low."""
    if a is None or b is None or not (a[1] or b[1]):
        return None
    quotient = a[0] / b[0]
    if a[1] and b[1]:
        return quotient
    if a[1]:
        return quotient if quotient < low else None
    return math.inf if quotient >= (low if high is None else high) else None


def slower(result: dict, reverse: bool = False) -> list[float | None]:
    """Per seed the share of neighbours of a sweep in which the larger value generalises strictly later (see `monotone`)."""
    names = sorted(result["cells"], key=lambda name: float(name.rpartition("=")[2]), reverse=reverse)
    return [monotone(row) for row in placements(result, names)]


def faster(result: dict) -> list[float | None]:
    """As `slower`, strictly sooner."""
    return slower(result, reverse=True)


def crossings(result: dict, names: Sequence[str] = ()) -> str:
    """T of each cell per seed, and in brackets the first touch of 0.99 where it differs."""

    def text(times: dict) -> str:
        touch = f" (touch {steps(times['first'])})" if times["first"] != times["t_gen"] else ""
        return steps(times["t_gen"]) + touch

    return "T " + by_cell(result["cells"], lambda cell: cell["times"], text, names)


def by_name(names: Iterable[str], rows: Sequence[Sequence[float | None]]) -> dict[str, list]:
    """Rows of numbers, one per seed, as a list per seed for each name."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
