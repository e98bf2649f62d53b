"""What the tests of every paper share: analyses by name, flags from values, what configs and READMEs promise."""

import importlib
import json
import re
import shlex
from pathlib import Path

import torch

from common import config, sweep
from common.checkpoint import Checkpointer

ROOT = Path(__file__).parents[1]


def settings_class(paper: str, name: str):
    """(module, settings dataclass) of an analysis script, as it hands them to perform()."""
    module = importlib.import_module(f"{paper}.analysis.{name}")
    text = Path(module.__file__).read_text()
    return module, getattr(module, re.search(rf'perform\("{name}", (\w+),', text).group(1))


def flags(values: dict) -> list[str]:
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def assert_header_is_whole(path: Path) -> None:
    """Paper and figure, exact command, measured duration, what to expect."""
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(head)
    assert re.search(r"arXiv|paper|ours|tests", head[0])
    assert re.search(r"python |make ", text)
    assert re.search(r"[Mm]easured", text) and re.search(r"[Ee]xpect|will see|You see", text)


def commands(readme: Path) -> list[str]:
    """Lines of the sh blocks of a README, without comments and prompts."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(), re.S)
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
        assert sweep.jobs(sweep.load(words[3]))
    elif words[0] == "python" and Path(words[1]).name == "train.py":
        train = importlib.import_module(f"{Path(words[1]).parent.name}.train")
        config.parse(train.Config, [w for w in words[2:] if w not in ("--help", "--print_config")])
    elif words[0] == "python" and "/analysis/" in words[1]:
        config.parse(settings_class(words[1].split("/")[0], Path(words[1]).stem)[1], words[2:])
    elif words[0] == "python":
        assert Path(words[1]).is_file() or words[1] == "-m"
    else:
        assert words[0] in ("git", "cd", "source", "ruff", "wandb")


def record(folder: Path) -> list[dict]:
    """metrics.jsonl of a run without its wall-clock field."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def last_weights(folder: Path) -> dict:
    """Weights of a run's newest checkpoint."""
    keeper = Checkpointer(folder / "checkpoints")
    return keeper.weights(keeper.steps()[-1])


def assert_same_run(first: Path, second: Path) -> None:
    """Same record, same bits."""
    assert record(first) == record(second)
    ours, theirs = last_weights(first), last_weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
