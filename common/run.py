"""One run, one folder: merged config, manifest, metrics, results and figures. The record is local and comes first."""

import fcntl
import json
import math
import os
import sys
import time
import warnings
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from common.config import UserError, dump, file_values
from common.plain import difference, from_yaml, make_folder, plain, read_json, write_atomic, write_json

ELSEWHERE = ("root", "study", "name", "resume", "wandb")
"""Settings that say where a run lies and what is told of it: no part of what it computes."""
ROUNDING = ("device", "threads")
"""Settings that change no more than rounding."""


class Run:
    """A run folder: `create` starts or resumes one, `open` reads one; as a context manager it records how it ended."""

    def __init__(self, path: str | Path, mirror=None):
        self.path = Path(path)
        self.mirror = mirror
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.manifest_path = self.path / "manifest.json"
        self.written = 0
        """Rows in metrics.jsonl, as far as this process has cut or written it."""
        self.saved: int | None = None
        """Step of the newest checkpoint."""
        self._handle, self._unlock = None, lambda: None

    @classmethod
    def create(cls, path: str | Path, config, resume: bool = False, mirror=None, device=None) -> Self:
        """Run folder at `path`, new or, with `resume`, the one that is there.

        config: a dataclass, saved as merged. mirror: an object with log(step, row) and finish().
        device: the torch.device used, for the manifest. A finished run comes back with `.finished` true, untouched.
        Raises UserError where a run exists and `resume` is false, its config is gone or differs in what is computed, or
        another process writes to it.
        """
        from common.manifest import manifest

        run = cls(path, mirror)
        if run.path.is_dir() and any(run.path.iterdir()):
            run._check_resumable(config, resume)
        if run.finished:
            run._checked()
            return run
        make_folder(run.path)
        run._lock()
        _sweep(run.path)
        if not run.config_path.exists():
            write_atomic(run.config_path, dump(config))
        before = run.manifest
        resumed = [*before.get("resumed", []), _now()] if before else []
        times = {"start": before.get("start", _now()), "resumed": resumed, "end": None}
        paper = {"paper": getattr(config, "PAPER", None)}
        write_json(run.manifest_path, {"state": "running"} | paper | manifest(device) | times)
        run.truncate(math.inf)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The run at `path`, to read or to analyse; raises UserError if there is none."""
        run = cls(path)
        if not run.config_path.is_file():
            beside = sorted(found.parent.name for found in run.path.parent.glob("*/config.yaml"))
            raise UserError(
                f"found no run at {path}, expected one of those beside it ({', '.join(beside) or 'none'}); "
                f"make one with: {_train_command(run.path)}"
            )
        return run

    def _check_resumable(self, config, resume: bool) -> None:
        if not resume:
            state = "a finished run" if self.finished else "a run"
            raise UserError(
                f"found {state} at {self.path}, expected an empty place; "
                "go on with it: --resume; or start another: --name NEW (or delete that folder)"
            )
        if not self.config_path.exists():
            if self.metrics_path.exists() or self.manifest_path.exists() or (self.path / "checkpoints").exists():
                raise UserError(
                    f"found no {self.config_path}, but what a run with one has written, expected the settings it was started "
                    "with; bring that file back, or start another: --name NEW"
                )
            return
        saved, new = self.config(), from_yaml(dump(config))
        for key in ELSEWHERE:
            saved.pop(key, None), new.pop(key, None)
        for key in ROUNDING:
            before, now = saved.pop(key, None), new.pop(key, None)
            if before != now:
                print(f"{self.path}: goes on with {key} {now}, was {before}: other rounding", file=sys.stderr)
        if found := difference(saved, new):
            key, old, value = found
            raise UserError(
                f"{key}: found {value}, expected {old} as in {self.config_path}; "
                "resume with the settings it was started with, or start another: --name NEW"
            )

    def _lock(self) -> None:
        """Keep a second process out; the lock goes with the process, however that ends."""
        self._handle = os.open(self.path, os.O_RDONLY)
        self._unlock = weakref.finalize(self, os.close, self._handle)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"found another process writing to {self.path}; stop it, or wait for its end") from None
        except OSError as error:
            warnings.warn(f"{self.path}: this file system has no locks ({error.strerror})", stacklevel=3)

    def check(self) -> None:
        """Raises UserError where the folder that this process has locked is gone, or another one stands in its place."""
        if self._handle is None or not self._unlock.alive:
            return
        try:
            there = os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            there = False
        if not there:
            self._unlock()
            raise UserError(
                f"found {self.path} deleted or replaced while this run wrote to it, expected it to stay; this run stops, and "
                "what it had written is gone with that folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        # Where the folder is gone there is nothing to record.
        if kind is not None and self._unlock.alive:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def config(self) -> dict:
        """Plain values of the saved config; `common.config.load(Config, run.config_path)` gives the dataclass."""
        return file_values(self.config_path)

    @property
    def manifest(self) -> dict:
        """Content of manifest.json, empty before there is one."""
        if not self.manifest_path.exists():
            return {}
        return read_json(self.manifest_path, dict, "delete that file, then go on with --resume")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.manifest.get("state") == "finished"

    def finish(self, state: str = "finished") -> None:
        """Record the end: finished, interrupted or failed; close the mirror, let other processes in."""
        self.check()
        self.sync()
        end = {"state": state, "end": _now(), "rows": self.written, "checkpoint": self.saved}
        write_json(self.manifest_path, self.manifest | end)
        if self.mirror is not None:
            self.mirror.finish()
        self._unlock()

    def log(self, step: int, **scalars) -> None:
        """Append one line to metrics.jsonl: step, the scalars (NaN as null), and `time` in seconds since 1970."""
        self.check()
        row = plain({"step": step, **scalars, "time": time.time()})
        # One write a line: a kill can tear the last line only.
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        self.written += 1
        if self.mirror is not None:
            self.mirror.log(step, row)

    def sync(self) -> None:
        """Let metrics.jsonl reach the disk, to be called before a checkpoint that covers its rows is written."""
        if self.metrics_path.exists():
            with open(self.metrics_path, "rb") as file:
                os.fsync(file.fileno())

    def rows(self, until: float = math.inf) -> int:
        """Whole rows of metrics.jsonl up to a step."""
        return sum(row["step"] <= until for _, row in self._lines()) if self.metrics_path.exists() else 0

    @property
    def last_step(self) -> int:
        """Step of the last whole row of metrics.jsonl, 0 before there is one."""
        return max((row["step"] for _, row in self._lines()), default=0) if self.metrics_path.exists() else 0

    def metrics(self):
        """pandas.DataFrame of metrics.jsonl, a row a line, null as NaN; a torn last line is skipped with a warning.

        Raises UserError where the run has ended and its record has more or fewer rows than it had then.
        """
        import pandas

        if not self.metrics_path.exists():
            raise UserError(f"found no {self.metrics_path}, expected a trained run: {_train_command(self.path)}")
        lines = self._checked()
        # As NaN, because pandas takes a column of None alone for objects.
        rows = ({key: math.nan if value is None else value for key, value in row.items()} for _, row in lines)
        return pandas.DataFrame(list(rows))

    def _checked(self) -> list[tuple[str, dict]]:
        """The lines, as many as there were when the run ended; raises UserError for more or fewer."""
        lines, manifest = self._lines() if self.metrics_path.exists() else [], self.manifest
        if manifest.get("state") != "running" and manifest.get("rows", len(lines)) != len(lines):
            raise UserError(
                f"found {len(lines)} rows in {self.metrics_path}, expected {manifest['rows']}; "
                "bring that file back, or train anew under another name: --name NEW"
            )
        return lines

    def truncate(self, step: float) -> None:
        """Drop the rows after `step` and a torn last line: what a resumed run will write again."""
        if self.metrics_path.exists():
            kept = [line + "\n" for line, row in self._lines() if row["step"] <= step]
            self.written = len(kept)
            write_atomic(self.metrics_path, "".join(kept))

    def _lines(self) -> list[tuple[str, dict]]:
        """Whole lines of metrics.jsonl, as text and as rows."""
        *lines, last = self.metrics_path.read_text(encoding="utf-8", errors="replace").split("\n")
        if last:
            warnings.warn(f"{self.metrics_path}: skipped a torn last line ({len(last)} characters)", stacklevel=3)
        return [(line, self._row(number, line)) for number, line in enumerate(lines, 1)]

    def _row(self, number: int, line: str) -> dict:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UserError(
                f"found a damaged line {number} in {self.metrics_path}, expected a JSON object with a step; "
                "delete that line, then go on with --resume"
            )
        return row

    def result(self, name: str, result: dict) -> None:
        """Write results/<name>.json."""
        write_json(self.path / "results" / f"{name}.json", result)

    def read(self, name: str) -> dict:
        """Content of results/<name>.json; raises UserError if it is missing."""
        path = self.path / "results" / f"{name}.json"
        mend = f"make it with the analysis {name} and --run {self.path}"
        if not path.is_file():
            raise UserError(f"found no {path}; {mend}")
        return read_json(path, dict, mend)

    def figure(self, name: str, fig, data: dict) -> None:
        """Write figures/<name>.png and .pdf, and the data drawn as figures/<name>.json."""
        from common.plotting import save

        save(fig, self.path / "figures" / name, data)


def _sweep(folder: Path) -> None:
    """Delete what killed writes have left: .<file>.<process> of processes that are gone."""
    for path in [*folder.glob(".*"), *folder.glob("*/.*")]:
        number = path.name.rpartition(".")[2]
        if number.isdigit() and path.is_file() and not _lives(int(number)):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _train_command(path: Path) -> str:
    """The command that makes runs/<paper>/<study>/<run>."""
    paper, study = path.parts[-3:-1] if len(path.parts) > 2 else ("<paper>", "<preset>")
    return f"python {paper}/train.py --config {paper}/configs/{study}.yaml"
