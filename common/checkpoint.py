"""Checkpoints that are whole or not there: safetensors weights, plain state, checksums; and schedules of steps."""

import hashlib
import io
import json
import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from common.config import UserError
from common.place import MANIFEST, place

WEIGHTS, STATE = "weights.safetensors", "state.pt"
PLAIN_TYPES = (int, float, bool, str, bytes, type(None))


class BrokenCheckpoint(Exception):
    """A checkpoint that can not be used, and why."""


class Checkpointer:
    """Checkpoints of one run under `folder` (a path or any fsspec address), a folder `step_<step>` each.

    keep_states: how many of the newest keep what a resume needs; the others keep their weights.
    """

    def __init__(self, folder: str | Path, keep_states: int = 2):
        self.place = place(folder)
        self.keep_states = keep_states

    def save(self, step: int, weights: dict[str, torch.Tensor], state: dict) -> None:
        """Save the checkpoint of `step`; `state` holds tensors and plain Python values only, else TypeError."""
        _check_plain(state)
        pickled = io.BytesIO()
        torch.save(state, pickled)
        # A copy of each tensor: safetensors refuses tensors that share memory.
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
        files = {WEIGHTS: to_safetensors(copies), STATE: pickled.getvalue()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self.place.write(_name(step), files | {MANIFEST: _manifest(step, digests)})
        self._drop_old_states()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        whole = (name for name, files in self.place.files().items() if MANIFEST in files)
        return sorted(int(name.removeprefix("step_")) for name in whole)

    def latest(self) -> tuple[int, dict[str, torch.Tensor], dict] | None:
        """(step, weights, state) on the CPU of the newest checkpoint that is whole; those passed over are warned of."""
        passed, found = [], None
        for step in reversed(self.steps()):
            try:
                found = step, self._weights(step), self._state(step)
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
        return from_safetensors(self._read(step, WEIGHTS))

    def _state(self, step: int) -> dict:
        try:
            return torch.load(io.BytesIO(self._read(step, STATE)), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise BrokenCheckpoint(f"{STATE} holds more than tensors and plain values") from None

    def _read(self, step: int, file: str) -> bytes:
        """Content of a file, checked against the manifest."""
        try:
            digest = self._digests(step).get(file)
            content = self.place.read(_name(step), file) if digest else None
        except FileNotFoundError:
            raise BrokenCheckpoint(f"{file} is missing") from None
        if content is None:
            raise BrokenCheckpoint(f"{file} was not kept")
        if hashlib.sha256(content).hexdigest() != digest:
            raise BrokenCheckpoint(f"checksum of {file} differs")
        return content

    def _digests(self, step: int) -> dict[str, str]:
        try:
            return dict(json.loads(self.place.read(_name(step), MANIFEST))["sha256"])
        except (ValueError, KeyError, TypeError):
            raise BrokenCheckpoint(f"{MANIFEST} is damaged") from None

    def _drop_old_states(self) -> None:
        files = self.place.files()
        for step in self.steps()[::-1][self.keep_states :]:
            if STATE in files[_name(step)]:
                self._drop_state(step)

    def _drop_state(self, step: int) -> None:
        try:
            digests = self._digests(step)
        except BrokenCheckpoint:
            # Left as it is for `latest` to name.
            return
        digests.pop(STATE, None)
        # The manifest first: a kill in between leaves a stray file, never a checkpoint that looks broken.
        self.place.replace(_name(step), MANIFEST, _manifest(step, digests))
        self.place.remove(_name(step), STATE)


def linear(every: int, total: int) -> list[int]:
    """Steps 0, every, 2 every, ..., and total; raises UserError for every < 1."""
    if every < 1:
        raise UserError(f"found a schedule of every {every} steps, expected at least 1")
    return both(range(0, total + 1, every), [total])


def logarithmic(total: int, per_decade: int) -> list[int]:
    """Steps 1, ..., total, `per_decade` equal ratios a decade, rounded, none twice; raises UserError for < 1."""
    if per_decade < 1:
        raise UserError(f"found a schedule of {per_decade} steps a decade, expected at least 1")
    powers = (round(10 ** (k / per_decade)) for k in range(per_decade * len(str(total))))
    return both((step for step in powers if step < total), [total])


def both(*schedules: Iterable[int]) -> list[int]:
    """Every step of several schedules, sorted, none twice."""
    return sorted(set().union(*schedules))


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _manifest(step: int, digests: dict[str, str]) -> bytes:
    return json.dumps({"step": step, "sha256": digests}, indent=1).encode()


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
