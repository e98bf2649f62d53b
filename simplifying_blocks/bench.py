"""The step of train.py, shaped attention, looks at held-out text and tokens, beside other ways, in turn in one run.

    python simplifying_blocks/bench.py          prints a table, writes results/simplifying_blocks/bench.json

Steps learn from uniform tokens, on which they take as long as on text. A ratio above 1 is better; a budget or a share asked
for stands as the other side. On a GPU come rows at the paper's sizes, in bf16 and compiled.
"""

import common.process  # noqa: F401

import itertools
import os
import statistics
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common import bench, config
from common.device import describe, generator, setup
from common.limits import Count, Device, Place, Threads
from common.team import team_of
from simplifying_blocks import corpus, objective, tokens, train
from simplifying_blocks.attention import running_mean, running_sum, shape, softmax_attention
from simplifying_blocks.data import Data
from simplifying_blocks.estimators.flops import forward_flops
from simplifying_blocks.probe import probe
from simplifying_blocks.recipe import BlockName, Model
from simplifying_blocks.tokens import Windows
from simplifying_blocks.train import Config, Train

HERE = Path(__file__).parent
MODEST = Config(
    data=Data(vocabulary=4096), model=Model(layers=8, d=256, heads=8), train=Train(batch=8, context=128, compile="off")
)
LARGE = Config(
    precision="bf16",
    data=Data(vocabulary=16_384),
    model=Model(layers=18, d=768, heads=12),
    train=Train(batch=128, context=128, compile="on"),
)
TABLE_1 = {"parallel": 1.05, "vskipinit": 0.95, "sas": 1.09, "sas_p": 1.16, "sas_p_nonorm": 1.20}
"""Training speed over that of Pre-LN (He & Hofmann Table 1)."""
Call = Callable[[], object]


@dataclass
class Bench:
    threads: Threads = 1
    """CPU threads of both sides."""
    rounds: Count = 7
    """Timed rounds of each pair; costly ones have fewer."""
    device: Device = "auto"
    """auto, cpu or cuda."""
    out: Place = "results/simplifying_blocks/bench.json"
    """Where the rows go."""


class UniformText:
    """Stands where steps and tests read a Corpus: `length` uniform tokens in every split."""

    mask = 1

    def __init__(self, vocabulary: int, length: int = 1 << 18):
        """vocabulary: at most 2^15."""
        self.vocabulary, self.length = vocabulary, length

    def windows(self, split: str, context: int, device: torch.device | str = "cpu", seed: int = 0) -> Windows:
        ids = torch.randint(self.vocabulary, (self.length,), generator=generator("cpu", seed, split))
        return Windows(ids.to(device, torch.int16), context, seed, split)


# Steps


def our_step(settings: Config, device: torch.device) -> Callable[[], Tensor]:
    """The step of train.py; each call is the next one."""
    team = team_of(device)
    learner = train.learner_of(settings, UniformText(settings.data.vocabulary), 0, device, team)
    count = itertools.count(1)
    return lambda: train.step(settings, learner, team, next(count))


