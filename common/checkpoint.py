"""Checkpoints that are whole or not there: safetensors weights, plain state, checksums; and schedules of steps."""

import hashlib
import io
import json
import pickle
import re
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from common.config import UserError
from common.place import MANIFEST, place

WEIGHTS, STATE = "weights.safetensors", "state.pt"
NAME = re.compile(r"step_\d{8,}")
PLAIN_TYPES = (int, float, bool, str, bytes, type(None))


class BrokenCheckpoint(Exception):
    """A checkpoint that can not be used, and why."""


class Checkpointer:
    """Checkpoints of one run under `folder` (a path or any fsspec address), a folder `step_<step>` each.

    keep_states: how many of the newest keep what a resume needs; the others keep their weights. owner: names the run in every
    checkpoint, so that one of another run is not taken for its own; empty: nothing is compared.
    """

    def __init__(self, folder: str | Path, keep_states: int = 2, owner: str = ""):
        self.place = place(folder)
        self.keep_states = keep_states
        self.owner = owner

    def save(self, step: int, weights: dict[str, torch.Tensor], state: dict, rows: int | None = None) -> None:
        """Save the checkpoint of `step`; `state` holds tensors and plain Python values only, else TypeError.

        rows: of metrics.jsonl up to this step, which must be on the disk already.
        """
        _check_plain(state)
        pickled = io.BytesIO()
        torch.save(state, pickled)
        # A copy of each tensor: safetensors refuses tensors that share memory.
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
        files = {WEIGHTS: to_safetensors(copies), STATE: pickled.getvalue()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        record = {"step": step, "owner": self.owner, "rows": rows, "sha256": digests}
        self.place.write(_name(step), files | {MANIFEST: _manifest(record)})
        self._drop_old_states()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        whole = (name for name, files in self.place.files().items() if MANIFEST in files and NAME.fullmatch(name))
        return sorted(int(name.removeprefix("step_")) for name in whole)

    def latest(self, rows: Callable[[int], int] | None = None) -> tuple[int, dict[str, torch.Tensor], dict] | None:
        """(step, weights, state) on the CPU of the newest checkpoint that is whole; those passed over are warned of.

        rows: step -> rows of metrics.jsonl up to it; a checkpoint that knows of more or fewer is passed over.
        """
        passed, found = [], None
        for step in reversed(self.steps()):
            try:
                found = step, self._weights(step), self._state(step)
                known, there = self._record(step).get("rows"), rows(step) if rows else None
                if None not in (known, there) and known != there:
                    found = None
                    raise BrokenCheckpoint(f"metrics.jsonl has {there} rows up to there, not {known}")
                break
            except BrokenCheckpoint as error:
                passed.append(f"{_name(step)} ({error})")
        if passed:
            warnings.warn(f"{self.place}: passed over {', '.join(passed)}", stacklevel=2)
        return found

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        """Weights at `step`, on the CPU; raises UserError with the steps there are if it is missing or broken."""
        steps = self.steps()
        if step not in steps:
            raise UserError(f"found no checkpoint of step {step} in {self.place}, expected one of {steps}")
        try:
            return self._weights(step)
        except BrokenCheckpoint as error:
            others = [other for other in steps if other != step]
            raise UserError(f"found {_name(step)} in {self.place} broken ({error}), expected one of {others}") from None

    def _weights(self, step: int) -> dict[str, torch.Tensor]:
        content = self._read(step, WEIGHTS)
        try:
            return from_safetensors(content)
        except (SafetensorError, ValueError, KeyError):
            raise BrokenCheckpoint(f"{WEIGHTS} is damaged") from None

    def _state(self, step: int) -> dict:
        content = self._read(step, STATE)
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise BrokenCheckpoint(f"{STATE} holds more than tensors and plain values") from None
        except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise BrokenCheckpoint(f"{STATE} is damaged") from None
        if not isinstance(state, dict):
            raise BrokenCheckpoint(f"{STATE} holds no state")
        return state

    def _read(self, step: int, file: str) -> bytes:
        """Content of a file, checked against the manifest."""
        try:
            digest = self._record(step)["sha256"].get(file)
            content = self.place.read(_name(step), file) if digest else None
        except FileNotFoundError:
            raise BrokenCheckpoint(f"{file} is missing") from None
        if content is None:
            raise BrokenCheckpoint(f"{file} was not kept")
        if hashlib.sha256(content).hexdigest() != digest:
            raise BrokenCheckpoint(f"checksum of {file} differs")
        return content

    def _record(self, step: int) -> dict:
        """The checkpoint's manifest, if it is that of this step and of this run."""
        try:
            record = json.loads(self.place.read(_name(step), MANIFEST))
            digests, written, owner = dict(record["sha256"]), record["step"], record.get("owner", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BrokenCheckpoint(f"{MANIFEST} is damaged") from None
        if written != step:
            raise BrokenCheckpoint(f"it is that of step {written}")
        if self.owner and owner and owner != self.owner:
            raise BrokenCheckpoint("it is that of another run, or of other settings")
        return record | {"sha256": digests}

    def _drop_old_states(self) -> None:
        files = self.place.files()
        for step in self.steps()[::-1][self.keep_states :]:
            if STATE in files[_name(step)]:
                self._drop_state(step)

    def _drop_state(self, step: int) -> None:
        try:
            record = self._record(step)
        except BrokenCheckpoint:
            # Left as it is for `latest` to name.
            return
        record["sha256"].pop(STATE, None)
        # The manifest first: a kill in between leaves a stray file, never a checkpoint that looks broken.
        self.place.replace(_name(step), MANIFEST, _manifest(record))
        self.place.remove(_name(step), STATE)


@dataclass(frozen=True)
class Schedule:
    """Steps 0, every, 2 every, ..., and total, and those of `also`; `step in schedule` asks, and no list is made."""

    every: int
    total: int
    also: Collection[int] = ()

    def __contains__(self, step: int) -> bool:
        return step % self.every == 0 or step == self.total or step in self.also

    def after(self, step: int) -> int:
        """The first one after a step that is before `total`."""
        later = [(step // self.every + 1) * self.every, self.total, *(other for other in self.also if other > step)]
        return min(later)


def logarithmic(total: int, per_decade: int) -> list[int]:
    """Steps 1, ..., total, `per_decade` equal ratios a decade, rounded, none twice; raises UserError for < 1."""
    if per_decade < 1:
        raise UserError(f"found a schedule of {per_decade} steps a decade, expected at least 1")
    powers = (round(10 ** (k / per_decade)) for k in range(per_decade * len(str(total))))
    return sorted({*(step for step in powers if step < total), total})


def spread(total: int, log: int, linear: int) -> list[int]:
    """Steps 0 .. total, none twice: `log` in equal ratios from 1 and `linear` in equal distances from 0, each rounded down.

    0 and `total` are always among them. Raises UserError for fewer than 2 of either.
    """
    if min(log, linear) < 2:
        raise UserError(f"found a schedule of {log} logarithmic and {linear} linear steps, expected at least 2 of each")
    # A power that ought to be whole must not fall below it.
    ratios = (int(total ** (k / (log - 1)) * (1 + 1e-12)) for k in range(log - 1))
    return sorted({*ratios, *(total * k // (linear - 1) for k in range(linear)), total})


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _manifest(record: dict) -> bytes:
    return json.dumps(record, indent=1).encode()


def _check_plain(value, key: str = "state") -> None:
    """Refuse at the save what `weights_only=True` would refuse at the resume."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_plain(item, f"{key}[{name!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{key}[{index}]")
    elif not (isinstance(value, torch.Tensor) or type(value) in PLAIN_TYPES):
        raise TypeError(f"{key}: found {type(value).__name__}, expected a tensor or a plain value")
