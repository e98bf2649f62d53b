"""What a sweep file may say: every key is held against its kind before a job is planned.

A kind has `admits(value)`, and its text says what is expected, as the limits of `common.limits` do.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import yaml

from common.config import UserError
from common.limits import Name, Number, Place, Positive, Range, Text
from common.plain import from_yaml

COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]
NEEDS = {"grid": ["parameters"], "random": ["parameters", "run_cap"], "list": ["runs"]}
MOST_RUNS = 100_000
DEEPEST = 20


@dataclass(frozen=True)
class Kind:
    """What a value may be: how that is told, and the function that tells whether a value is."""

    told: str
    admits: Callable[[object], bool]

    def __str__(self) -> str:
        return self.told


def some(kind, alone: bool = False) -> Kind:
    """A list of at least one value of a kind; where `alone`, also such a value by itself."""

    def admits(value) -> bool:
        if not isinstance(value, list):
            return alone and kind.admits(value)
        return len(value) > 0 and all(kind.admits(item) for item in value)

    return Kind(f"{kind}, or a list (not empty) of such" if alone else f"a list (not empty) of {kind}", admits)


def whole(low: float, high: float) -> Kind:
    """A whole number from low to high; 3.0 is one."""
    limits = Range(low, high)
    return Kind(
        f"a whole number from {low:.0f} to {high:.0f}", lambda value: limits.admits(value) and value == int(value)
    )


NAME, PLACE, NUMBER, POSITIVE = (get_args(kind)[1] for kind in (Name, Place, Number, Positive))
WORD = Text(r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*", "a text without control characters")
FLAG = Text(r"\w[\w.-]*\+?", "the name of a flag, such as model.d")
PART = Kind("a word", lambda value: WORD.admits(value) or NUMBER.admits(value))
ANY = Kind("any value", lambda value: True)
MAPPING = Kind("keys and values", lambda value: isinstance(value, dict))
FULL = Kind("keys and values", lambda value: isinstance(value, dict) and len(value) > 0)
METHOD = Kind(f"one of {', '.join(NEEDS)}", lambda value: isinstance(value, str) and value in NEEDS)
LARGE = whole(-(10**15), 10**15)

KEYS = {
    "program": PLACE,
    "base": some(PLACE, alone=True),
    "name": NAME,
    "method": METHOD,
    "parameters": FULL,
    "command": some(PART),
    "run_cap": whole(1, MOST_RUNS),
    "runs": some(FULL),
    "study": NAME,
    "slurm": MAPPING,
    # W&B's own: they change nothing here.
    **dict.fromkeys(("description", "project", "entity", "metric"), ANY),
}
ENTRY = {
    "name": NAME,
    "study": NAME,
    "program": PLACE,
    "experiment": NAME,
    "config": some(PLACE, alone=True),
    "presets": some(NAME, alone=True),
    "after": some(NAME, alone=True),
}
SPEC = ("value", "values", "min", "max", "q", "distribution")

# W&B distributions: the keys of each with their kinds, and a draw from it.
DISTRIBUTIONS = {
    "constant": ({"value": ANY}, lambda rng, value: value),
    "categorical": ({"values": some(ANY)}, lambda rng, values: rng.choice(values)),
    "uniform": ({"min": NUMBER, "max": NUMBER}, lambda rng, low, high: rng.uniform(low, high)),
    "int_uniform": ({"min": LARGE, "max": LARGE}, lambda rng, low, high: rng.randint(int(low), int(high))),
    "q_uniform": (
        # Multiples of a smaller q would be rounded away.
        {"min": NUMBER, "max": NUMBER, "q": Range(1e-9, 1e30)},
        lambda rng, low, high, q: round(round(rng.uniform(low, high) / q) * q, 12),
    ),
    "log_uniform_values": (
        {"min": POSITIVE, "max": POSITIVE},
        lambda rng, low, high: math.exp(rng.uniform(math.log(low), math.log(high))),
    ),
}


def load(path: str | Path, preset: str | None = None, study: str | None = None) -> dict:
    """The sweep in a YAML file, every key checked, {preset} and {study} filled in; `name` is by default the file's.

    Entries that belong to other presets are left out. Raises UserError.
    """
    for flag, value in {"--preset": preset, "--study": study}.items():
        if value is not None:
            hold(flag, value, NAME)
    sweep = _read(path)
    check_keys(sweep, KEYS, ["method"], path)
    sweep = {"name": Path(path).stem, "command": COMMAND} | sweep
    for key, value in sweep.items():
        check_plain(value, key)
        hold(key, value, KEYS[key], f" in {path}")
    _check_method(sweep, path)
    for number, entry in enumerate(sweep.get("runs", []), 1):
        check_entry(entry, f" in run {number} of {path}")
        _check_presets(entry, listed(sweep.get("base", [])))
    for key, spec in sweep.get("parameters", {}).items():
        distribution(key, spec)
    study = study or preset or sweep.get("study", sweep["name"])
    sweep = _filled({"preset": preset} | sweep | {"study": study}, preset, study)
    return sweep if "runs" not in sweep else sweep | {"runs": _chosen(sweep["runs"], preset, path)}


def listed(value) -> list:
    """A list as it is, another value as a list of it."""
    return value if isinstance(value, list) else [value]


def hold(key: str, value, kind, place: str = "") -> None:
    """Raises UserError where a value is not of the kind that its key has."""
    if not kind.admits(value):
        number = isinstance(value, int | float) and kind.admits(str(value))
        raise UserError(f"{key}: found {short(value)}{place}, expected {kind}{', in quotes' if number else ''}")


def short(value) -> str:
    """A value in at most 80 characters."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_keys(mapping, known: Iterable[str], needed: list[str], place: object) -> None:
    """Raises UserError for what is no mapping, lacks a key or has an unknown one."""
    if not isinstance(mapping, dict):
        raise UserError(f"found {short(mapping)} in {place}, expected keys and values")
    if unknown := [key for key in mapping if key not in known]:
        raise UserError(f"unknown key {unknown[0]} in {place}, expected some of {', '.join(known)}")
    if missing := [key for key in needed if key not in mapping]:
        raise UserError(f"found no {missing[0]} in {place}, expected {', '.join(needed)}")


