"""From settings to a cached corpus: find, filter and split the text, train the tokenizer, write the tokens.

Every step is deterministic: two builds give the same bytes. The cache folder is named after all that decides them.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from common.config import UserError
from common.plain import make_folder, write_json
from common.progress import Progress
from simplifying_blocks import corpus as text
from simplifying_blocks import tokens
from simplifying_blocks.data import MANIFEST, TOKENIZER, Corpus, Data

FORMAT = 1
"""Counted up when the same settings and files give other content."""
SHUFFLED = 10_000
"""Files of a streamed data set held in memory to shuffle them."""
ANOTHER_SOURCE = "mend with a network and the right name, or --data.source local"


def prepare(data: Data) -> Corpus:
    """The corpus of the settings: from the cache where it is whole, else built there, while others that need it wait.

    Raises UserError for what a person can mend: no folder, no text, too little, no package, no hub.
    """
    files = {"local": text.installed, "files": lambda: text.in_folder(data.folder), "hub": list}[data.source]()
    path = Path(data.cache, f"{data.source}-{_key(data, files)}")
    if not _whole(path):
        with _alone(path):
            if not _whole(path):
                _build(path, data, files)
    return Corpus(path, json.loads((path / MANIFEST).read_text()))


def _key(data: Data, files: list[text.File]) -> str:
    """Digest of all that decides the content: settings, files by name, size and date, and the tokenizer's version.

    What stands behind a name on the hub is not known without asking it, and nobody is asked for what is cached.
    """
    decides = {name: value for name, value in asdict(data).items() if name != "cache"}
    found = sorted((file.name, file.size, file.changed) for file in files)
    law = [FORMAT, decides, found, text.version("tokenizers")]
    return hashlib.sha256(json.dumps(law, sort_keys=True).encode()).hexdigest()[:16]


def _whole(path: Path) -> bool:
    """Whether the folder holds a manifest, and files of the sizes that it tells."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        return all((path / name).stat().st_size == size for name, size in manifest["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes out while one builds; the lock goes with the process, however that ends."""
    make_folder(path.parent)
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"found no locks on the file system of {path.parent} ({error.strerror}), expected them where text is "
                "prepared; mend with --data.cache FOLDER on another disk"
            ) from None
        yield


def _build(path: Path, data: Data, files: list[text.File]) -> None:
    """Make the folder under another name, and rename it once all is on the disk: it is there whole or not at all.

    What a killed build left goes first: whoever has the lock is alone.
    """
    work = path.with_name(f".{path.name}.building")
    for stale in (work, path):
        shutil.rmtree(stale, ignore_errors=True)
    make_folder(work)
    try:
        manifest = _from_hub(work, data) if data.source == "hub" else _from_files(work, data, files)
        contents = [manifest["splits"][split]["sha256"] for split in manifest["splits"]]
        contents.append(hashlib.sha256((work / TOKENIZER).read_bytes()).hexdigest())
        manifest["digest"] = hashlib.sha256(" ".join(contents).encode()).hexdigest()
        manifest["sizes"] = {file.name: file.stat().st_size for file in sorted(work.iterdir())}
        write_json(work / MANIFEST, manifest)
        os.replace(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _from_files(work: Path, data: Data, files: list[text.File]) -> dict:
    """Write what the files of this machine, or of the folder, give; the manifest."""
    caps = {"train": data.megabytes, "valid": data.valid_megabytes}
    caps["package"] = data.package_megabytes if data.source == "local" else data.megabytes
    code = data.source == "local"
    documents, left_out = text.splits(
        files, data.valid_packages, code, **{name: cap * 1e6 for name, cap in caps.items()}
    )
    if missing := {"train", "valid_iid"} - set(documents):
        raise UserError(
            f"found no text for {min(missing)} in {len(files)} files (left out: {_told(left_out)}), expected two texts at "
            "least; mend with more files, more --data.megabytes or fewer --data.valid_packages"
        )
    parts = {split: [document.text for document in documents[split]] for split in documents}
    tokens.train_bpe(_first(parts["train"], data.tokenizer_megabytes * 1e6), data.vocabulary).save(
        str(work / TOKENIZER)
    )
    ids = {"vocabulary": data.vocabulary, "end": 0, "mask": 1}
    told = _write(work, parts, sum(map(len, parts.values())), ids)
    return _head(data) | ids | {"splits": told, "packages": _packages(documents), "left_out": left_out}


def _head(data: Data) -> dict:
    versions = {"python": platform.python_version(), "tokenizers": text.version("tokenizers")}
    return {"settings": {name: value for name, value in asdict(data).items() if name != "cache"}, "versions": versions}


def _first(texts: Iterable[str], characters: float) -> Iterator[str]:
    """Texts from the first on, about so many characters."""
    for string in texts:
        if characters <= 0:
            return
        characters -= len(string)
        yield string


def _write(work: Path, parts: dict[str, Iterable[str]], total: int, ids: dict) -> dict[str, dict]:
    """Write the tokens of every split and tell of each; total: texts of all, for the progress."""
    tokenizer, progress, told = tokens.load_bpe(work / TOKENIZER), Progress(total, "file"), {}
    for split, texts in parts.items():
        done = sum(split["documents"] for split in told.values())
        path = work / f"{split}.bin"
        told[split] = tokens.write(path, tokenizer, texts, ids["vocabulary"], ids["end"], progress, done)
    progress.close()
    return told


def _packages(documents: dict[str, list[text.Document]]) -> dict[str, dict]:
    """By package: its version if pip knows one, and documents and bytes in each split."""
    packages = {}
    for split, members in documents.items():
        for document in members:
            own = packages.setdefault(document.package, {})
            own.setdefault(split, Counter()).update(documents=1, bytes=document.size)
    return {name: {"version": text.version(name), **packages[name]} for name in sorted(packages)}


def _told(left_out: dict[str, dict]) -> str:
    return ", ".join(f"{count['files']} {reason}" for reason, count in left_out.items()) or "none"


def _from_hub(work: Path, data: Data) -> dict:
    """Write the paper's data, streamed, with its tokenizer; the manifest. The mask is the tokenizer's or one id more."""
    tokenizer = _hub_tokenizer(data.tokenizer)
    tokenizer.save(str(work / TOKENIZER))
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id(tokens.END)
    if end is None:
        raise UserError(
            f"found no {tokens.END} in {data.tokenizer}, expected it to end texts; mend: --data.tokenizer NAME"
        )
    mask = next(
        (size for size in map(tokenizer.token_to_id, (tokens.MASK, "<mask>", "[MASK]")) if size is not None), size
    )
    ids = {"vocabulary": max(size, mask + 1), "end": end, "mask": mask}
    parts = {
        "train": _stream(data.train_set, "train", data.train_files),
        "valid_iid": _stream(data.valid_set, "validation", data.valid_files),
    }
    return _head(data) | ids | {"splits": _write(work, parts, data.train_files + data.valid_files, ids)}


def _hub_tokenizer(name: str):
    """Tokenizer of a file or of a name on the hub, which neither cuts nor pads; raises UserError where there is none."""
    Tokenizer = tokens.package("tokenizers").Tokenizer
    try:
        tokenizer = Tokenizer.from_file(name) if Path(name).is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:
        # Whatever tokenizers and the hub's client raise: they share no class.
        raise _no_answer("tokenizer", name, error) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _stream(name: str, split: str, most: int) -> Iterator[str]:
    """The column content of a data set's split, shuffled, at most so many rows; raises UserError where there is none."""
    datasets = tokens.package("datasets")
    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
        for row in rows.shuffle(seed=0, buffer_size=SHUFFLED).take(most):
            yield row["content"]
    except Exception as error:
        # What a hub, a network or a file format can raise has no class in common.
        raise _no_answer(f"split {split} with a column content", name, error) from None


def _no_answer(what: str, name: str, error: Exception) -> UserError:
    told = " ".join(str(error).split())[:120]
    return UserError(f"found no {what} in {name} ({type(error).__name__}: {told}), expected one; {ANOTHER_SOURCE}")
