"""One run, one folder: merged config, manifest, metrics, results and figures. The record is local and comes first."""

import fcntl
import json
import math
import os
import time
import warnings
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from common.config import UserError, dump
from common.plain import difference, from_yaml, make_folder, plain, write_atomic, write_json


class Run:
    """A run folder: `create` starts or resumes one, `open` reads one; as a context manager it records how it ended."""

    def __init__(self, path: str | Path, mirror=None):
        self.path = Path(path)
        self.mirror = mirror
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.manifest_path = self.path / "manifest.json"
        self._unlock = lambda: None

    @classmethod
    def create(cls, path: str | Path, config, resume: bool = False, mirror=None, device=None) -> Self:
        """Run folder at `path`, new or, with `resume`, the one that is there.

        config: a dataclass, saved as merged. mirror: an object with log(step, row) and finish().
        device: the torch.device used, for the manifest. A finished run comes back with `.finished` true, untouched.
        Raises UserError where a run exists and `resume` is false, its config differs, or another process writes to it.
        """
        from common.manifest import manifest

        run = cls(path, mirror)
        if run.path.is_dir() and any(run.path.iterdir()):
            run._check_resumable(config, resume)
        if run.finished:
            return run
        make_folder(run.path)
        run._lock()
        if not run.config_path.exists():
            write_atomic(run.config_path, dump(config))
        before = run.manifest
        resumed = [*before["resumed"], _now()] if before else []
        times = {"start": before.get("start", _now()), "resumed": resumed, "end": None}
        write_json(run.manifest_path, {"state": "running"} | manifest(device) | times)
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
            return
        # How a run is started is no part of what it computes.
        saved, new = ({**values, "resume": None} for values in (self.config(), from_yaml(dump(config))))
        if found := difference(saved, new):
            key, old, value = found
            raise UserError(
                f"{key}: found {value}, expected {old} as in {self.config_path}; "
                "resume with the settings it was started with, or start another: --name NEW"
            )

    def _lock(self) -> None:
        """Keep a second process out; the lock goes with the process, however that ends."""
        handle = os.open(self.path, os.O_RDONLY)
        self._unlock = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"found another process writing to {self.path}; stop it, or wait for its end") from None
        except OSError as error:
            warnings.warn(f"{self.path}: this file system has no locks ({error.strerror})", stacklevel=3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def config(self) -> dict:
        """Plain values of the saved config; `common.config.load(Config, run.config_path)` gives the dataclass."""
        return from_yaml(self.config_path.read_text())

    @property
    def manifest(self) -> dict:
        """Content of manifest.json, empty before there is one."""
        return json.loads(self.manifest_path.read_text()) if self.manifest_path.exists() else {}

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.manifest.get("state") == "finished"

    def finish(self, state: str = "finished") -> None:
        """Record the end: finished, interrupted or failed; close the mirror, let other processes in."""
        write_json(self.manifest_path, self.manifest | {"state": state, "end": _now()})
        if self.mirror is not None:
            self.mirror.finish()
        self._unlock()

    def log(self, step: int, **scalars) -> None:
        """Append one line to metrics.jsonl: step, the scalars (NaN as null), and `time` in seconds since 1970."""
        row = plain({"step": step, **scalars, "time": time.time()})
        # One write a line: a kill can tear the last line only.
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        if self.mirror is not None:
            self.mirror.log(step, row)

    def metrics(self):
        """pandas.DataFrame of metrics.jsonl, a row a line, null as NaN; a torn last line is skipped with a warning."""
        import pandas

        if not self.metrics_path.exists():
            raise UserError(f"found no {self.metrics_path}, expected a trained run: {_train_command(self.path)}")
        # As NaN, because pandas takes a column of None alone for objects.
        rows = ({key: math.nan if value is None else value for key, value in row.items()} for _, row in self._lines())
        return pandas.DataFrame(list(rows))

    def truncate(self, step: float) -> None:
        """Drop the rows after `step` and a torn last line: what a resumed run will write again."""
        if self.metrics_path.exists():
            kept = [line + "\n" for line, row in self._lines() if row["step"] <= step]
            write_atomic(self.metrics_path, "".join(kept))

    def _lines(self) -> list[tuple[str, dict]]:
        """Whole lines of metrics.jsonl, as text and as rows."""
        *lines, last = self.metrics_path.read_text(encoding="utf-8", errors="replace").split("\n")
        if last:
            warnings.warn(f"{self.metrics_path}: skipped a torn last line ({len(last)} characters)", stacklevel=3)
        try:
            return [(line, json.loads(line)) for line in lines]
        except ValueError:
            raise UserError(f"found a damaged line in {self.metrics_path}, expected JSON; delete that line") from None

    def result(self, name: str, result: dict) -> None:
        """Write results/<name>.json."""
        write_json(self.path / "results" / f"{name}.json", result)

    def read(self, name: str) -> dict:
        """Content of results/<name>.json; raises UserError if it is missing."""
        path = self.path / "results" / f"{name}.json"
        if not path.is_file():
            raise UserError(f"found no {path}; make it with the analysis {name} and --run {self.path}")
        return json.loads(path.read_text())

    def figure(self, name: str, fig, data: dict) -> None:
        """Write figures/<name>.png and .pdf, and the data drawn as figures/<name>.json."""
        from common.plotting import save

        save(fig, self.path / "figures" / name, data)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _train_command(path: Path) -> str:
    """The command that makes runs/<paper>/<study>/<run>."""
    paper, study = path.parts[-3:-1] if len(path.parts) > 2 else ("<paper>", "<preset>")
    return f"python {paper}/train.py --config {paper}/configs/{study}.yaml"
