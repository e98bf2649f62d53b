"""Who made these numbers: command, code, versions and machine."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from common.device import describe

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "numpy", "cvxpy", "jsonargparse")


def manifest(device: torch.device | None = None) -> dict:
    """Command, commit, versions and hardware of this process, which computes on `device` (the CPU if None)."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": describe(device or torch.device("cpu")),
        "threads": torch.get_num_threads(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Answer of git in the folder of this code; None outside of its own checkout, such as in another repository's .venv."""

    def ask(*words: str) -> str:
        call = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 10, "check": True}
        return subprocess.run(["git", *words], **call).stdout.strip()

    try:
        return ask(*arguments) if os.path.samefile(ask("rev-parse", "--show-toplevel"), ROOT) else None
    except (OSError, subprocess.SubprocessError):
        return None
