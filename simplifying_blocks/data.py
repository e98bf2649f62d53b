"""The text that models learn: prepared once, cached, mapped into memory (paper section 4: Python code from GitHub).

    corpus = prepare(settings.data)                        # simplifying_blocks.prepare
    windows = corpus.windows("train", context=128, device=device, seed=0)
    ids = windows.draw(step, batch=16)                     # (16, 129)

The paper's corpus is on a hub. The default is what every machine has, the Python files installed on it: with other packages
the text differs, and so do losses a little; compare runs of one `digest`. Documents are joined, each ended by END, and windows
start anywhere; the authors cut each file into windows of its own, drop the rest, and see each window once.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch

from common.config import UserError
from common.limits import Count, Distinct, Name, Place, Positive, Range
from simplifying_blocks import tokens
from simplifying_blocks.tokens import LEAST_VOCABULARY, Windows

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"


@dataclass
class Data:
    """Where the text comes from, how much of it, and its tokens."""

    source: Literal["local", "files", "hub"] = "local"
    """local: the Python files of this interpreter's standard library and site-packages; files: a folder of text files;
    hub: the paper's CodeParrot, by `datasets`."""
    folder: Place | None = None
    """The folder of text files (source: files); what lies at its top, a file or a folder, counts as a package."""
    megabytes: Positive = 60.0
    """Most text to train on, in 10^6 bytes, held-out files included (local and files); 60 take half a minute of one core."""
    package_megabytes: Positive = 4.0
    """Most text of one package, so that the largest do not dominate (local)."""
    valid_megabytes: Positive = 1.0
    """Most text of each validation split (local and files); of valid_iid also 5% of the text."""
    valid_packages: Annotated[list[Name], Distinct()] = field(
        default_factory=lambda: ["networkx", "seaborn", "huggingface_hub", "joblib"]
    )
    """Packages of which nothing is trained on, for the split `valid`; where none is there, a few others by a fixed rule."""
    vocabulary: Annotated[int, Range(LEAST_VOCABULARY, 1_000_000)] = 4096
    """Tokens of the byte-level BPE, with 256 bytes and 2 special ones (local and files)."""
    tokenizer_megabytes: Positive = 10.0
    """Training text from which the BPE learns its merges, in 10^6 bytes (local and files)."""
    train_set: Place = "huggingface-course/codeparrot-ds-train"
    """Data set to train on, with a split train and a column content: a name on the hub, or a folder (hub)."""
    valid_set: Place = "huggingface-course/codeparrot-ds-valid"
    """Data set of the split valid_iid, with a split validation (hub)."""
    tokenizer: Place = "huggingface-course/code-search-net-tokenizer"
    """Tokenizer: a name on the hub, or a tokenizer.json (hub)."""
    train_files: Count = 200_000
    """Files to train on (hub); the paper's 40K steps of 128 windows of 128 tokens."""
    valid_files: Count = 2000
    """Files of valid_iid (hub)."""
    cache: Place = "runs/cache/simplifying_blocks"
    """Where prepared text is kept, a folder for each content."""

    def __post_init__(self):
        if self.folder is not None and self.source != "files":
            raise ValueError(
                f"data.folder is {self.folder}, and data.source {self.source} does not read it; expected --data.source files"
            )


@dataclass(frozen=True)
class Corpus:
    """Prepared text: the folder, and what its manifest says."""

    path: Path
    manifest: dict

    @property
    def digest(self) -> str:
        """Names the content: tokens of all splits and the tokenizer. Equal on machines with the same packages."""
        return self.manifest["digest"]

    @property
    def vocabulary(self) -> int:
        """Number of token ids, special ones included."""
        return self.manifest["vocabulary"]

    @property
    def end(self) -> int:
        """Id of the token after each document."""
        return self.manifest["end"]

    @property
    def mask(self) -> int:
        """Id that hides a token in masked language modelling."""
        return self.manifest["mask"]

    @property
    def splits(self) -> dict[str, dict]:
        """documents, bytes, tokens and sha256 of train, valid_iid and, but for the hub or a single package, valid."""
        return self.manifest["splits"]

    @cached_property
    def tokenizer(self):
        """The tokenizers.Tokenizer."""
        return tokens.load_bpe(self.path / TOKENIZER)

    def encode(self, string: str) -> list[int]:
        """Ids of a text, without END."""
        return self.tokenizer.encode(string, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids; special tokens show as they are written."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def tokens(self, split: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """All tokens of a split (N,), copied to the device; see tokens.on_device."""
        return tokens.on_device(self.path / f"{split}.bin", self.vocabulary, device)

    def windows(self, split: str, context: int, device: torch.device | str = "cpu", seed: int = 0) -> Windows:
        """Windows of a split on the device; raises UserError where it is shorter than one."""
        return Windows(self.tokens(split, device), context, seed, f"data/{split}")

    def bytes_per_token(self, split: str) -> float:
        """Bytes (UTF-8) of the text over its tokens, the ends of documents counted among the tokens."""
        return self.splits[split]["bytes"] / self.splits[split]["tokens"]

    def bits_per_byte(self, nats: float, split: str) -> float:
        """Bits per byte of a loss in nats per token: runs with other tokenizers compare."""
        return nats / math.log(2) / self.bytes_per_token(split)

    def require(self, digest: str) -> None:
        """Raises UserError where this is not the text named `digest`, such as that of a run to resume or to read."""
        if digest != self.digest:
            raise UserError(
                f"found text {self.digest[:12]} in {self.path}, expected {digest[:12]} as in the run: other packages, files or "
                "tokens since; start another run, or bring back what was installed"
            )
