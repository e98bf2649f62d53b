"""The step and the test pass of train.py, replicas and NTK beside the literal way, both sides in turn in one run.

    python layernorm_grok/bench.py          prints a table, writes results/layernorm_grok/bench.json

The literal loop is the authors' in outline: three positions through nn.MultiheadAttention, a pass over the test pairs
every step, the norm of the update from clones of all parameters, a .item() per metric.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from common import bench, config
from common.device import describe, graphed, setup
from common.limits import Count, Device, Place, Threads
from layernorm_grok import train
from layernorm_grok.data import split, tokens
from layernorm_grok.estimators import ntk
from layernorm_grok.grid import Cell, build, stack_of
from layernorm_grok.train import Config

HERE = Path(__file__).parent


@dataclass
class Bench:
    threads: Threads = 1
    """CPU threads of both sides; one, as the sweep runs its jobs."""
    rounds: Count = 7
    """Timed rounds of each pair."""
    device: Device = "auto"
    """auto, cpu or cuda."""
    out: Place = "results/layernorm_grok/bench.json"
    """Where the rows go."""


class LiteralTransformer(nn.Module):
    """One layer as usually written: every position through attention and MLP, logits read off the last."""

    def __init__(self, d: int, heads: int, P: int):
        super().__init__()
        self.embed, self.position = nn.Embedding(P + 1, d), nn.Parameter(0.02 * torch.randn(3, d))
        self.ln1, self.ln2 = nn.LayerNorm(d, eps=0.0), nn.LayerNorm(d, eps=0.0)
        self.attention = nn.MultiheadAttention(d, heads, bias=False, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.unembed = nn.Linear(d, P + 1, bias=False)

    def forward(self, ids):
        x = self.embed(ids) + self.position
        u = self.ln1(x)
        y = x + self.attention(u, u, u, need_weights=False)[0]
        return self.unembed(y + self.fc2(F.gelu(self.fc1(self.ln2(y)))))[:, -1]


def literal_step(settings: Config, device: torch.device):
    """One step of the literal loop (placement pre), with its pass over the test pairs."""
    data, c = settings.data, settings.train
    model = LiteralTransformer(settings.model.d, settings.model.heads, data.P).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0, betas=(c.beta1, c.beta2), eps=c.eps)
    targets = data.targets()
    sides = [(tokens(rows, data.P).to(device), targets[rows].to(device)) for rows in split(data, 0)]

    def metrics(logits, wanted):
        return F.cross_entropy(logits, wanted).item(), (logits.argmax(1) == wanted).float().mean().item()

    def step() -> None:
        (ids, wanted), (test_ids, test_wanted) = sides
        before = [p.detach().clone() for p in model.parameters()]
        optimiser.zero_grad()
        logits = model(ids)
        F.cross_entropy(logits, wanted).backward()
        optimiser.step()
        metrics(logits.detach(), wanted)
        sum((p.detach() - b).norm().item() ** 2 for p, b in zip(model.parameters(), before, strict=True))
        sum(p.detach().norm().item() ** 2 for p in model.parameters())
        with torch.no_grad():
            metrics(model(test_ids), test_wanted)

    return step


def our_steps(settings: Config, device: torch.device, every: int, seeds: int = 1):
    """`every` steps of train.py and one evaluation, placement pre; on a GPU the steps are replayed graphs."""
    settings = replace(settings, seeds=list(range(seeds)), grid=replace(settings.grid, placement=["pre"]))
    stack, targets = stack_of(settings, device)[0], settings.data.targets().to(device)
    learn = graphed(partial(train.step, settings, targets, stack), device)

    def steps() -> list[list[float]]:
        for _ in range(every):
            measured = learn()
        return torch.cat([measured, train.test(settings, targets, stack)], 1).tolist()

    return steps


def step_flops(settings: Config) -> float:
    """FLOP of one shortcut training step: three passes' worth of MLP, unembedding and mixing."""
    d, h, P = settings.model.d, settings.model.heads, settings.data.P
    per_pair = 2 * settings.model.mlp_ratio * d * d + d * (P + 1)
    return 3 * 2 * (settings.data.train_size * per_pair + 3 * P * P * h * d)


def training_row(settings: Config, device, every: int, target: float, rate: float, rounds: int) -> dict:
    """Per model-step: ours with a test pass every `every` steps, the literal loop with one every step."""
    ours, other = bench.interleaved(our_steps(settings, device, every), literal_step(settings, device), rounds, 2)
    name = f"step at P=113, d=128; test pass every {every} steps here, every step there"
    return bench.row(name, ours / every * 1e3, other * 1e3, "ms", target, step_flops(settings) * every / ours / rate)


def replica_row(settings: Config, device, rounds: int, count: int = 16) -> dict:
    """Sixteen replicas in one stack against sixteen single stacks one after another, 10 steps and a test pass each."""
    singles = [our_steps(settings, device, 10) for _ in range(count)]
    stacked = our_steps(settings, device, 10, count)
    ours, other = bench.interleaved(stacked, lambda: [steps() for steps in singles], rounds, 1)
    scale = 1e3 / (10 * count)
    return bench.row(f"{count} replicas in one stack, beside single runs", ours * scale, other * scale, "ms", 1.0)


def ntk_row(settings: Config, rounds: int, n: int = 512) -> dict:
    """The sum kernel of n pairs from layer Grams, beside per-sample gradients."""
    model = build(settings, Cell("pre", "pre", 1.0, 1e-3, 1.0, 0.0, 1.0), 0)
    rows = split(settings.data, 0)[0][:n]
    ones = torch.ones(1, settings.data.P + 1)
    fast, literal = (partial(gram, model, rows, ones) for gram in (ntk.gram, ntk.per_sample_gram))
    ours, other = bench.interleaved(fast, literal, rounds, 1)
    name = f"NTK of {n} pairs, beside per-sample gradients ({ntk.drift(fast(), literal()):.0e} apart)"
    return bench.row(name, ours * 1e3, other * 1e3, "ms", 15.0)


def main(settings: Bench) -> None:
    """Measure every row, print and save them."""
    device = setup(settings.device, "fp32", settings.threads)
    load = lambda name: config.load(Config, HERE / "configs" / f"{name}.yaml")  # noqa: E731
    rate = bench.matrix_rate(device, threads=settings.threads)
    rows = [
        training_row(load("paper_figures"), device, 10, 5.0, rate, settings.rounds),
        training_row(load("paper_figures"), device, 1, 2.5, rate, settings.rounds),
        replica_row(load("quick"), device, settings.rounds),
        ntk_row(load("paper_figures"), max(3, settings.rounds // 2)),
        bench.help_row(HERE / "train.py"),
    ]
    print(f"{describe(device)}, {torch.get_num_threads()} thread(s), matrix rate {rate / 1e9:.0f} GFLOP/s")
    bench.table(rows)
    bench.write(settings.out, rows)


if __name__ == "__main__":
    config.main(main, Bench)
