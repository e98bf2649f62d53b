"""Mutated settings of every config class there is: each ends in a config that means something, or in a line and exit code 2."""

import importlib
import math
import random
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest

from common import config
from common.publish import Judge
from tests.papers import PAPERS, ROOT, experiments, flags, script, smoke_of, train_of

BENCHES = [importlib.import_module(f"{path.parent.name}.bench").Bench for path in sorted(ROOT.glob("[!c]*/bench.py"))]
CLASSES = {f"{paper}/train": train_of(paper).Config for paper in PAPERS}
CLASSES |= {f"{paper}/{name}": script(paper, name).Settings for paper in PAPERS for name in experiments(paper)}
CLASSES |= {"claims": Judge} | {f"{bench.__module__}": bench for bench in BENCHES}

VALUES = (
    "", "0", "-1", "1", "-2", "0.5", "1.0", "10.0", "16.5", "1e3", "1e308", "1e400", "-1e308", ".nan", ".inf", "-.inf", "nan",
    "inf", str(2**63), str(10**59), "010", "1:30", "1_000", "0x10", "null", "None", "~", "true", "false", "yes", "off", "x",
    "x" * 300, "..", ".", "/etc", "../up", "a/b", "a\nb", "naïve", "2026-13-45", "!!int abc", "!!python/object:os.system x",
    "[]", "{}", "[[]]", "[0, 1]", "0,1", "[0, 0]", "[-1]", "[.nan]", "[null]", "[x, x]", "[1, [2]]", "{a: 1}", "{a: {b: .nan}}",
    "[1", "{1", "'", '"', "- 1", "&a [*a]", "cuda:7", "tpu", "rsh",
)  # fmt: skip


def leaves(Config: type) -> dict:
    return {key: kind for key, kind in config._keys(Config).items() if not is_dataclass(kind)}


def mutations(Config: type, count: int, seed: int):
    """`count` times a list of one or two (key, text)."""
    draw, keys = random.Random(seed), list(leaves(Config))
    for _ in range(count):
        yield [(draw.choice(keys), draw.choice(VALUES)) for _ in range(draw.choice((1, 1, 2)))]


def as_file(changes: list[tuple[str, str]], path: Path) -> str:
    """A YAML file that sets the keys, their groups written anew each time, as a careless hand does."""
    lines = []
    for key, value in changes:
        *groups, name = key.split(".")
        lines += [f"{'  ' * depth}{group}:" for depth, group in enumerate(groups)]
        lines.append(f"{'  ' * len(groups)}{name}: {value}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"--config={path}"


def outcome(Config: type, argv: list[str], capsys) -> tuple[int, object]:
    """(exit code, the config or the message) of a program whose settings are Config."""
    seen = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train.py", *argv])
            config.main(seen.append, Config)
    except SystemExit as left:
        return left.code or 0, seen[0] if seen else capsys.readouterr().err
    raise AssertionError("main must leave with a code")


def numbers(value):
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def hold(name: str, count: int, seed: int, tmp_path: Path, capsys) -> dict[int, int]:
    """Try mutations of a class as flags and as files; how often which exit code came."""
    Config, codes = CLASSES[name], {0: 0, 2: 0}
    for number, changes in enumerate(mutations(Config, count, seed)):
        argv = [as_file(changes, tmp_path / "a.yaml")] if number % 2 else [f"--{key}={value}" for key, value in changes]
        code, found = outcome(Config, argv, capsys)
        codes[code] += 1
        if code == 2:
            lines = found.splitlines()
            assert len(lines) <= 2 and lines[0].startswith("error: ") and max(map(len, lines)) < 600, (argv, found)
        else:
            assert all(math.isfinite(value) for value in numbers(asdict(found))), (argv, found)
            saved = tmp_path / "saved.yaml"
            saved.write_text(config.dump(found), encoding="utf-8")
            assert config.load(Config, saved) == found, argv
    return codes


@pytest.mark.parametrize("name", CLASSES)
def test_mutated_settings_mean_something_or_are_told(name, tmp_path, capsys):
    # Where every setting is a number with limits, few of the values mean anything.
    assert hold(name, 18 if "/train" not in name else 60, 0, tmp_path, capsys)[2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_many_mutated_settings_mean_something_or_are_told(name, tmp_path, capsys):
    codes = hold(name, 60 if "/train" not in name else 400, 1, tmp_path, capsys)
    assert codes[2] > 0
    with capsys.disabled():
        print(f"\n{name}: {codes[0]} exit 0, {codes[2]} exit 2")


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_and_free_text_declares_its_limits(name):
    for key, kind in leaves(CLASSES[name]).items():
        assert bounded(kind), f"{name}: {key} is {kind}, expected limits as in common.limits"


def bounded(kind) -> bool:
    """Whether every number in a type has limits; of texts those that are names or paths are not told from others here."""
    if get_origin(kind) is Annotated:
        base = get_args(kind)[0]
        return base in (int, float, str) or bounded(base)
    if get_args(kind) and get_origin(kind) is not None and not isinstance(get_args(kind)[0], str):
        return all(bounded(part) for part in get_args(kind))
    return kind not in (int, float)


@pytest.mark.parametrize("name", CLASSES)
def test_help_shows_every_setting_with_its_limits(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        config.parse(CLASSES[name], ["--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0 and "Annotated" not in told and "Range(" not in told
    assert all(f"--{key}" in told for key in leaves(CLASSES[name]))


SMALL = (
    "0", "1", "2", "-1", "0.5", "1.0", "3", "8", "16.5", ".nan", "1e308", "[]", "[1]", "[0, 1]", "off", "x", "null", "true",
    "1e-9",
)  # fmt: skip
APART = ("root", "wandb.mode", "wandb.backend", "checkpoints", "device")


def trains(paper: str, count: int, seed: int, tmp_path: Path, capsys) -> dict[int, int]:
    """Train tiny runs with mutated settings, as train.py does; how often which exit code came."""
    train, codes, draw = train_of(paper), {0: 0, 2: 0}, random.Random(seed)
    keys = [key for key in leaves(train.Config) if key not in APART]
    tiny = smoke_of(paper).TINY | {"device": "cpu", "root": str(tmp_path)}
    base = [f"--config={ROOT / paper / 'configs/smoke.yaml'}", *flags(tiny)]
    for number in range(count):
        changes = {draw.choice(keys): draw.choice(SMALL) for _ in range(draw.choice((1, 2)))}
        argv = [*base, f"--study=s{number}", *(f"--{key}={value}" for key, value in changes.items())]
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
            patch.setattr(sys, "argv", ["train.py", *argv])
            config.main(train.main, train.Config)
        codes[left.value.code or 0] += 1
        if left.value.code:
            told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            assert len(told) == 1, (argv, told)
    return codes


@pytest.mark.parametrize("paper", PAPERS)
def test_runs_with_mutated_settings_end_well_or_are_told(paper, tmp_path, capsys):
    assert trains(paper, 40, 0, tmp_path, capsys)[2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_many_runs_with_mutated_settings_end_well_or_are_told(paper, tmp_path, capsys):
    codes = trains(paper, 300, 1, tmp_path, capsys)
    assert min(codes.values()) > 0
    with capsys.disabled():
        print(f"\n{paper}: {codes[0]} exit 0, {codes[2]} exit 2")
