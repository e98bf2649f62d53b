"""Text to learn from: the Python files of this interpreter or a folder of the user's, filtered, split by package.

Files are taken in the order of the sha256 of their names, so that a smaller corpus begins like a larger one. What is kept and
what is left out, and why, is counted for the manifest. Contents differ between machines, with the packages installed there.
"""

import functools
import hashlib
import importlib.metadata
import os
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from common.config import UserError
from simplifying_blocks.filters import MOST_CHARACTERS, Seen, pieces, refused, without_licence

SKIPPED = {"site-packages", "dist-packages", "node_modules", "__pycache__", "_vendor", "_vendored", "vendor"}
"""Folders not entered: other roots, caches, and copies of packages inside packages, which would cross the split."""
STDLIB = "stdlib"
MOST_BYTES_OF_CODE, MOST_BYTES = 4 * MOST_CHARACTERS, 10**9
LARGEST_HELD, SMALLEST_HELD, IID_SHARE = 0.1, 0.02, 0.05


class File(NamedTuple):
    """A file found: its package, its name (package root and path, the same on every machine), where it lies, its stamp."""

    package: str
    name: str
    path: str
    size: int
    changed: int


class Document(NamedTuple):
    """A text kept; name is the file's, with #k where a long file was cut into pieces."""

    package: str
    name: str
    text: str

    @property
    def size(self) -> int:
        """Bytes in UTF-8."""
        return len(self.text.encode())


def order(name: str, purpose: str = "order") -> bytes:
    """Sort key that shuffles names, the same way everywhere."""
    return hashlib.sha256(f"{purpose}/{name}".encode()).digest()


def _walk(root: str | Path, suffix: str = "", name: str = "") -> Iterator[tuple[str, os.DirEntry]]:
    """Name below root and entry of every file; what is hidden and SKIPPED folders left out. It is run at each start."""
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.name not in SKIPPED and not entry.is_symlink():
                yield from _walk(entry.path, suffix, f"{name}{entry.name}/")
        elif entry.name.endswith(suffix) and entry.is_file():
            yield name + entry.name, entry


def _file(package: str, name: str, entry: os.DirEntry) -> File:
    stat = entry.stat()
    return File(package, name, entry.path, stat.st_size, stat.st_mtime_ns)


def _top(name: str) -> str:
    """First folder of a name, or the file without its suffix: a module or a package to Python."""
    first, folder, _ = name.partition("/")
    return first if folder else os.path.splitext(first)[0]


@functools.cache
def installed() -> list[File]:
    """The Python files of the standard library (one package) and of site-packages (a package is what pip calls one).

    Looked for once a process: it takes half a second, and a process does not see packages change.
    """
    stdlib = sysconfig.get_path("stdlib")
    files = [_file(STDLIB, f"{STDLIB}/{name}", entry) for name, entry in _walk(stdlib, ".py")]
    # Two folders on some systems, often one behind two names.
    for site in sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}):
        owners = distributions(site)
        for name, entry in _walk(site, ".py"):
            files.append(_file(owners.get(_top(name), _top(name)), f"site-packages/{name}", entry))
    return files


def distributions(site: str | Path) -> dict[str, str]:
    """Top-level module -> its distribution; those that several share (namespaces) are left out."""
    owners = defaultdict(set)
    for distribution in importlib.metadata.distributions(path=[str(site)]):
        # The name is parsed at each access.
        name = distribution.name.replace("-", "_")
        for top in {_top(str(file)) for file in distribution.files or () if file.suffix == ".py"}:
            owners[top].add(name)
    return {top: names.pop() for top, names in owners.items() if len(names) == 1}


