"""Our training step, replicas and NTK beside the literal way, both sides in turn in one run.

    python layernorm_grok/bench.py          prints a table, writes results/layernorm_grok/bench.json

The literal loop is the authors' in outline: three positions through nn.MultiheadAttention, a pass over the test pairs
every step, the norm of the update from clones of all parameters, a .item() per metric.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from common import bench, config, device
from layernorm_grok import ntk
from layernorm_grok.data import split, tokens
from layernorm_grok.grid import Cell, Stack
from layernorm_grok.train import Config, build, objective, stack_of

HERE = Path(__file__).parent
PAPER = HERE / "configs/paper_figures.yaml"


@dataclass
class Bench:
    threads: int = 1
    """CPU threads of both sides; one, as the sweep runs its jobs."""
    rounds: int = 7
    """Timed rounds of each pair."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: str = "results/layernorm_grok/bench.json"
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


def literal_step(settings: Config, where: torch.device, evaluated: bool = True):
    """One step of the literal loop (placement pre), with its pass over the test pairs."""
    data, c = settings.data, settings.train
    model = LiteralTransformer(settings.model.d, settings.model.heads, data.P).to(where)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0, betas=(c.beta1, c.beta2), eps=c.eps)
    targets = data.targets()
    sides = [(tokens(rows, data.P).to(where), targets[rows].to(where)) for rows in split(data, 0)]

    def metrics(logits, wanted):
        return F.cross_entropy(logits, wanted).item(), (logits.argmax(1) == wanted).float().mean().item()

    def step() -> None:
        (train, wanted), (test, test_wanted) = sides
        before = [p.detach().clone() for p in model.parameters()]
        optimiser.zero_grad()
        logits = model(train)
        F.cross_entropy(logits, wanted).backward()
        optimiser.step()
        metrics(logits.detach(), wanted)
        sum((p.detach() - b).norm().item() ** 2 for p, b in zip(model.parameters(), before, strict=True))
        sum(p.detach().norm().item() ** 2 for p in model.parameters())
        if evaluated:
            with torch.no_grad():
                metrics(model(test), test_wanted)

    return step


def our_steps(settings: Config, where: torch.device, stack: Stack, evaluate_every: int):
    """`evaluate_every` steps of train.py and one pass over the test pairs; on a GPU the steps are replayed graphs."""
    targets = settings.data.targets().to(where)
    c = settings.train

    def step() -> None:
        def loss(model, rows, choice, alpha, offset):
            return objective(settings, targets, model, rows, choice, alpha, offset)[:3]

        gradient, *_ = stack.replicas.differentiate(loss, stack.train, stack.choice, stack.alpha, stack.offset)
        stack.replicas.adam(gradient, stack.lr, (c.beta1, c.beta2), c.eps, stack.decay, measure=True)

    @torch.no_grad()
    def test() -> None:
        def loss(model, rows, choice, alpha, offset):
            return objective(settings, targets, model, rows, choice, alpha, offset)[1:3]

        torch.stack(stack.replicas.each(loss, stack.test, stack.choice, stack.alpha, stack.offset)).tolist()

    replayed = device.graphed(step, where)

    def steps() -> None:
        for _ in range(evaluate_every):
            replayed()
        test()

    return steps


def step_flops(settings: Config) -> float:
    """FLOP of one shortcut training step: three passes' worth of MLP, unembedding and mixing (sheet 7.2)."""
    d, h, P = settings.model.d, settings.model.heads, settings.data.P
    per_pair = 2 * settings.model.mlp_ratio * d * d + d * (P + 1)
    return 3 * 2 * (settings.data.train_size * per_pair + 3 * P * P * h * d)


def one(settings: Config, where: torch.device, seeds: int = 1) -> Stack:
    """A stack of `seeds` replicas with the placement pre."""
    settings.seeds, settings.grid.placement = list(range(seeds)), ["pre"]
    return stack_of(settings, where)[0]


def training_row(settings: Config, where, every: int, target: float, rate: float, rounds: int) -> dict:
    """Per model-step: ours with a test pass every `every` steps, the literal loop with one every step."""
    ours, other = bench.interleaved(
        our_steps(settings, where, one(settings, where), every), literal_step(settings, where), rounds, 2
    )
    name = f"step at P=113, d=128; test pass every {every} steps here, every step there"
    return bench.row(name, ours / every * 1e3, other * 1e3, "ms", target, step_flops(settings) * every / ours / rate)


def replica_row(settings: Config, where, rounds: int, count: int = 16) -> dict:
    """Sixteen replicas in one stack against sixteen single stacks one after another, 10 steps and a test pass each."""
    singles = [our_steps(settings, where, one(settings, where), 10) for _ in range(count)]
    stacked = our_steps(settings, where, one(settings, where, count), 10)
    ours, other = bench.interleaved(stacked, lambda: [step() for step in singles], rounds, 1)
    scale = 1e3 / (10 * count)
    return bench.row(f"{count} replicas in one stack, beside single runs", ours * scale, other * scale, "ms", 1.0)


def ntk_row(settings: Config, rounds: int, n: int = 512) -> dict:
    """The sum kernel of n pairs from layer Grams, beside per-sample gradients."""
    model = build(settings, Cell("pre", "pre", 1.0, 1e-3, 1.0, 0.0, 1.0), 0)
    rows = split(settings.data, 0)[0][:n]
    ones = torch.ones(1, settings.data.P + 1)
    close = (ntk.gram(model, rows, ones) - ntk.per_sample_gram(model, rows, ones)).norm() / ntk.gram(
        model, rows, ones
    ).norm()
    ours, other = bench.interleaved(
        lambda: ntk.gram(model, rows, ones), lambda: ntk.per_sample_gram(model, rows, ones), rounds, 1
    )
    name = f"NTK of {n} pairs, beside per-sample gradients ({float(close):.0e} apart)"
    return bench.row(name, ours * 1e3, other * 1e3, "ms", 15.0)


def main(settings: Bench) -> None:
    """Measure every row, print and save them."""
    where = device.setup(settings.device, "fp32", settings.threads)
    load = lambda name: config.load(Config, HERE / "configs" / f"{name}.yaml")  # noqa: E731
    rate = bench.matrix_rate(where, threads=settings.threads)
    rows = [
        training_row(load("paper_figures"), where, 10, 5.0, rate, settings.rounds),
        training_row(load("paper_figures"), where, 1, 2.5, rate, settings.rounds),
        replica_row(load("quick"), where, settings.rounds),
        ntk_row(load("paper_figures"), max(3, settings.rounds // 2)),
        bench.help_row(HERE / "train.py"),
    ]
    print(f"{device.describe(where)}, {torch.get_num_threads()} thread(s), matrix rate {rate / 1e9:.0f} GFLOP/s")
    bench.table(rows)
    bench.write(settings.out, rows)


if __name__ == "__main__":
    config.main(main, Bench)