def gpt2(settings: Config) -> nn.Module:
    """GPT-2 of transformers in the sizes of the settings: tied, no dropout, relu, fused attention.

    Beside a Pre-LN model it has, per block, 7 d more biases (values 1, projection 1, MLP 5) and 2 d of its LayerNorms'.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    model = settings.model
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=settings.data.vocabulary, n_positions=settings.train.context, n_embd=model.d,
            n_layer=model.layers, n_head=model.heads, n_inner=model.mlp_ratio * model.d, activation_function="relu",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0,
            attn_implementation="sdpa",
        )
    )  # fmt: skip
    # What it takes anyway, after a warning.
    theirs.loss_type = "ForCausalLM"
    return theirs


def gpt2_step(settings: Config, device: torch.device) -> Callable[[], Tensor]:
    """A step as usually written with transformers: its own loss, fused AdamW, the same clipping and batches."""
    c, model = settings.train, gpt2(settings).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), c.lr, (c.beta1, c.beta2), c.eps, weight_decay=c.weight_decay, fused=True
    )
    windows = UniformText(settings.data.vocabulary).windows("train", c.context, device)
    count = itertools.count(1)

    def step() -> Tensor:
        ids = windows.draw(next(count), c.batch)[:, :-1]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        optimizer.step()
        optimizer.zero_grad()
        return torch.stack([loss.detach(), norm])

    return step


def batch_tokens(settings: Config) -> int:
    """Tokens of a step."""
    return settings.train.batch * settings.train.context


def step_flops(settings: Config) -> int:
    """Floating-point operations of a step: three forward passes."""
    per_token = forward_flops(settings.model, settings.data.vocabulary, settings.train.context)["total"]
    return 3 * per_token * batch_tokens(settings)


def with_block(settings: Config, block: BlockName) -> Config:
    """The same sizes with another block."""
    return replace(settings, model=replace(settings.model, block=block))


def sizes(settings: Config) -> str:
    """Short, for names of rows."""
    model, c = settings.model, settings.train
    return f"L={model.layers}, d={model.d}, T={c.context}, batch {c.batch}, V={settings.data.vocabulary}"


def gpt2_rows(
    settings: Config, device: torch.device, preln: Call, rate: Callable[[], float], rounds: int
) -> list[dict]:
    """Pre-LN beside GPT-2 of transformers, and beside half of what matrix products reach just before and after."""
    before = rate()
    ours, other = bench.interleaved(preln, gpt2_step(settings, device), rounds, 2)
    reached, whole = step_flops(settings) / ours, statistics.mean((before, rate()))
    speeds = batch_tokens(settings) / ours, batch_tokens(settings) / other
    return [
        bench.row(
            f"Pre-LN step beside transformers' GPT-2, {sizes(settings)}", *speeds, "tokens/s", 1.0, reached / whole
        ),
        share_row("Pre-LN step beside half of the matrix rate", reached, whole, 0.5),
    ]


def share_row(name: str, reached: float, whole: float, least: float) -> dict:
    """FLOP/s of a step beside the share of the matrix rate asked for."""
    return bench.row(name, reached / 1e9, least * whole / 1e9, "GFLOP/s", 1.0, reached / whole)


def block_row(
    settings: Config, block: BlockName, device: torch.device, preln: Call, rounds: int, target: float | None = None
) -> dict:
    """Steps of a block beside those of Pre-LN, both ours."""
    changed = with_block(settings, block)
    flops = step_flops(changed) / step_flops(settings)
    ours, other = bench.interleaved(our_step(changed, device), preln, rounds, 2)
    name = f"{block} step beside Pre-LN's, {flops:.2f} of its FLOP, L={settings.model.layers}, d={settings.model.d}"
    return bench.row(name, 1 / ours, 1 / other, "steps/s", target)


# Attention


def our_attention(q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """(alpha I + beta A - gamma C) v as blocks.py has it; q, k, v (B, H, T, d_k), coefficients (H)."""
    return shape(v, softmax_attention(q, k, v), running_mean(running_sum(v)), alpha, beta, gamma)


class LiteralAttention:
    """The same with every matrix written out; mask, I and C of T positions are made once, as the authors keep them."""

    def __init__(self, T: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.later = torch.ones(T, T, dtype=torch.bool, device=device).triu(1)
        self.identity = torch.eye(T, device=device, dtype=dtype)
        self.centre = torch.ones_like(self.identity).tril() / torch.arange(1, T + 1, device=device)[:, None]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        alpha, beta, gamma = (gain[:, None, None] for gain in (alpha, beta, gamma))
        attention = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(self.later, -torch.inf).softmax(-1)
        return (alpha * self.identity + beta * attention - gamma * self.centre) @ v


def attention_inputs(T: int, device: torch.device | str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v (1, 4, T, 32) and three coefficients (4), all trained."""
    stream = generator("cpu", 0, "attention")
    shapes = [(1, 4, T, 32)] * 3 + [(4,)] * 3
    return [torch.randn(s, generator=stream).to(device, dtype).requires_grad_() for s in shapes]