def version(package: str) -> str | None:
    """Version of an installed distribution; None where there is none of that name."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_folder(place: str | None) -> list[File]:
    """The files of a folder; each entry at its top, file or folder, is a package. Folders behind links are not entered.

    Raises UserError without a folder, or without a file in it.
    """
    root = Path(place or "")
    if place is None or not root.is_dir():
        found = "no folder given" if place is None else f"no folder {place}"
        raise UserError(f"found {found}, expected text files for data.source files; mend with --data.folder FOLDER")
    files = [_file(_top(name), f"files/{name}", entry) for name, entry in _walk(root)]
    if not files:
        raise UserError(f"found no file in {place}, expected text files; mend with another --data.folder")
    return files


class Reader:
    """Reads files into documents and counts what it leaves out: `left_out` has files and bytes by reason."""

    def __init__(self, code: bool):
        self.code, self.seen = code, Seen()
        self.left_out: dict[str, Counter] = defaultdict(Counter)

    def read(self, files: Iterable[File], most: float, most_each: float) -> list[Document]:
        """Documents of the files, shuffled by name, until there are `most` bytes, or `most_each` of a package.

        The last document may go beyond: a rule that skipped what no longer fits would end on short files only.
        """
        documents, sizes, total = [], Counter(), 0
        for file in sorted(files, key=lambda file: order(file.name)):
            full = total >= most or sizes[file.package] >= most_each
            texts, reason = ([], "beyond the size asked for") if full else self._texts(file)
            if reason:
                self.left_out[reason].update(files=1, bytes=file.size)
            for k, text in enumerate(texts):
                if total < most and sizes[file.package] < most_each:
                    name = f"{file.name}#{k}" if len(texts) > 1 else file.name
                    documents.append(Document(file.package, name, text))
                    sizes[file.package] += documents[-1].size
                    total += documents[-1].size
        return sorted(documents, key=lambda document: order(document.name))

    def _texts(self, file: File) -> tuple[list[str], str | None]:
        """Texts of a file, and why there is none."""
        if file.size > (MOST_BYTES_OF_CODE if self.code else MOST_BYTES):
            return [], "long"
        try:
            text = Path(file.path).read_bytes().decode()
        except UnicodeDecodeError:
            return [], "not UTF-8"
        except OSError:
            return [], "not readable"
        text = without_licence(text) if self.code else text
        reason = refused(text) if self.code else None if text.strip() and "\0" not in text else "no text"
        reason = reason or self.seen.repeats(text)
        return ([], reason) if reason else ([text] if self.code else pieces(text), None)


def held_packages(files: Iterable[File], named: Iterable[str]) -> set[str]:
    """Packages kept for validation: the named ones that are here.

    If none is: small ones, in shuffled order, up to 2% of all bytes; the smallest where all are large; none of a single one.
    """
    sizes = Counter()
    for file in files:
        sizes[file.package] += file.size
    held = set(named) & set(sizes)
    if held or len(sizes) < 2:
        return held
    small = [name for name in sizes if sizes[name] <= LARGEST_HELD * sizes.total()]
    for name in sorted(small, key=lambda name: order(name, "package")):
        if sum(sizes[name] for name in held) < SMALLEST_HELD * sizes.total():
            held.add(name)
    return held or {min(sizes, key=lambda name: (sizes[name], name))}


def hold_out(documents: list[Document], most: float) -> tuple[list[Document], list[Document]]:
    """Documents to train on and those held out, drawn evenly until there are `most` bytes or 5% of all; none of one."""
    room = min(most, IID_SHARE * sum(document.size for document in documents))
    held: set[str] = set()
    for document in sorted(documents, key=lambda document: order(document.name, "held out"))[: len(documents) // 2]:
        if room > 0:
            held.add(document.name)
            room -= document.size
    return [d for d in documents if d.name not in held], [d for d in documents if d.name in held]


def splits(
    files: list[File], named: Iterable[str], code: bool, train: float, package: float, valid: float
) -> tuple[dict[str, list[Document]], dict[str, dict]]:
    """train, valid (other packages) and valid_iid (other files of the same packages), and what was left out by reason.

    train, package, valid: most bytes of the training text, of each of its packages, and of each validation split. The
    validation packages are read first: it is the training text that gives way where both have the same content.
    """
    reader, held = Reader(code), held_packages(files, named)
    apart = reader.read((file for file in files if file.package in held), valid, valid)
    rest = reader.read((file for file in files if file.package not in held), train, package)
    learnt, iid = hold_out(rest, valid)
    found = {"train": learnt, "valid": apart, "valid_iid": iid}
    left_out = {reason: dict(reader.left_out[reason]) for reason in sorted(reader.left_out)}
    return {name: documents for name, documents in found.items() if documents}, left_out
