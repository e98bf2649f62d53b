"""Verdicts on made-up results: each side of a bound is derived from the bound, so that a moved threshold moves its tests."""

import json
from collections.abc import Callable, Iterator

from common.claims import Claim, _Result
from common.plain import plain
from simplifying_blocks.claims import CLAIMS

R, C, I = "reproduced", "contradicted", "inconclusive"  # noqa: E741


def claim(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.id == name)


def read_back(result: dict) -> dict:
    """A result as Study.result reads it from its file: NaN has become null, and a key that is not there is Missing."""
    return json.loads(json.dumps(plain(result)), object_hook=lambda pairs: _Result(pairs, "a made-up result"))


def measured(name: str, *results: dict) -> dict[str, list]:
    """Numbers of a claim on the results that it needs."""
    return claim(name).values(*map(read_back, results))


def judged(name: str, *results: dict) -> str:
    """Verdict of a claim on the results that it needs; its note must be tellable too."""
    if note := claim(name).note:
        assert isinstance(note(*map(read_back, results)), str)
    return claim(name).verdict(measured(name, *results))


def inside(name: str) -> dict[str, float]:
    """A number that meets all bounds on it, for every bounded number of a claim."""
    found = {}
    for bound in claim(name).bounds:
        low, high = found.get(bound["name"], (None, None))
        value = bound["value"]
        if bound["kind"] == "within":
            low, high = value
        low, high = (
            (value, high) if bound["kind"] == "above" else (low, value) if bound["kind"] == "below" else (low, high)
        )
        found[bound["name"]] = low, high
    return {number: _between(*ends) for number, ends in found.items()}


def _between(low: float | None, high: float | None) -> float:
    if low is None:
        return high - 0.1 * (abs(high) or 1)
    return low + 0.1 * (abs(low) or 1) if high is None else (low + high) / 2


def missed(name: str) -> Iterator[tuple[str, float]]:
    """(number, a value just beyond its bound) for each end of every bound of a claim."""
    for bound in claim(name).bounds:
        ends = bound["value"] if bound["kind"] == "within" else [bound["value"]]
        outwards = {"above": [-1], "below": [1], "within": [-1, 1]}[bound["kind"]]
        for end, sign in zip(ends, outwards, strict=True):
            yield bound["name"], end + sign * 1e-3 * (abs(end) or 1)


def assert_every_bound_counts(name: str, values: dict[str, list]):
    """Numbers that meet all bounds reproduce; with any one beyond its bound they do not."""
    assert claim(name).verdict(values) == R
    for number, value in missed(name):
        assert claim(name).verdict(values | {number: [value] * len(values[number])}) == C


def assert_results_decide(name: str, made: Callable[..., tuple[dict, ...]], fixed: tuple[str, ...] = ()):
    """The same by way of results: made(number -> value per seed) gives results with those numbers, or those of `fixed`.

    One seed beyond a bound leaves the claim open.
    """
    good = {number: [value] * 3 for number, value in inside(name).items()}
    assert judged(name, *made(good)) == R
    for number, value in missed(name):
        if number in fixed:
            continue
        for beyond, verdict in (([value] * 3, C), ([*good[number][:2], value], I)):
            results = made(good | {number: beyond})
            told = measured(name, *results)[number]
            assert all(abs(a - b) < 1e-9 * max(abs(b), 1) for a, b in zip(told, beyond, strict=True)), (number, told)
            assert judged(name, *results) == verdict, (number, beyond)
