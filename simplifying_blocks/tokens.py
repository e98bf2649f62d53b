"""Tokens: a byte-level BPE, a file of tokens that is mapped into memory, and windows of it drawn on the device."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from common.config import UserError
from common.device import generator
from simplifying_blocks.losses import IGNORED

END, MASK = "<|endoftext|>", "<|mask|>"
SPECIAL = [END, MASK]
LEAST_VOCABULARY = 256 + len(SPECIAL)
BATCH_CHARACTERS = 1_000_000


def package(name: str):
    """The module `name`; raises UserError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"found no package {name}, expected it to prepare the text; mend: pip install {name}") from None


def train_bpe(texts: Iterable[str], vocabulary: int):
    """A byte-level BPE (every text has tokens) of `vocabulary` entries: 2 special ones, 256 bytes, and merges.

    Raises UserError where the text has too few merges.
    """
    tokenizers = package("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if (found := tokenizer.get_vocab_size()) < vocabulary:
        raise UserError(
            f"found text for {found} tokens, expected data.vocabulary {vocabulary}; "
            f"mend with more text, or --data.vocabulary {found}"
        )
    return tokenizer


def load_bpe(path: Path):
    """Tokenizer saved at `path`, which reads "<|endoftext|>" inside a text as text."""
    tokenizer = package("tokenizers").Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def kind(vocabulary: int) -> type:
    """The smallest unsigned integer of a file of tokens."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


def batched(texts: Iterable[str], characters: int = BATCH_CHARACTERS) -> Iterator[list[str]]:
    """Texts in lists of about so many characters."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write(path: Path, tokenizer, texts: Iterable[str], vocabulary: int, end: int, progress, done: int = 0) -> dict:
    """Write the tokens of all texts, `end` after each, and tell documents, bytes (UTF-8), tokens and sha256 of the file.

    progress: a common.progress.Progress that counts documents, of which `done` were there before.
    """
    told, digest = {"documents": 0, "bytes": 0, "tokens": 0}, hashlib.sha256()
    with open(path, "wb") as file:
        for batch in batched(texts):
            encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids = itertools.chain.from_iterable(itertools.chain(text.ids, (end,)) for text in encoded)
            tokens = np.fromiter(ids, kind(vocabulary))
            file.write(tokens.data)
            digest.update(tokens.data)
            told["documents"] += len(batch)
            told["bytes"] += sum(len(text.encode()) for text in batch)
            told["tokens"] += len(tokens)
            progress.update(done + told["documents"])
        file.flush()
        os.fsync(file.fileno())
    return told | {"sha256": digest.hexdigest()}


def on_device(path: Path, vocabulary: int, device: torch.device | str = "cpu") -> Tensor:
    """The file's tokens (N,) as int16 or int32 with the bits of uint16 or uint32: copied to the device once.

    On the CPU they stay the file, mapped: processes share its memory. `Windows` gives them as int64.
    """
    mapped = np.memmap(path, kind(vocabulary), mode="c")
    return torch.from_numpy(mapped.view(f"i{mapped.itemsize}")).to(device)


class Windows:
    """Windows of context + 1 tokens of one split: context inputs, and as many targets, one further on."""

    def __init__(self, tokens: Tensor, context: int, seed: int = 0, name: str = "data"):
        """tokens: (N,) of `on_device`. `seed` and `name` choose the random stream.

        Raises UserError where there is not one window.
        """
        if len(tokens) <= context:
            raise UserError(
                f"found {len(tokens)} tokens of text, expected at least context + 1 = {context + 1}; mend with more text "
                "(data.megabytes, data.valid_megabytes, or what data.folder holds) or a shorter context"
            )
        self.tokens, self.context, self.seed, self.name = tokens, context, seed, name
        self.bits = (1 << 8 * tokens.element_size()) - 1
        self.offsets = torch.arange(context + 1, device=tokens.device)

    def __len__(self) -> int:
        """Windows in order, each of which predicts `context` tokens that no other one does."""
        return (len(self.tokens) - 1) // self.context

    def at(self, starts: Tensor) -> Tensor:
        """The windows (b, context + 1), int64, that begin at `starts` (b,)."""
        return self.tokens[starts[:, None] + self.offsets].long() & self.bits

    def draw(self, step: int, batch: int) -> Tensor:
        """`batch` windows of a step, (batch, context + 1) int64, starting anywhere, drawn with replacement.

        They depend on seed, step and kind of device only: a resume needs no state. Nothing waits for the device.
        """
        stream = generator(self.tokens.device, self.seed, f"{self.name}/{step}")
        ends = len(self.tokens) - self.context
        return self.at(torch.randint(ends, (batch,), generator=stream, device=self.tokens.device))

    def in_order(self, batch: int, most: int | None = None) -> Iterator[Tensor]:
        """All windows in order, or `most` of them spread evenly over the split, so that no single file decides.

        `batch` at a time: (b, context + 1), the last batch maybe smaller.
        """
        count = min(len(self), len(self) if most is None else most)
        for first in range(0, count, batch):
            numbers = torch.arange(first, min(first + batch, count), device=self.tokens.device)
            yield self.at(numbers * len(self) // count * self.context)


def masked(ids: Tensor, vocabulary: int, mask: int, stream: Generator, share: float = 0.15) -> tuple[Tensor, Tensor]:
    """Inputs and targets, both (B, T), of masked language modelling on ids (B, T): what BERT does (Devlin et al. 2019, 3.1).

    A token is chosen with probability `share`; of the chosen, 80% become `mask`, 10% a token drawn uniformly from the
    vocabulary, 10% stay. Targets are the chosen tokens, and IGNORED elsewhere. stream: on the device of ids.
    """
    chosen, what = torch.rand((2, *ids.shape), generator=stream, device=ids.device)
    anything = torch.randint(vocabulary, ids.shape, generator=stream, device=ids.device)
    shown = torch.where(what < 0.8, mask, torch.where(what < 0.9, anything, ids))
    chosen = chosen < share
    return torch.where(chosen, shown, ids), torch.where(chosen, ids, IGNORED)
