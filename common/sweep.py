"""A sweep file in the W&B format, run here by a pool of processes, on Slurm, or (grid and random) by `wandb agent`.

    python -m common.sweep FILE [--preset quick] [--study NAME] [--seeds LIST] [--workers 2] [--threads 1] [--slurm] [--dry_run]

W&B keys: program, name, method (grid or random), parameters (dotted names), command, run_cap. Ours: the method `list`
with `runs`, a list of {flag: value} in which `config` may be a list and lies over `base`, the config of every training run;
{experiment: NAME, run: RUN} is the analysis that configs/NAME.yaml names, of a run of the study (main by default); an entry
with `presets` belongs to those alone. {preset} and {study} in a text are filled in. `study`: by default the preset, or the
sweep's name (under `wandb agent` make it a parameter); `slurm`: submitit's settings.

A run of a train.py lives in runs/<paper>/<study>/<name>: it is skipped when finished, resumed when begun, and waited for
while another process writes to it. Any other program, such as an analysis, runs every time. A job waits for the earlier runs
whose folders are among its flags, and for the jobs that a list entry names under `after`. Its log, in the study's logs/,
keeps every attempt. A job that Slurm stops, at its time limit or for another, saves and is queued again.
"""

import common.process  # noqa: F401

import argparse
import itertools
import json
import math
import random
import re
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from common import pool
from common.config import UserError, guarded
from common.plain import from_yaml
from common.progress import StopSignal, stop_signal
from common.sweepfile import (
    DISTRIBUTIONS,
    MOST_RUNS,
    check_entry,
    distribution,
    listed,
    load,
    short,
    some,
    whole,
)

SEEDS = some(whole(0, 2**63 - 1), alone=True)


def runs(sweep: dict, seed: int = 0) -> list[dict]:
    """A dict {flag: value} per run, run_cap of them at most; method random draws from `seed`."""
    cap = int(sweep["run_cap"]) if "run_cap" in sweep else None
    if sweep["method"] == "list":
        return sweep["runs"][:cap]
    specs = {key: distribution(key, spec) for key, spec in sweep["parameters"].items()}
    drawn = _random(specs, random.Random(seed)) if sweep["method"] == "random" else _grid(specs, cap)
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

    name = entry["experiment"]
    if "program" not in sweep:
        raise UserError(f"found no program in the sweep, expected the train.py of the paper whose experiment {name} is")
    paper = Path(sweep["program"]).parent.as_posix()
    run = Path("runs", paper, sweep["study"], entry.get("run", "main"))
    made = {"name": f"analyse_{name}", "program": script_of(paper, name), "config": f"{paper}/configs/{name}.yaml"}
    return made | {key: value for key, value in entry.items() if key != "experiment"} | {"run": run.as_posix()}


def _grid(specs: dict, cap: int | None) -> Iterator[dict]:
    for key, (kind, _) in specs.items():
        if kind not in ("constant", "categorical"):
            raise UserError(f"found distribution {kind} in parameter {key}, expected values for method grid")
    choices = [arguments if kind == "constant" else arguments[0] for kind, arguments in specs.values()]
    if cap is None and (number := math.prod(len(values) for values in choices)) > MOST_RUNS:
        raise UserError(
            f"found {number} runs in the grid, expected at most {MOST_RUNS}; give fewer values, or a run_cap"
        )
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
    check_entry(entry)
    program = Path(entry.get("program", sweep.get("program", "")))
    trains = program.name == "train.py"
    if not program.is_file():
        raise UserError(f"found no program {program} for run {short(entry)}, expected the path of a script from here")
    if trains and "name" not in entry:
        raise UserError(f"found no name in run {short(entry)}, expected one: it names the run's folder")
    flags = {key: value for key, value in entry.items() if key not in ("program", "name", "after", "presets")}
    name = entry.get("name", program.stem)
    if trains and name == "logs":
        raise UserError("found a training run named logs, expected another name: the study's logs lie in that folder")
    study = flags.get("study", sweep["study"]) if trains else sweep["study"]
    paper = program.parent.parent if program.parent.name == "analysis" else program.parent
    home = Path("runs", paper.name, study)
    if trains:
        configs = [*listed(sweep.get("base", [])), *listed(flags.get("config", []))]
        flags = ({"config": configs} if configs else {}) | {k: v for k, v in flags.items() if k != "config"}
        flags |= {"study": study, "name": name} | ({"seeds": seeds} if seeds else {})
    _check_configs(flags, earlier)
    command, after = _command(sweep["command"], program, flags), _after(listed(entry.get("after", [])), flags, earlier)
    return pool.Job(name, command, home / "logs" / f"{name}.log", home / name if trains else None, after).current


