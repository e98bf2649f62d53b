"""Text: found, filtered, split, turned into tokens, cached, drawn in windows."""

import json
import math
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.config import UserError, parse
from simplifying_blocks import corpus as text
from simplifying_blocks import filters, tokens
from simplifying_blocks import prepare as building
from simplifying_blocks.data import Data
from simplifying_blocks.prepare import prepare
from simplifying_blocks.tokens import IGNORED, Windows, masked

VOCABULARY = 300


def words(seed: int, lines: int) -> str:
    source = random.Random(seed)
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "norm", "skip", "value", "query"]
    return "\n".join(f"{source.choice(names)} = {source.choice(names)} + {source.random():.6f}" for _ in range(lines))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test asks a hub, not even one whose error would be caught."""
    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    yield
    assert not asked


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Six packages of five files each."""
    root = tmp_path_factory.mktemp("texts")
    for package in range(6):
        (root / f"package{package}").mkdir()
        for file in range(5):
            (root / f"package{package}" / f"{file}.txt").write_text(words(10 * package + file, 40 + 10 * package))
    return root


@pytest.fixture(scope="session")
def corpus(folder, tmp_path_factory):
    return prepare(settings(folder, tmp_path_factory.mktemp("cache")))


def settings(folder: Path, cache: Path, **change) -> Data:
    return Data(source="files", folder=str(folder), cache=str(cache), **({"vocabulary": VOCABULARY} | change))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def file(name: str, size: int = 100) -> text.File:
    return text.File(name.split("/")[0], name, name, size, 0)


def split_text(corpus, split: str) -> list[str]:
    ids = (corpus.tokens(split).long() & 0xFFFF).tolist()
    joined = corpus.decode(ids)
    assert joined.endswith(tokens.END)
    return joined.split(tokens.END)[:-1]


def test_any_text_goes_round(corpus):
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)]))
    random_bytes = random.Random(0).randbytes(4000)
    for string in ("", every, random_bytes.decode("latin-1"), random_bytes.decode("utf-8", "replace"), "\r\n\t  x  \n"):
        ids = corpus.encode(string)
        assert corpus.decode(ids) == string
        assert all(id < corpus.vocabulary for id in ids)


def test_a_special_token_written_in_a_text_is_text(corpus):
    string = f"a {tokens.END} b {tokens.MASK}"
    ids = corpus.encode(string)
    assert corpus.decode(ids) == string
    assert not {corpus.end, corpus.mask} & set(ids)


def test_splits_hold_every_document_once_and_no_package_is_on_both_sides(corpus, folder):
    owner = {path.read_text(): path.parent.name for path in folder.rglob("*.txt")}
    found = {split: split_text(corpus, split) for split in corpus.splits}
    assert sorted(sum(found.values(), [])) == sorted(owner)
    packages = {split: {owner[document] for document in documents} for split, documents in found.items()}
    assert set(packages) == {"train", "valid", "valid_iid"}
    assert not packages["valid"] & (packages["train"] | packages["valid_iid"])
    assert packages["valid_iid"] <= packages["train"]


def test_manifest_counts(corpus):
    for split, told in corpus.splits.items():
        documents = split_text(corpus, split)
        assert told["documents"] == len(documents)
        assert told["bytes"] == sum(len(document.encode()) for document in documents)
        assert told["tokens"] == len(corpus.tokens(split)) == sum(len(corpus.encode(d)) + 1 for d in documents)
    bytes_told = sum(own[split]["bytes"] for own in corpus.manifest["packages"].values() for split in own if own[split])
    assert bytes_told == sum(told["bytes"] for told in corpus.splits.values())


