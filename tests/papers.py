"""What the tests of every paper share: the papers there are, a smoke study of each, flags from values, READMEs' commands.

A paper brings tests/<paper>/smoke.py: TINY, settings with which any of its training configs runs for a few steps; RUNS, the
runs beside main that experiments read, and how they differ from the smoke preset ({study} is its folder); SMALL, cheap
settings of experiments; and, if it likes, CHEAPEST, the experiment of the main run that takes least time, and READS, the
experiments that read results of others, with those others.
"""

import importlib
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import torch

from common import config, experiment, sweep
from common.checkpoint import Checkpointer

ROOT = Path(__file__).parents[1]
PAPERS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))


def train_of(paper: str) -> ModuleType:
    return importlib.import_module(f"{paper}.train")


def smoke_of(paper: str) -> ModuleType:
    return importlib.import_module(f"tests.{paper}.smoke")


def experiments(paper: str) -> list[str]:
    """Names of the configs that a script of analysis/ makes."""
    configs = (ROOT / paper / "configs").glob("*.yaml")
    return sorted(path.stem for path in configs if f"{paper}/analysis/" in path.read_text(encoding="utf-8"))


def script(paper: str, name: str) -> ModuleType:
    """The module that makes an experiment."""
    return importlib.import_module(f"{paper}.analysis.{Path(experiment.script_of(paper, name)).stem}")


def home(paper: str, name: str) -> str:
    """The run that an experiment reads, as its config's header says."""
    text = (ROOT / paper / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    return re.search(rf"--run runs/{paper}/\w+/([\w.]+)", text).group(1)


def flags(values: dict) -> list[str]:
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def make_study(paper: str, root: Path) -> Path:
    """Train the smoke preset and the runs beside it below `root`; the study's folder."""
    train, smoke, study = train_of(paper), ROOT / paper / "configs/smoke.yaml", root / paper / "smoke"
    shared = {"root": str(root), "device": "cpu", "threads": 1}
    for name, changes in {"main": {}, **smoke_of(paper).RUNS}.items():
        values = {k: v.format(study=study) if isinstance(v, str) else v for k, v in changes.items()}
        settings = config.parse(train.Config, [f"--config={smoke}", *flags(shared | {"name": name} | values)])
        experiment.train(settings, train.fit)
    return study


def perform(paper: str, name: str, study: Path) -> None:
    """Run an experiment on its run of the smoke study, with cheap settings, and before it those whose results it reads."""
    for need in getattr(smoke_of(paper), "READS", {}).get(name, ()):
        if not (study / home(paper, need) / "results" / f"{need}.json").exists():
            perform(paper, need, study)
    module = script(paper, name)
    own = {field.name for field in fields(module.Settings)}
    argv = [f"--config={ROOT / paper / 'configs' / name}.yaml", f"--run={study / home(paper, name)}"]
    cheap = {key: value for key, value in smoke_of(paper).SMALL.items() if key.partition(".")[0] in own}
    argv += ["--device=cpu", "--threads=1", *flags(cheap)]
    experiment.perform(module, name, config.parse(module.Settings, argv))


def assert_header_is_whole(path: Path) -> None:
    """Paper and figure, exact command, measured duration, what to expect."""
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    text = " ".join(head)
    assert re.search(r"arXiv|paper|ours|tests", head[0])
    assert re.search(r"python |make ", text)
    assert re.search(r"[Mm]easured", text) and re.search(r"[Ee]xpect|will see|You see", text)


def commands(readme: Path) -> list[str]:
    """Lines of the sh blocks of a README, without comments and prompts."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def assert_command_exists(command: str) -> None:
    """A README command names what is there, with flags that parse; to be called in the repository's root."""
    words = shlex.split(command)
    if words[0] == "make":
        rules = Path("Makefile").read_text()
        targets = [w for w in words[1:] if "=" not in w]
        assert all(re.search(rf"^{t}\b.*:", rules, re.M) or f" {t}" in rules for t in targets)
    elif words[:3] == ["python", "-m", "common.sweep"]:
        preset = words[words.index("--preset") + 1] if "--preset" in words else None
        assert sweep.jobs(sweep.load(words[3], preset))
    elif words[0] == "python" and Path(words[1]).name == "train.py":
        config.parse(
            train_of(Path(words[1]).parent.name).Config, [w for w in words[2:] if w not in ("--help", "--print_config")]
        )
    elif words[0] == "python" and "/analysis/" in words[1]:
        config.parse(importlib.import_module(words[1][:-3].replace("/", ".")).Settings, words[2:])
    elif words[0] == "python":
        assert Path(words[1]).is_file() or words[1] == "-m"
    elif words[0] == "accelerate":
        script = next(place for place, word in enumerate(words) if word.endswith(".py"))
        assert_command_exists(shlex.join(["python", *words[script:]]))
    else:
        assert words[0] in ("git", "cd", "source", "ruff", "wandb")


def record(folder: Path) -> list[dict]:
    """metrics.jsonl of a run without its wall-clock field."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def last_weights(folder: Path) -> dict:
    """Weights of a run's newest checkpoint."""
    checkpoints = Checkpointer(folder / "checkpoints")
    return checkpoints.weights(checkpoints.steps()[-1])


def assert_same_run(first: Path, second: Path) -> None:
    """Same record, same bits."""
    assert record(first) == record(second)
    ours, theirs = last_weights(first), last_weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
