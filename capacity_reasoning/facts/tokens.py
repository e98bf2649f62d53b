"""Tokenizers: the authors' byte-level BPE of 3000 tokens, trained here, and one token for every name, value and word.

Both come as `tokenizers.Tokenizer` with `<|endoftext|>` as 0 (begin, end and padding) and `<unk>` as 1.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.config import UserError
from common.plain import make_folder, write_atomic

END, UNKNOWN = "<|endoftext|>", "<unk>"
SPECIAL = [END, UNKNOWN]


def words_tokenizer(words: Iterable[str]):
    """A tokenizer whose tokens are the given words, in their order, each once; texts are split at spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {word: number for number, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def train_bpe(texts: Iterable[str], vocabulary: int):
    """A byte-level BPE of at most `vocabulary` tokens, min_frequency 2 (fewer where the texts have no more pairs)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Without it texts come back with the bytes' stand-ins, such as Ġ.
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=2, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def cached_bpe(texts: Iterator[str], law: dict, vocabulary: int, cache: str | Path):
    """`train_bpe` on texts that `law` (plain values) decides; kept under `cache` in a file named after both."""
    from tokenizers import Tokenizer

    digest = hashlib.sha256(json.dumps([law, vocabulary], sort_keys=True).encode()).hexdigest()[:16]
    path = Path(cache, f"bpe-{digest}.json")
    if not path.is_file():
        make_folder(path.parent)
        write_atomic(path, train_bpe(texts, vocabulary).to_str())
    return Tokenizer.from_file(str(path))


def load(place: str):
    """Tokenizer of a file or of a name on the hub, EleutherAI/llama_multihop_tokenizer say; UserError where there is none."""
    from tokenizers import Tokenizer

    if Path(place).is_dir() or place.endswith(".json") and not Path(place).is_file():
        raise UserError(
            f"found no file {place}, expected a tokenizer.json; mend: leave data.tokenizer_file out to train one"
        )
    try:
        tokenizer = Tokenizer.from_file(place) if Path(place).is_file() else Tokenizer.from_pretrained(place)
    except Exception as error:
        # Whatever tokenizers and the hub's client raise: they share no class.
        told = " ".join(str(error).split())[:120]
        raise UserError(
            f"found no tokenizer {place} ({type(error).__name__}: {told}), expected a tokenizer.json or a name on the hub; "
            "mend: leave data.tokenizer_file out to train one"
        ) from None
    if tokenizer.token_to_id(END) != 0:
        raise UserError(f"found a tokenizer {place} without {END} as token 0, expected one that begins texts with it")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