def test_local_text_is_python_of_this_interpreter(tmp_path):
    small = {"megabytes": 0.8, "valid_megabytes": 0.2, "package_megabytes": 0.2, "vocabulary": 512}
    corpus = prepare(Data(cache=str(tmp_path), **small))
    sides = {name: set(own) - {"version"} for name, own in corpus.manifest["packages"].items()}
    assert any("train" in side for side in sides.values()) and any("valid" in side for side in sides.values())
    assert not any({"train", "valid"} <= side for side in sides.values())
    assert all(own["train"]["bytes"] < 1.2e6 for own in corpus.manifest["packages"].values() if "train" in own)
    assert 0.7e6 < corpus.splits["train"]["bytes"] + corpus.splits["valid_iid"]["bytes"] < 1.8e6
    assert "def " in corpus.decode(corpus.windows("train", 4000).at(torch.zeros(1, dtype=torch.long))[0].tolist())


def test_fewer_megabytes_give_the_beginning(folder):
    files = text.in_folder(str(folder))
    long, short = (text.Reader(code=False).read(files, most, math.inf) for most in (math.inf, 10_000))
    assert 10_000 <= sum(document.size for document in short) < 10_000 + max(document.size for document in long)
    assert short == long[: len(short)]
    each = text.Reader(code=False).read(files, math.inf, 2000)
    largest = max(document.size for document in long)
    for package in {document.package for document in long}:
        assert 2000 <= sum(d.size for d in each if d.package == package) < 2000 + largest


def test_copies_are_left_out():
    seen, first = filters.Seen(), words(0, 400)
    lines = first.split("\n")
    assert seen.repeats(first) is None
    assert seen.repeats("\r\n".join(line + "  " for line in lines)) == "same content"
    assert seen.repeats("\n".join(lines[:300] + words(1, 100).split("\n"))) == "half its lines known"
    assert seen.repeats("\n".join(lines[:100] + words(2, 300).split("\n"))) is None
    assert seen.repeats("x = 1\n") is None


def test_a_copy_across_the_split_is_trained_on_by_nobody(tmp_path):
    for name in ("held", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "copy.txt").write_text(words(0, 60))
        for number in range(5):
            (tmp_path / name / f"{number}.txt").write_text(words(len(name) * 100 + number, 60))
    documents, left_out = text.splits(text.in_folder(str(tmp_path)), ["held"], False, 1e6, 1e6, 1e6)
    assert words(0, 60) in [document.text for document in documents["valid"]]
    assert words(0, 60) not in [d.text for split in ("train", "valid_iid") for d in documents[split]]
    assert left_out["same content"]["files"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("x = 1\n", "short"),
        ("value = 1\n" * 110_000, "long"),
        ("value = 1\n" * 100 + "x" * 1001, "long lines"),
        (("y" * 101 + "\n") * 10, "long lines"),
        ("[[(--)]], \n" * 100, "few letters"),
        ("value = 1\n" * 100, None),
    ],
)
def test_filters_of_code(content, reason):
    assert filters.refused(content) == reason


def test_licences_go_and_other_comments_stay():
    code = "import os\n# Licence is a word\n"
    assert filters.without_licence(f"#!/bin/python\n# Copyright someone\n#\n\n{code}") == code
    assert filters.without_licence(f"# What this does\n{code}") == f"# What this does\n{code}"
    assert filters.without_licence("# MIT license") == ""


