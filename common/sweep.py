"""A sweep file in the W&B format, run here by a pool of processes, on Slurm, or (grid and random) by `wandb agent`.

    python -m common.sweep FILE [--preset quick] [--study NAME] [--seeds LIST] [--workers 2] [--threads 1] [--slurm] [--dry_run]

W&B keys: program, name, method (grid or random), parameters (dotted names), command, run_cap. Ours: the method `list`
with `runs`, a list of {flag: value} in which `config` may be a list and lies over `base`, the config of every training run;
{experiment: NAME, run: RUN} is the analysis that configs/NAME.yaml names, of a run of the study (main by default); an entry
with `presets` belongs to those alone. {preset} and {study} in a text are filled in. `study`: by default the preset, or the
sweep's name (under `wandb agent` make it a parameter); `slurm`: submitit's settings.

A run of a train.py lives in runs/<paper>/<study>/<name>: it is skipped when finished and resumed when begun. Any other
program, such as an analysis, runs every time. A job waits for the earlier runs whose folders are among its flags, and
for the jobs that a list entry names under `after`.
"""

import argparse
import itertools
import json
import math
import random
import re
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from common import pool
from common.config import EXIT_INTERRUPTED, EXIT_MISTAKE, UserError
from common.plain import from_yaml

KEYS = ("program", "base", "name", "method", "parameters", "command", "run_cap", "runs", "study", "slurm")
IDLE_KEYS = ("description", "project", "entity", "metric")  # W&B's own: they change nothing here.
COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
NEEDS = {"grid": ["parameters"], "random": ["parameters", "run_cap"], "list": ["runs"]}

# W&B distributions: the keys of each, and a draw from it.
DISTRIBUTIONS = {
    "constant": (["value"], lambda rng, value: value),
    "categorical": (["values"], lambda rng, values: rng.choice(values)),
    "uniform": (["min", "max"], lambda rng, low, high: rng.uniform(low, high)),
    "int_uniform": (["min", "max"], lambda rng, low, high: rng.randint(low, high)),
    "q_uniform": (["min", "max", "q"], lambda rng, low, high, q: round(round(rng.uniform(low, high) / q) * q, 12)),
    "log_uniform_values": (["min", "max"], lambda rng, low, high: math.exp(rng.uniform(math.log(low), math.log(high)))),
}


def load(path: str | Path, preset: str | None = None, study: str | None = None) -> dict:
    """The sweep in a YAML file, its keys checked, {preset} and {study} filled in; `name` is by default the file's."""
    try:
        sweep = from_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"found no readable sweep file {path} ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"found no valid YAML in {path}: {' '.join(str(error).split())}") from None
    _check(sweep, [*KEYS, *IDLE_KEYS], ["method"], path)
    name = sweep.get("name", Path(path).stem)
    study = study or preset or sweep.get("study", name)
    sweep = _filled({"name": name, "command": COMMAND, "preset": preset} | sweep | {"study": study}, preset, study)
    if sweep["method"] == "list" and isinstance(sweep.get("runs"), list):
        sweep["runs"] = [entry for entry in sweep["runs"] if _belongs(entry, preset)]
    return sweep


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


def _belongs(entry, preset: str | None) -> bool:
    """Whether an entry is part of the preset's study."""
    return not isinstance(entry, dict) or preset is None or preset in entry.get("presets", [preset])


def runs(sweep: dict, seed: int = 0) -> list[dict]:
    """A dict {flag: value} per run, run_cap of them at most; method random draws from `seed`."""
    method, cap = sweep["method"], sweep.get("run_cap")
    if method not in NEEDS:
        raise UserError(f"found method {method}, expected one of {', '.join(NEEDS)}")
    _check(sweep, sweep, NEEDS[method], f"a sweep of method {method}")
    if method == "list":
        for entry in sweep["runs"]:
            _check(entry, entry, [], "runs")
        return list(sweep["runs"])[:cap]
    specs = {key: _distribution(key, spec) for key, spec in sweep["parameters"].items()}
    drawn = _grid(specs) if method == "grid" else _random(specs, random.Random(seed))
    swept = [key for key, (kind, _) in specs.items() if kind != "constant"]
    return [{"name": _name(sweep["name"], run, swept)} | run for run in itertools.islice(drawn, cap)]