def _check_configs(flags: dict, earlier: list[pool.Job]) -> None:
    """Raises UserError for a config that is not there and that no earlier run makes."""
    for path in listed(flags.get("config", [])):
        if not Path(path).is_file() and not _makers([path], earlier):
            raise UserError(f"found no config {path}, expected a file; mend the sweep's base or config, or the preset")


def _makers(paths: list[str], earlier: list[pool.Job]) -> set[str]:
    """Names of the jobs whose folder is, or holds, one of the paths."""
    whole_paths = [Path(path).absolute() for path in paths]
    made = [job for job in earlier if job.folder]
    return {job.name for job in made if any(path.is_relative_to(job.folder.absolute()) for path in whole_paths)}


def _after(asked: list[str], flags: dict, earlier: list[pool.Job]) -> tuple[str, ...]:
    """Names of the earlier jobs to wait for: those asked for, and those whose folder is, or holds, a flag's path."""
    if unknown := set(asked) - {job.name for job in earlier}:
        raise UserError(f"found {min(unknown)} under after, expected the name of an earlier run")
    paths = [part for value in flags.values() for part in listed(value) if isinstance(part, str)]
    awaited = _makers(paths, earlier).union(asked)
    return tuple(job.name for job in earlier if job.name in awaited)


def _command(words: list, program: Path, flags: dict) -> tuple[str, ...]:
    pairs = [("config", path) for path in listed(flags.get("config", []))]
    pairs += [(key, value) for key, value in flags.items() if key != "config"]
    arguments = [f"--{key}={_text(value)}" for key, value in pairs]
    macros = {"${env}": [], "${interpreter}": ["python"], "${program}": [str(program)], "${args}": arguments}
    if unknown := [word for word in words if str(word).startswith("${") and word not in macros]:
        raise UserError(f"found {unknown[0]} in command, expected plain words or {', '.join(macros)}")
    if "${args}" not in words:
        raise UserError(f"found command {short(words)}, expected ${{args}} in it: every run would be the same")
    command = tuple(part for word in words for part in macros.get(word, [str(word)]))
    if not command or command[0] != "python" and not shutil.which(command[0]):
        raise UserError(
            f"found {shlex.join(command[:1]) or 'nothing'} at the head of command, expected a program that can be started"
        )
    return command


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sweep(args: argparse.Namespace, stop: StopSignal) -> int:
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
    codes = list(pool.run(todo, done, start, workers, stop).values())
    bad, seconds = len(codes) - codes.count(0), time.monotonic() - began
    print(f"{codes.count(0)} done and {bad} failed in {seconds:.1f} s, {len(done)} finished before")
    return 1 if bad else 0


class Parser(argparse.ArgumentParser):
    """Tells a mistake as every script here does, in a line."""

    def error(self, message: str):
        raise UserError(f"{message} (see --help)")


def _number(low: int, high: int):
    """The type of a flag that is a whole number from low to high."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from {low} to {high}")
        return int(text)

    return parse


def _seeds(text: str) -> str:
    try:
        seeds = from_yaml(text)
    except yaml.YAMLError:
        seeds = None
    if not SEEDS.admits(seeds) or len(set(listed(seeds))) < len(listed(seeds)):
        raise argparse.ArgumentTypeError(f"found {text}, expected whole numbers from 0, each once, such as [6, 7, 8]")
    return text


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the sweep")
    parser.add_argument("--preset", help="fills {preset} in the file, and names the study")
    parser.add_argument("--study", help="folder of the study (the preset)")
    parser.add_argument("--seeds", type=_seeds, help="of every training run, such as [6,7,8] (those of its config)")
    parser.add_argument("--workers", type=_number(1, 4096), default=2, help="processes at a time (2)")
    parser.add_argument("--threads", type=_number(1, 4096), default=1, help="CPU threads of each (1)")
    parser.add_argument("--slurm", action="store_true", help="submit every job to Slurm")
    parser.add_argument("--dry_run", action="store_true", help="print the commands and stop")
    parser.add_argument("--seed", type=_number(0, 10**9 - 1), default=0, help="of method random (0)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the sweep that the command line names; its exit code."""

    def run() -> int:
        args = _parser().parse_args(argv)
        with stop_signal() as stop:
            return _sweep(args, stop)

    return guarded(run)


if __name__ == "__main__":
    # Ctrl-C takes its children along also from the background, where a shell has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