def test_walk_skips_hidden_and_vendored(tmp_path):
    for name in ("a/x.py", "a/_vendor/y.py", "a/.z.py", "__pycache__/w.py", ".git/v.py", "u.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [name for name, _ in text._walk(tmp_path, ".py")] == ["a/x.py"]


def test_packages_held_for_validation():
    files = [file(f"p{number}/x") for number in range(40)] + [file("large/x", 10_000)]
    assert text.held_packages(files, ["p3", "absent"]) == {"p3"}
    held = text.held_packages(files, [])
    assert held == text.held_packages(files[::-1], []) and "large" not in held
    assert 0.02 * 14_000 <= 100 * len(held) <= 0.02 * 14_000 + 100
    assert text.held_packages([file("a/x", 90), file("b/x", 80)], []) == {"b"}
    assert text.held_packages([file("a/x"), file("a/y")], []) == set()


def test_a_distribution_owns_its_modules(tmp_path):
    for name, modules in {"one_a": ["one", "shared"], "two": ["shared", "_two.py"]}.items():
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1\n")
        (info / "RECORD").write_text(
            "".join(f"{m if '.' in m else m + '/x.py'},,\n" for m in modules) + "../bin/z.py,,\n"
        )
    owners = text.distributions(tmp_path)
    assert (owners["one"], owners["_two"]) == ("one_a", "two") and "shared" not in owners


def test_a_single_long_file_is_cut_and_split(tmp_path):
    (tmp_path / "book.txt").write_text(words(0, 4000))
    corpus = prepare(settings(tmp_path, tmp_path / "cache" / ".x"))
    assert set(corpus.splits) == {"train", "valid_iid"}
    assert "".join(sorted(filters.pieces(words(0, 4000)))) == "".join(
        sorted(split_text(corpus, "train") + split_text(corpus, "valid_iid"))
    )


def test_two_builds_give_the_same_bytes(folder, corpus, tmp_path):
    again = prepare(settings(folder, tmp_path))
    assert contents(again.path) == contents(corpus.path)
    assert again.path.name == corpus.path.name and again.digest == corpus.digest


def test_what_decides_the_content_names_the_folder(folder, corpus, tmp_path):
    names = {corpus.path.name}
    for change in ({"vocabulary": 310}, {"megabytes": 0.02}, {"valid_packages": ["package2"]}):
        names.add(prepare(settings(folder, tmp_path, **change)).path.name)
    assert len(names) == 4
    stamp = [file("a/x"), file("a/y")]
    keys = {building._key(Data(), files) for files in (stamp, stamp[::-1], [stamp[0], stamp[1]._replace(changed=1)])}
    assert len(keys) == 2


@pytest.mark.parametrize(("module", "name"), [(tokens, "train_bpe"), (building, "os")])
def test_a_killed_build_leaves_nothing_that_is_used(folder, corpus, tmp_path, module, name):
    """Killed with some of the files written, and with all, before the folder has its name."""

    def killed(*_):
        work = next(tmp_path.glob(".*.building"))
        (work / "train.bin").write_bytes(b"partial")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        setattr(module, name, SimpleNamespace(replace=killed) if name == "os" else killed)
        try:
            prepare(settings(folder, tmp_path))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert list(tmp_path.glob(".*.building")) and not list(tmp_path.glob("files-*"))
    assert contents(prepare(settings(folder, tmp_path)).path) == contents(corpus.path)
    assert not list(tmp_path.glob(".*.building"))


@pytest.mark.parametrize("name", ["train.bin", "manifest.json", "tokenizer.json"])
def test_a_damaged_cache_is_built_again(folder, corpus, tmp_path, name):
    path = prepare(settings(folder, tmp_path)).path
    os.truncate(path / name, 10)
    assert contents(prepare(settings(folder, tmp_path)).path) == contents(corpus.path)


def test_a_whole_cache_is_read_by_all_and_built_by_one(folder, tmp_path, monkeypatch):
    built, build = [], building._build
    monkeypatch.setattr(building, "_build", lambda *given: (built.append(1), build(*given)))
    threads = [threading.Thread(target=prepare, args=(settings(folder, tmp_path),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


@pytest.mark.parametrize("length", [6, 7, 20])
def test_windows_never_cross_the_end(length):
    windows = Windows(torch.arange(length, dtype=torch.int16), context=5)
    drawn = windows.draw(0, 500)
    assert drawn.shape == (500, 6) and drawn.dtype == torch.int64
    assert torch.equal(drawn - drawn[:, :1], torch.arange(6).expand(500, 6))
    assert set(drawn[:, 0].tolist()) == set(range(length - 5))


def test_windows_in_order_predict_each_token_once():
    windows = Windows(torch.arange(24, dtype=torch.int32), context=5)
    batches = list(windows.in_order(3))
    assert [len(batch) for batch in batches] == [3, 1] and len(windows) == 4
    assert torch.cat([batch[:, 1:].flatten() for batch in batches]).tolist() == list(range(1, 21))


def test_some_windows_are_spread_over_the_split():
    windows = Windows(torch.arange(104, dtype=torch.int32), context=5)
    assert len(windows) == 20
    starts = torch.cat([batch[:, 0] for batch in windows.in_order(3, most=4)]).tolist()
    assert starts == [0, 25, 50, 75]
    assert torch.cat([batch[:, 0] for batch in windows.in_order(7, most=50)]).tolist() == list(range(0, 100, 5))


def test_a_folder_that_nobody_reads_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected --data.source files"):
        Data(folder=str(tmp_path))


def test_a_batch_depends_on_seed_and_step_only(corpus):
    windows = corpus.windows("train", 16, seed=1)
    first, other = windows.draw(7, 8), windows.draw(8, 8)
    assert torch.equal(corpus.windows("train", 16, seed=1).draw(7, 8), first)
    assert not torch.equal(first, other)
    assert not torch.equal(corpus.windows("train", 16, seed=2).draw(7, 8), first)


@pytest.mark.parametrize("vocabulary", [1 << 16, (1 << 16) + 1])
def test_large_ids_survive_the_file(tmp_path, vocabulary):
    class Ids(list):
        ids = property(list)

    class Coder:
        def encode_batch_fast(self, batch, add_special_tokens):
            return [Ids([vocabulary - 1, 0, 40_000]) for _ in batch]

    class Quiet:
        def update(self, done):
            pass

    told = tokens.write(tmp_path / "x.bin", Coder(), ["a", "é"], vocabulary, 5, Quiet())
    stored = tokens.on_device(tmp_path / "x.bin", vocabulary)
    assert stored.element_size() == (2 if vocabulary == 1 << 16 else 4)
    assert Windows(stored, 7).draw(0, 1).tolist() == [[vocabulary - 1, 0, 40_000, 5] * 2]
    assert (told["documents"], told["bytes"], told["tokens"]) == (2, 3, 8)


def test_masked_language_modelling_rates():
    stream, ids = torch.Generator().manual_seed(0), torch.randint(2, 1000, (400, 500), generator=torch.Generator())
    inputs, targets = masked(ids, 1000, 1, stream)
    chosen = targets != IGNORED
    assert torch.equal(targets[chosen], ids[chosen]) and torch.equal(inputs[~chosen], ids[~chosen])
    hidden, same = inputs[chosen] == 1, inputs[chosen] == ids[chosen]
    rates = [chosen.double().mean(), hidden.double().mean(), same.double().mean()]
    for rate, expected, number in zip(rates, (0.15, 0.8, 0.1), (chosen.numel(), len(hidden), len(hidden)), strict=True):
        # 0.001 of the drawn tokens is the very one, or the mask.
        assert abs(float(rate) - expected) < 5 * math.sqrt(expected * (1 - expected) / number) + 2e-4
    drawn = inputs[chosen][~hidden & ~same]
    assert 0 <= drawn.min() < 30 and 970 < drawn.max() < 1000


def test_bits_per_byte(corpus):
    """A uniform guess costs log2 V a token: the bits of all tokens over all bytes."""
    told = corpus.splits["valid_iid"]
    expected = told["tokens"] * math.log2(VOCABULARY) / told["bytes"]
    assert corpus.bits_per_byte(math.log(VOCABULARY), "valid_iid") == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Data:
    """CodeParrot's format in a folder, with a tokenizer of the kind that it has; no network."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    for split, number in {"train": 20, "validation": 6}.items():
        rows = [
            {"repo_name": "a/b", "path": f"{k}.py", "content": words(k + 50 * (split == "train"), 9)}
            for k in range(number)
        ]
        (tmp_path / split).mkdir()
        (tmp_path / split / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokens.train_bpe([words(0, 300)], VOCABULARY).save(str(tmp_path / "tokenizer.json"))
    change = {"train_set": str(tmp_path / "train"), "valid_set": str(tmp_path / "validation"), "train_files": 15}
    return Data(
        "hub", tokenizer=str(tmp_path / "tokenizer.json"), valid_files=4, cache=str(tmp_path / "cache"), **change
    )


def test_hub_path_on_a_local_data_set(hub):
    corpus = prepare(hub)
    assert {split: told["documents"] for split, told in corpus.splits.items()} == {"train": 15, "valid_iid": 4}
    assert set(split_text(corpus, "train")) < {words(k + 50, 9) for k in range(20)}
    assert set(split_text(corpus, "valid_iid")) < {words(k, 9) for k in range(6)}
    assert (corpus.vocabulary, corpus.end, corpus.mask) == (VOCABULARY, 0, 1)


def test_a_tokenizer_without_a_mask_gets_one_id_more(hub):
    path = Path(hub.tokenizer)
    path.write_text(path.read_text().replace(tokens.MASK, "<other>"))
    corpus = prepare(hub)
    assert (corpus.vocabulary, corpus.mask) == (VOCABULARY + 1, VOCABULARY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_set": "{place}/nowhere"}, "found no split train with a column content in .*--data.source local"),
        ({"valid_set": "{place}/train"}, "found no split validation"),
        ({"tokenizer": "{place}/nothing.json"}, "found no tokenizer in"),
    ],
)
def test_hub_mistakes(hub, tmp_path, change, message):
    for name, value in change.items():
        setattr(hub, name, value.format(place=tmp_path))
    refuse(hub, message)
    assert not list(Path(hub.cache).glob("hub-*"))


def refuse(data: Data, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        prepare(data)
    assert "\n" not in str(error.value)


def test_folder_mistakes(tmp_path):
    refuse(Data("files", cache=str(tmp_path / "cache")), "found no folder given, expected text files.*--data.folder")
    refuse(settings(tmp_path / "none", tmp_path / "cache"), "found no folder .*none")
    (tmp_path / "texts").mkdir()
    refuse(settings(tmp_path / "texts", tmp_path / "cache"), "found no file in")
    (tmp_path / "texts" / "a.bin").write_bytes(b"\xff\xfe\x00")
    refuse(settings(tmp_path / "texts", tmp_path / "cache"), "found no text for .* in 1 files.*1 not UTF-8")
    assert not list((tmp_path / "cache").glob("files-*"))


def test_too_little_text(folder, corpus, tmp_path):
    refuse(
        settings(folder, tmp_path, vocabulary=100_000), r"found text for \d+ tokens, expected data.vocabulary 100000"
    )
    with pytest.raises(UserError, match="found .* tokens of text, expected at least context . 1 = 100001"):
        corpus.windows("train", 100_000)


def test_settings_are_checked(folder):
    with pytest.raises(UserError, match="vocabulary: found 257, expected int from 258"):
        parse(Data, ["--vocabulary", "257"])


@pytest.mark.parametrize(("name", "source"), [("tokenizers", "files"), ("datasets", "hub")])
def test_a_missing_package(hub, folder, tmp_path, monkeypatch, name, source):
    monkeypatch.setitem(sys.modules, name, None)
    data = hub if source == "hub" else settings(folder, tmp_path / "other")
    refuse(data, f"found no package {name}.*pip install {name}")
    assert not list(Path(data.cache).glob(f"{source}-*"))


def test_another_text_than_the_run_had(corpus):
    corpus.require(corpus.digest)
    with pytest.raises(UserError, match="expected 000000000000 as in the run"):
        corpus.require("0" * 64)