def both_passes(attend: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of the sum of the output with respect to all inputs."""
    return list(torch.autograd.grad(attend(*inputs).sum(), inputs))


class Alive(TorchDispatchMode):
    """Bytes of tensors made inside that are alive: `now`, and `most` at one time.

    A storage counts from the operation that makes it until nothing holds it, autograd included; views and what was there
    before do not count. Scratch space inside one operation is not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        for storage in [t.untyped_storage() for t in tree_leaves(out) if isinstance(t, Tensor)]:
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return out

    def _count(self, more: int) -> None:
        self.now += more
        self.most = max(self.most, self.now)


def peak_memory(call: Call, device: torch.device) -> int:
    """Most bytes in use at one time during a call, over those before it: on CUDA as its allocator counts, else as Alive."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with Alive() as alive:
        call()
    return alive.most


def attention_rows(T: int, device: torch.device, rounds: int, least: float | None) -> list[dict]:
    """Time and memory of both passes, ours beside the literal form. least: the ratio of memory asked for."""
    inputs = attention_inputs(T, device)
    ways = [partial(both_passes, attend, inputs) for attend in (our_attention, LiteralAttention(T, device))]
    times = (seconds * 1e3 for seconds in bench.interleaved(*ways, rounds, 1))
    peaks = (peak_memory(way, device) / 1e6 for way in ways)
    name = f"shaped attention beside the T x T form, both passes, T={T}"
    return [bench.row(name, *times, "ms", None), bench.row(f"{name}: peak memory", *peaks, "MB", least)]


# Beside the steps


def looks(c: Train) -> tuple[int, int, int]:
    """Of a run, as Examiner.look has it: windows tested before the last step and after it, batches probed."""
    during = len(range(0, c.steps, c.evaluate_every)) * c.evaluate_windows
    return during, c.final_windows + 2 * c.evaluate_windows, len(range(0, c.steps, c.probe_every)) + 1


def evaluation_row(settings: Config, device: torch.device, rounds: int) -> dict:
    """Tests and probes of a whole run over the time of its steps, in %, beside 3%."""
    c, text = settings.train, UniformText(settings.data.vocabulary)
    model, windows = train.build(settings, text.vocabulary, 0).to(device), text.windows("valid_iid", c.context, device)
    probed, step = next(windows.in_order(c.probe_windows))[:, :-1], our_step(settings, device)
    test = partial(objective.test, settings, text, model, windows, c.evaluate_windows)
    tested_in, step_in = bench.interleaved(test, step, rounds, 1)
    probed_in, step_again = bench.interleaved(partial(probe, model, probed), step, rounds, 1)
    seconds = tested_in / c.evaluate_windows, tested_in / c.evaluate_windows, probed_in
    whole = c.steps * statistics.mean((step_in, step_again))
    shares = [100 * count * each / whole for count, each in zip(looks(c), seconds, strict=True)]
    told = "tests {:.1f}%, last test {:.1f}%, probes {:.1f}%".format(*shares)
    return bench.row(f"{told} of the steps of {settings.preset}, beside its budget", sum(shares), 3.0, "%", 1.0)


def tokens_row(rounds: int, megabytes: float = 2.0, vocabulary: int = 4096) -> dict:
    """MB/s of tokens.write on Python files of this machine, one thread, beside 2 MB/s."""
    caps = {"train": megabytes * 1e6, "package": megabytes * 1e6, "valid": 1e5}
    documents, _ = corpus.splits(corpus.installed(), Data().valid_packages, True, **caps)
    texts = [document.text for document in documents["train"]]
    size = sum(document.size for document in documents["train"])
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "tokenizer.json")
        tokens.train_bpe(texts, vocabulary).save(str(saved))
        silent = SimpleNamespace(update=lambda done: None)
        file, tokenizer = Path(folder, "tokens.bin"), tokens.load_bpe(saved)
        write = partial(tokens.write, file, tokenizer, texts, vocabulary, 0, silent)

        before = os.environ.get("TOKENIZERS_PARALLELISM")
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        try:
            seconds, _ = bench.interleaved(write, lambda: None, rounds, 1)
        finally:
            os.environ.pop("TOKENIZERS_PARALLELISM")
            if before is not None:
                os.environ["TOKENIZERS_PARALLELISM"] = before
    return bench.row(
        f"tokens.write of {size / 1e6:.1f} MB, V={vocabulary}, floor", size / seconds / 1e6, 2.0, "MB/s", 1.0
    )


# All together


def large_rows(device: torch.device, rounds: int) -> list[dict]:
    """On a GPU: share of the bf16 matrix rate of the compiled Pre-LN step, and the speeds of Table 1."""
    rate = partial(bench.matrix_rate, device, torch.bfloat16)
    preln, before = our_step(LARGE, device), rate()
    seconds, _ = bench.interleaved(preln, lambda: None, rounds, 3)
    share = step_flops(LARGE) / seconds, statistics.mean((before, rate()))
    rows = [share_row(f"bf16 compiled Pre-LN step beside 45% of the matrix rate, {sizes(LARGE)}", *share, 0.45)]
    return rows + [block_row(LARGE, block, device, preln, rounds, ratio) for block, ratio in TABLE_1.items()]


def main(settings: Bench) -> None:
    """Measure every row, print and save them."""
    device = setup(settings.device, "fp32", settings.threads)
    rate = partial(bench.matrix_rate, device, threads=settings.threads)
    few = max(3, settings.rounds // 2)
    preln = our_step(MODEST, device)
    rows = gpt2_rows(MODEST, device, preln, rate, settings.rounds)
    rows += [block_row(MODEST, block, device, preln, few) for block in ("sas", "sas_p")]
    for T, least in ((128, None), (512, None), (2048, 1.5)):
        rows += attention_rows(T, device, few if T == 2048 else 2 * settings.rounds, least)
    rows.append(evaluation_row(config.load(Config, HERE / "configs" / "quick.yaml"), device, settings.rounds))
    rows.append(tokens_row(few))
    rows.append(bench.help_row(HERE / "train.py"))
    if device.type == "cuda":
        rows += large_rows(device, settings.rounds)
    told = f"{torch.get_num_threads()} thread(s), matrix rate {rate() / 1e9:.0f} GFLOP/s in fp32"
    print(f"{describe(device)}, {told}")
    bench.table(rows)
    bench.write(settings.out, rows)


if __name__ == "__main__":
    config.main(main, Bench)