def jobs(sweep: dict, seed: int = 0, seeds: str | None = None) -> list[pool.Job]:
    """The jobs of a sweep in order, training runs with `seeds` if given; raises UserError where two have one name."""
    made = []
    for entry in runs(sweep, seed):
        made.append(_job(sweep, _analysis(sweep, entry) if "experiment" in entry else entry, made, seeds))
    if twice := [name for name, count in Counter(job.name for job in made).items() if count > 1]:
        raise UserError(f"found several runs named {twice[0]}, expected a name each; tell them apart with the key name")
    return made


def _analysis(sweep: dict, entry: dict) -> dict:
    """{experiment: NAME, run: RUN} as an entry with program, config and the path of the run."""
    from common.experiment import script_of

    paper, name = Path(sweep.get("program", "")).parent.as_posix(), entry["experiment"]
    run = Path("runs", paper, sweep["study"], entry.get("run", "main"))
    made = {"name": f"analyse_{name}", "program": script_of(paper, name), "config": f"{paper}/configs/{name}.yaml"}
    return made | {key: value for key, value in entry.items() if key != "experiment"} | {"run": run.as_posix()}


def _check(mapping, known, needed: list[str], place) -> None:
    if not isinstance(mapping, dict):
        raise UserError(f"found {mapping!r} in {place}, expected keys and values")
    if unknown := [key for key in mapping if key not in known]:
        raise UserError(f"unknown key {unknown[0]} in {place}, expected some of {', '.join(known)}")
    if missing := [key for key in needed if key not in mapping]:
        raise UserError(f"found no {missing[0]} in {place}, expected {', '.join(needed)}")


def _distribution(key: str, spec: dict) -> tuple[str, list]:
    """Kind of a W&B parameter, told or guessed as W&B does, and its arguments."""
    place = f"parameter {key} (nested ones are written with dots)"
    _check(spec, ["value", "values", "min", "max", "q", "distribution"], [], place)
    whole = isinstance(spec.get("min"), int) and isinstance(spec.get("max"), int)
    ranged = "int_uniform" if whole else "uniform"
    kind = spec.get("distribution", "constant" if "value" in spec else "categorical" if "values" in spec else ranged)
    if kind not in DISTRIBUTIONS:
        raise UserError(f"found distribution {kind} in {place}, expected one of {', '.join(DISTRIBUTIONS)}")
    names, _ = DISTRIBUTIONS[kind]
    spec = {"q": 1} | spec
    _check(spec, spec, names, place)
    return kind, [spec[name] for name in names]


def _grid(specs: dict) -> Iterator[dict]:
    for key, (kind, _) in specs.items():
        if kind not in ("constant", "categorical"):
            raise UserError(f"found distribution {kind} in parameter {key}, expected values for method grid")
    choices = [arguments if kind == "constant" else arguments[0] for kind, arguments in specs.values()]
    return (dict(zip(specs, values, strict=True)) for values in itertools.product(*choices))


def _random(specs: dict, rng: random.Random) -> Iterator[dict]:
    while True:
        yield {key: DISTRIBUTIONS[kind][1](rng, *arguments) for key, (kind, arguments) in specs.items()}


def _name(sweep: str, run: dict, swept: list[str]) -> str:
    """width_hidden_size=32: the sweep and the swept values, keys cut to their last part where that is enough."""
    last = Counter(key.rpartition(".")[2] for key in swept)
    parts = [sweep]
    for key in swept:
        tail = key.rpartition(".")[2]
        value = f"{run[key]:.4g}" if isinstance(run[key], float) else _text(run[key])
        parts.append(f"{tail if last[tail] == 1 else key}={value}")
    return re.sub(r"[^\w.=+-]+", "-", "_".join(parts))


