"""Where checkpoints live: a local folder, or any fsspec address (s3://bucket/prefix, memory://, ...)."""

import errno
import os
import shutil
from pathlib import Path

from common.plain import make_folder, write_atomic

MANIFEST = "manifest.json"


class LocalPlace:
    """A folder. A checkpoint is written beside its final place, made durable and renamed."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def files(self) -> dict[str, set[str]]:
        """Names of the checkpoints, with the files in each."""
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "no folder", str(self.root))
        folders = self.root.glob("step_*") if self.root.is_dir() else ()
        return {folder.name: {file.name for file in folder.iterdir()} for folder in folders if folder.is_dir()}

    def read(self, name: str, file: str) -> bytes:
        """Content of one file; raises FileNotFoundError."""
        return (self.root / name / file).read_bytes()

    def write(self, name: str, files: dict[str, bytes]) -> None:
        """Write a whole checkpoint, over one of the same name if there is one."""
        make_folder(self.root)
        for leftover in self.root.glob(".*.partial"):
            shutil.rmtree(leftover)
        final, partial, replaced = self.root / name, self.root / f".{name}.partial", self.root / f".{name}.old.partial"
        try:
            for file, content in files.items():
                write_atomic(partial / file, content)
            _sync(partial)
            if final.exists():
                os.rename(final, replaced)
            os.rename(partial, final)
            _sync(self.root)
        finally:
            for folder in (partial, replaced):
                shutil.rmtree(folder, ignore_errors=True)

    def replace(self, name: str, file: str, content: bytes) -> None:
        """Write one file anew."""
        write_atomic(self.root / name / file, content)

    def remove(self, name: str, file: str) -> None:
        """Delete one file."""
        (self.root / name / file).unlink()


class RemotePlace:
    """An fsspec address. The manifest is written last, and without it there is no checkpoint."""

    def __init__(self, address: str):
        import fsspec

        self.address = address
        self.system, self.root = fsspec.core.url_to_fs(address)

    def __str__(self) -> str:
        return self.address

    def files(self) -> dict[str, set[str]]:
        """Names of the checkpoints, with the files in each."""
        found: dict[str, set[str]] = {}
        for path in self.system.find(self.root):
            *_, name, file = path.split("/")
            found.setdefault(name, set()).add(file)
        return found

    def read(self, name: str, file: str) -> bytes:
        """Content of one file; raises FileNotFoundError."""
        return self.system.cat_file(f"{self.root}/{name}/{file}")

    def write(self, name: str, files: dict[str, bytes]) -> None:
        """Write a whole checkpoint, over one of the same name if there is one."""
        self.system.makedirs(f"{self.root}/{name}", exist_ok=True)
        for file in sorted(files, key=MANIFEST.__eq__):
            self.replace(name, file, files[file])

    def replace(self, name: str, file: str, content: bytes) -> None:
        """Write one file anew."""
        self.system.pipe_file(f"{self.root}/{name}/{file}", content)

    def remove(self, name: str, file: str) -> None:
        """Delete one file."""
        self.system.rm_file(f"{self.root}/{name}/{file}")


def place(address: str | Path) -> LocalPlace | RemotePlace:
    """The place behind a path or an fsspec address."""
    return RemotePlace(str(address)) if "://" in str(address) else LocalPlace(address)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