def check_plain(value, key: str, depth: int = 0) -> None:
    """Raises UserError for what no flag can carry: a date, a set, NaN, a control character, a value inside itself."""
    if isinstance(value, dict | list) and depth < DEEPEST:
        for name, item in value.items() if isinstance(value, dict) else enumerate(value, 1):
            if not WORD.admits(str(name)) or not isinstance(name, str | int | float):
                raise UserError(f"{key}: found the key {short(name)}, expected a text")
            check_plain(item, f"{key}.{name}", depth + 1)
    elif isinstance(value, str):
        hold(key, value, WORD)
    elif not (value is None or isinstance(value, int) or isinstance(value, float) and math.isfinite(value)):
        told = f"more than {DEEPEST} levels" if isinstance(value, dict | list) else short(value)
        raise UserError(f"{key}: found {told}, expected texts, finite numbers, true, false or null")


def check_entry(entry: dict, place: str = "") -> None:
    """Raises UserError where a run of a list, or one that was drawn, says what it may not."""
    kinds = ENTRY | ({"run": NAME} if "experiment" in entry else {})
    for key, value in entry.items():
        hold("runs", key, FLAG, place)
        hold(key, value, kinds.get(key, ANY), place)


def distribution(key: str, spec) -> tuple[str, list]:
    """Kind of a W&B parameter, told or guessed as W&B does, and its arguments; raises UserError."""
    hold("parameters", key, FLAG)
    place = f"parameter {key} (nested ones are written with dots)"
    check_keys(spec, SPEC, [], place)
    ranged = "int_uniform" if isinstance(spec.get("min"), int) and isinstance(spec.get("max"), int) else "uniform"
    kind = spec.get("distribution", "constant" if "value" in spec else "categorical" if "values" in spec else ranged)
    if not isinstance(kind, str) or kind not in DISTRIBUTIONS:
        raise UserError(f"found distribution {short(kind)} in {place}, expected one of {', '.join(DISTRIBUTIONS)}")
    kinds, _ = DISTRIBUTIONS[kind]
    spec = ({"q": 1} if "q" in kinds else {}) | spec
    check_keys(spec, [*kinds, "distribution"], list(kinds), f"{place} of distribution {kind}")
    for name, expected in kinds.items():
        hold(f"parameters.{key}.{name}", spec[name], expected)
    if "min" in kinds and spec["min"] > spec["max"]:
        raise UserError(
            f"parameters.{key}: found min {spec['min']} above max {spec['max']}, expected the smaller first"
        )
    return kind, [spec[name] for name in kinds]


def _read(path: str | Path):
    try:
        return from_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no UTF-8 text"
        raise UserError(f"found no readable sweep file {path} ({why}), expected YAML in UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"found no valid YAML in {path}: {' '.join(str(error).split())}") from None


def _check_method(sweep: dict, path: str | Path) -> None:
    """Raises UserError for a key that the method needs and lacks, or has and would not read."""
    method = sweep["method"]
    check_keys(sweep, KEYS, NEEDS[method], f"{path}, a sweep of method {method}")
    if idle := [key for key in ("parameters", "runs") if key in sweep and key not in NEEDS[method]]:
        raise UserError(f"found {idle[0]} in {path}, expected {NEEDS[method][0]} alone for method {method}")


def _check_presets(entry: dict, base: list[str]) -> None:
    """Raises UserError for an entry that no preset would run: one misspelled would be left out in silence."""
    paths = [path.replace("{preset}", name) for name in listed(entry.get("presets", [])) for path in base]
    # Without its folder, all of the file is read from a wrong place, which a missing program tells better.
    if missing := [path for path in paths if Path(path).parent.is_dir() and not Path(path).is_file()]:
        raise UserError(f"presets: found no {missing[0]} for {short(entry)}, expected presets that have a config")


def _filled(value, preset: str | None, study: str):
    """The value with {preset} and {study} of its texts replaced."""
    if isinstance(value, dict):
        return {key: _filled(item, preset, study) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, preset, study) for item in value]
    if not isinstance(value, str):
        return value
    if "{preset}" in value and not preset:
        raise UserError(f"found {value} in the sweep and no preset, expected one, such as: --preset quick")
    return value.replace("{preset}", preset or "").replace("{study}", study)


def _chosen(entries: list[dict], preset: str | None, path: str | Path) -> list[dict]:
    """The entries that are part of the preset's study; raises UserError if there is none."""
    chosen = [entry for entry in entries if preset is None or preset in listed(entry.get("presets", preset))]
    if not chosen:
        known = sorted({name for entry in entries for name in listed(entry["presets"])})
        raise UserError(f"found no run for preset {preset} in {path}, expected one of {', '.join(known)}")
    return chosen