def _job(sweep: dict, entry: dict, earlier: list[pool.Job], seeds: str | None) -> pool.Job:
    program = Path(entry.get("program", sweep.get("program", "")))
    trains = program.name == "train.py"
    if not program.is_file():
        raise UserError(f"found no program {program} for run {entry}, expected the path of a script from here")
    if trains and "name" not in entry:
        raise UserError(f"found no name in run {entry}, expected one: it names the run's folder")
    flags = {key: value for key, value in entry.items() if key not in ("program", "name", "after", "presets")}
    name = str(entry.get("name", program.stem))
    study = str(flags.get("study", sweep["study"]) if trains else sweep["study"])
    paper = program.parent.parent if program.parent.name == "analysis" else program.parent
    home = Path("runs", paper.name, study)
    if trains:
        configs = [*_listed(sweep.get("base", [])), *_listed(flags.get("config", []))]
        flags = ({"config": configs} if configs else {}) | {k: v for k, v in flags.items() if k != "config"}
        flags |= {"study": study, "name": name} | ({"seeds": seeds} if seeds else {})
        flags |= {"resume": True} if (home / name).exists() else {}
    command, after = _command(sweep["command"], program, flags), _after(entry.get("after", []), flags, earlier)
    return pool.Job(name, command, home / "logs" / f"{name}.log", home / name if trains else None, after)


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


def _after(asked: list[str], flags: dict, earlier: list[pool.Job]) -> tuple[str, ...]:
    """Names of the earlier jobs to wait for: those asked for, and those whose folder is, or holds, a flag's path."""
    if unknown := set(asked) - {job.name for job in earlier}:
        raise UserError(f"found {min(unknown)} under after, expected the name of an earlier run")
    paths = [Path(value).absolute() for value in flags.values() if isinstance(value, str)]
    made = [job for job in earlier if job.folder]
    read = {job.name for job in made if any(path.is_relative_to(job.folder.absolute()) for path in paths)}
    return tuple(job.name for job in earlier if job.name in read.union(asked))


def _command(words: list[str], program: Path, flags: dict) -> tuple[str, ...]:
    pairs = [("config", path) for path in _listed(flags.get("config", []))]
    pairs += [(key, value) for key, value in flags.items() if key != "config"]
    arguments = [f"--{key}={_text(value)}" for key, value in pairs]
    macros = {"${env}": [], "${interpreter}": ["python"], "${program}": [str(program)], "${args}": arguments}
    if unknown := [word for word in words if str(word).startswith("${") and word not in macros]:
        raise UserError(f"found {unknown[0]} in command, expected plain words or {', '.join(macros)}")
    return tuple(part for word in words for part in macros.get(word, [str(word)]))


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sweep(args: argparse.Namespace) -> int:
    sweep = load(args.file, args.preset, args.study)
    planned = jobs(sweep, args.seed, args.seeds)
    done = [job for job in planned if job.finished]
    todo = [job for job in planned if job not in done]
    for job in planned:
        print(f"# finished: {job.folder}" if job in done else shlex.join(job.command), flush=True)
    if args.dry_run or not todo:
        return 0
    start, workers = (lambda job: pool.Process(job, args.threads)), args.workers
    if args.slurm:
        start, workers = pool.slurm(todo[0].log.parent, args.threads, sweep.get("slurm", {})), len(todo)
    began = time.monotonic()
    codes = list(pool.run(todo, done, start, workers).values())
    bad, seconds = len(codes) - codes.count(0), time.monotonic() - began
    print(f"{codes.count(0)} done and {bad} failed in {seconds:.1f} s, {len(done)} finished before")
    return 1 if bad else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the sweep")
    parser.add_argument("--preset", help="fills {preset} in the file, and names the study")
    parser.add_argument("--study", help="folder of the study (the preset)")
    parser.add_argument("--seeds", help="of every training run, such as [6,7,8] (those of its config)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (1)")
    parser.add_argument("--slurm", action="store_true", help="submit every job to Slurm")
    parser.add_argument("--dry_run", action="store_true", help="print the commands and stop")
    parser.add_argument("--seed", type=int, default=0, help="of method random (0)")
    try:
        return _sweep(parser.parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    # However it is asked to end, also in the background, it takes its children along.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
