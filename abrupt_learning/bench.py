"""Our training step, nuclear-norm solver and generation beside the literal way, both sides in turn in one run.

python abrupt_learning/bench.py          prints a table, writes results/abrupt_learning/bench.json
"""

import common.process  # noqa: F401

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from abrupt_learning.data import Data, sample
from abrupt_learning.estimators.nuclear_norm import complete
from abrupt_learning.gpt import Gpt, generate, sequence
from abrupt_learning.model import Model
from abrupt_learning.train import Config, State, step
from common import bench, config
from common.device import setup
from common.limits import Count, Place, Threads

HERE = Path(__file__).parent
GAP = 1e-5
"""Certified gap asked of the nuclear-norm solver, in units of the nuclear norm."""


@dataclass
class Bench:
    """What is measured, and where the rows go."""

    threads: Threads = 0
    """CPU threads of both sides; 0 leaves the machine's own choice."""
    rounds: Count = 15
    """Timed rounds of each pair."""
    out: Place = "results/abrupt_learning/bench.json"
    """Where the rows go."""


def our_step(settings: Config, seeds: int = 1):
    """The step of train.py for `seeds` replicas."""
    settings = replace(settings, seeds=list(range(seeds)))
    return partial(step, settings, State.start(settings, torch.device("cpu")))


def literal_step(settings: Config, evaluated: int = 64):
    """The loop as usually written: stock BertModel, a second forward for the metrics, an evaluation forward, every step."""
    from transformers import BertConfig, BertModel

    data, model, c = settings.data, settings.model, settings.train
    stock = BertModel(
        BertConfig(
            vocab_size=data.vocabulary, hidden_size=model.hidden_size, num_hidden_layers=model.n_layer,
            num_attention_heads=model.n_head, intermediate_size=model.mlp_ratio * model.hidden_size,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=data.cells,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    read_out, stream = torch.nn.Linear(model.hidden_size, 1), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([*stock.parameters(), *read_out.parameters()], lr=c.lr)

    def predict(ids):
        return read_out(stock(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state).squeeze(-1)

    def metrics(output, batch):
        error, hidden = (output - batch.target) ** 2, ~batch.observed
        return [t.mean().item() for t in (error, error[hidden], error[batch.observed], output[hidden].abs())]

    def literal() -> None:
        batch = sample(data, c.batch_size, stream)
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(predict(batch.ids), batch.target).backward()
        optimiser.step()
        with torch.no_grad():
            metrics(predict(batch.ids), batch)
            test = sample(data, evaluated, stream)
            metrics(predict(test.ids), test)

    return literal


def step_flops(settings: Config) -> float:
    """Floating-point operations of one training step: two per multiply-add, 3 forward passes' worth."""
    model, cells, batch = settings.model, settings.data.cells, settings.train.batch_size
    width, inner = model.hidden_size, model.mlp_ratio * model.hidden_size
    per_token = 4 * width**2 + 2 * width * inner + 2 * width * cells
    return 3 * 2 * model.n_layer * per_token * cells * batch


def training_row(name: str, settings: Config, rate: float, target: float, rounds: int) -> dict:
    """Our step against the literal one, at equal precision and threads."""
    ours, other = bench.interleaved(our_step(settings), literal_step(settings), rounds)
    return bench.row(name, ours * 1e3, other * 1e3, "ms", target, step_flops(settings) / ours / rate)


def replica_row(settings: Config, rounds: int) -> dict:
    """Three seeds in one process against three single runs one after another."""
    singles = [our_step(settings) for _ in range(3)]
    stacked, alone = bench.interleaved(our_step(settings, 3), lambda: [single() for single in singles], rounds)
    return bench.row("three seeds in one process, beside one after another", stacked * 1e3, alone * 1e3, "ms", None)


def generation_row(rounds: int) -> dict:
    """Greedy generation of 49 tokens with and without the KV cache, at the paper's GPT setting, 64 matrices."""
    data = Data(limit=2.0)
    stream = torch.Generator().manual_seed(0)
    model = Gpt(Model(kind="gpt", hidden_size=256, n_layer=2, n_head=2), data.vocabulary, data.cells, stream)
    prompt = sequence(sample(data, 64, stream), data)[:, : data.cells + 1]
    times = bench.interleaved(
        lambda: generate(model, prompt, 49), lambda: generate(model, prompt, 49, cached=False), rounds, 1
    )
    return bench.row("GPT generation, KV cache beside recomputation", *(t * 1e3 for t in times), "ms", 10.0)


def nuclear_rows(matrices: int = 512, one_by_one: int = 16, rounds: int = 7) -> list[dict]:
    """Nuclear-norm completion beside cvxpy: one parametrised problem solved again and again, and one built anew per matrix.

    The same matrices (7x7, rank 2, p = 0.3), on one thread: `matrices` to a call of ours, `one_by_one` of cvxpy, which is
    given Clarabel, the faster of its two solvers here, at its own settings. Raises RuntimeError if a gap exceeds GAP.
    """
    batch = sample(Data(), matrices, torch.Generator().manual_seed(0))
    A, mask = batch.target.double().view(-1, 7, 7), batch.observed.view(-1, 7, 7)
    few = A[:one_by_one], mask[:one_by_one]
    others = {
        "one parametrised cvxpy problem": (lambda: complete(*few, solver="cvxpy"), 10.0),
        "a cvxpy problem per matrix": (lambda: literal_completion(*few), 20.0),
    }
    gap = complete(A, mask, GAP).gap.max().item()
    if gap > GAP:
        raise RuntimeError(f"a gap is {gap:.1e}; expected every one below {GAP:g}, or the times mean nothing")
    rows = []
    for name, (other, target) in others.items():
        seconds, theirs = bench.interleaved(lambda: complete(A, mask, GAP), other, rounds)
        rates = matrices / seconds, one_by_one / theirs
        rows.append(bench.row(f"nuclear norm, 7x7, beside {name}", *rates, "matrices/s", target))
    return rows


def literal_completion(A: torch.Tensor, mask: torch.Tensor) -> None:
    """The loop as usually written: a cvxpy problem built, compiled and solved per matrix of A (B, m, n)."""
    import cvxpy

    for one, seen in zip(A.numpy(), mask.double().numpy(), strict=True):
        X = cvxpy.Variable(one.shape)
        problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.normNuc(X)), [cvxpy.multiply(seen, X) == seen * one])
        problem.solve(solver="CLARABEL")


def main(settings: Bench) -> None:
    """Measure every row, print and save them."""
    setup("cpu", "fp32", settings.threads)
    quick = config.load(Config, HERE / "configs" / "quick.yaml")
    wide = replace(quick, model=Model(hidden_size=256), data=Data(), train=replace(quick.train, batch_size=64))
    rate = bench.matrix_rate()
    rows = [
        training_row("training step, quick", quick, rate, 1.4, 2 * settings.rounds),
        training_row("training step, d=256, 4 layers, 7x7", wide, rate, 1.3, settings.rounds),
        replica_row(quick, settings.rounds),
        generation_row(max(3, settings.rounds // 4)),
        bench.help_row(HERE / "train.py"),
    ]
    setup("cpu", "fp32", threads=1)
    rows += nuclear_rows()
    bench.table(rows)
    bench.write(Path(settings.out), rows)


if __name__ == "__main__":
    config.main(main, Bench)
