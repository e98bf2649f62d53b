"""Runs of every kind killed at random moments, again and again: in the end they are what an uninterrupted run is."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.papers import PAPERS, ROOT, assert_same_run, flags, smoke_of

KINDS = [(paper, name) for paper in PAPERS for name in ("main", *smoke_of(paper).RUNS)]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def command(paper: str, name: str, root: Path, study: Path) -> list[str]:
    changes = {} if name == "main" else smoke_of(paper).RUNS[name]
    values = {key: value.format(study=study) if isinstance(value, str) else value for key, value in changes.items()}
    values |= {"root": str(root), "name": name, "device": "cpu", "threads": 1}
    return [sys.executable, f"{paper}/train.py", f"--config={paper}/configs/smoke.yaml", *flags(values)]


def assert_survives(paper: str, name: str, study: Path, tmp_path: Path, kills: int, seed: int) -> None:
    """Start, kill after a random while, resume; at last let it end, and compare. Quits early where the run is quicker."""
    draw, argv = random.Random(f"{paper}/{name}/{seed}"), command(paper, name, tmp_path, study)
    folder = tmp_path / paper / "smoke" / name
    for number in range(kills):
        resume = ["--resume"] if folder.exists() else []
        with open(tmp_path / f"{number}.log", "w") as log:
            process = subprocess.Popen([*argv, *resume], cwd=ROOT, stdout=log, stderr=log)
            started = time.monotonic()
            # Imports take most of the time: half of the kills wait for the run's first trace.
            while number % 2 and not (folder / "metrics.jsonl").exists() and process.poll() is None:
                time.sleep(0.01)
                assert time.monotonic() - started < 120
            time.sleep(draw.uniform(0, 1.0 if number % 2 else 4.0))
            number_sent = draw.choice(SIGNALS)
            process.send_signal(number_sent)
            code = process.wait(60)
        told = (tmp_path / f"{number}.log").read_text()
        assert code in (0, 130, -number_sent), (code, number_sent, told)
        assert "Traceback" not in told, told
    ended = subprocess.run(
        [*argv, *(["--resume"] if folder.exists() else [])], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert_same_run(folder, study / name)
    assert not [path for path in folder.rglob(".*") if not path.name.endswith(".partial")]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_killed_run_ends_as_if_it_had_not_been(paper, study_of, tmp_path):
    assert_survives(paper, "main", study_of(paper), tmp_path, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("paper", "name"), KINDS, ids=lambda value: value)
def test_a_run_of_any_kind_killed_often_ends_as_if_it_had_not_been(paper, name, study_of, tmp_path):
    assert_survives(paper, name, study_of(paper), tmp_path, kills=8, seed=1)


def test_a_script_stopped_while_its_modules_load_ends_without_a_traceback():
    for script in sorted(ROOT.glob("*/train.py")):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, script], cwd=ROOT, **pipes)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and not err, err


def test_every_script_first_imports_what_ends_it_quietly():
    for path in [path for folder in ("common", *PAPERS) for path in (ROOT / folder).rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
        if '__name__ == "__main__"' in text:
            assert imports[0].startswith("import common.process"), path


ENVIRONMENTS = {
    "notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    "terminal": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environment_of_a_notebook_or_an_old_terminal_changes_nothing(name, study_of):
    for paper in PAPERS:
        command, env = (
            [sys.executable, f"{paper}/claims.py", f"--study={study_of(paper)}"],
            os.environ | ENVIRONMENTS[name],
        )
        run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
        assert run.returncode == 0, run.stderr
