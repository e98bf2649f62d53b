"""The sampler, the step of train.py, its gradient, exhaustive evaluation and people, beside other ways, in turn in one run.

    python capacity_reasoning/bench.py          prints a table, writes results/capacity_reasoning/bench.json

A ratio above 1 is better; a budget or a share asked for stands as the other side. The step learns from questions in rows; a
Llama of transformers learns from as many in windows of 512 tokens, as the authors' does, with the same weights and optimiser.
"""

import common.process  # noqa: F401

import itertools
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from capacity_reasoning import train
from capacity_reasoning.data import CHUNK, Questions, Sampler
from capacity_reasoning.examine import ONE_HOP, ask, measure
from capacity_reasoning.facts import text
from capacity_reasoning.facts.lists import lists
from capacity_reasoning.facts.people import draw
from capacity_reasoning.facts.questions import IGNORED, Rows, Written, rows
from capacity_reasoning.facts.splits import Splits, held_out
from capacity_reasoning.facts.store import save
from capacity_reasoning.gradient import by_hand, by_length, fits
from capacity_reasoning.losses import objective
from capacity_reasoning.model import Model, to_llama
from capacity_reasoning.train import Config, State, differentiate
from common import bench, config
from common.device import autocast, describe, generator, graphed, setup
from common.limits import Count, Device, Place, Threads
from common.team import team_of

HERE = Path(__file__).parent
DATA_SHARE = 0.05
"""Of a step, that its data may take."""
EXHAUSTIVE_S, EXHAUSTIVE_THREADS = 120.0, 2
"""Seconds that all one-hop questions about 10,000 people with 17 relations may take, on so many threads."""
WRITING_S, SPLITTING_S, SPLITTING_GB = 20.0, 60.0, 2.0
"""What 250,000 people with 17 relations may take to be drawn and written, and their questions to be held out."""
WINDOWS = {"cpu": 8, "cuda": 192}
"""Windows of a step of transformers; with questions of the paper's template 21 are answered in each."""
Call = Callable[[], object]


@dataclass
class Bench:
    threads: Threads = 1
    """CPU threads of both sides; one, as figures per core are asked for."""
    rounds: Count = 9
    """Timed rounds of each pair; costly ones have fewer."""
    device: Device = "auto"
    """auto, cpu or cuda."""
    out: Place = "results/capacity_reasoning/bench.json"
    """Where the rows go."""


def questions_of(settings: Config, device: torch.device) -> list[Questions]:
    """Of every seed."""
    return [Questions.of(settings, seed, device) for seed in settings.seeds]


# People, in a process of their own


@dataclass(frozen=True)
class Cost:
    """What people and their held-out questions took."""

    written_s: float
    """To draw and to write them."""
    split_s: float
    peak_gb: float
    """Most memory of the whole process before they are written."""


def spend(N: int, R: int) -> Cost:
    """Draw people, hold questions out and write the people, in this process."""
    start = time.perf_counter()
    people = draw(lists(), N, R, "uniform", 0)
    drawn = time.perf_counter()
    held_out(people, Splits(), 0)
    split = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        save(people, Path(folder, "people"), 0, "uniform")
        written = time.perf_counter() - begun
    return Cost(drawn - start + written, split - drawn, peak / 1e9)


def people_rows(rounds: int, N: int = 250_000, R: int = 17) -> list[dict]:
    """Time and memory beside their budgets, each round in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        costs = [*pool.map(spend, [N] * rounds, [R] * rounds)]
    told = f"{N:,} people, R={R}"
    return [
        bench.row(name.format(told), statistics.median(getattr(cost, field) for cost in costs), budget, unit, 1.0)
        for name, field, budget, unit in [
            ("{} drawn and written, beside the budget", "written_s", WRITING_S, "s"),
            ("held-out questions of {}, beside the budget", "split_s", SPLITTING_S, "s"),
            ("peak memory of these, beside the budget", "peak_gb", SPLITTING_GB, "GB"),
        ]
    ]


# Sampling


def tables(questions: Questions, two_hop: float, number: int) -> Callable[[], Rows]:
    """The next random questions as rows, as training makes them."""
    stream = generator(questions.trained.device, 0, "sampling")
    return lambda: questions.write(*questions.sample(number, two_hop, stream))


def streamed_text(questions: Questions, two_hop: float, number: int) -> Callable[[], Rows]:
    """The same of text, tokenised one by one, without the library `datasets`."""
    tuples, form = questions.trained.cpu().numpy(), questions.pieces.form
    stream = text.stream(questions.people, form, questions.tokenizer, tuples, two_hop, 0)
    device = questions.trained.device
    return lambda: rows(Written.of([*itertools.islice(stream, number)], device))


def sampling_rows(
    questions: Questions, two_hop: float, rounds: int, number: int = CHUNK, texts: int = 512
) -> list[dict]:
    """Questions per second; as text passes through `datasets` (data.backend text) or not."""
    ours, compared = tables(questions, two_hop, number), []
    for name, other, target in [
        ("text through `datasets`", lambda: rows(questions.read(texts, two_hop, 0)), 100.0),
        ("text alone", streamed_text(questions, two_hop, texts), None),
    ]:
        a, b = bench.interleaved(ours, other, rounds, 1)
        compared.append(bench.row(f"questions from tables beside {name}", number / a, texts / b, "questions/s", target))
    return compared


def batches(settings: Config, questions: list[Questions]) -> tuple[Call, int]:
    """All batches that are made at a time, the next ones in each call; and how many they are."""
    sampler, share = Sampler(settings, questions), [settings.mix.two_hop] * len(questions)
    firsts = itertools.count(1, sampler.steps)

    def make() -> None:
        first = next(firsts)
        for now in range(first, first + sampler.steps):
            sampler.draw(now, share)

    return make, sampler.steps


def data_row(name: str, settings: Config, questions: list[Questions], device: torch.device, rounds: int) -> dict:
    """A step's data beside the share of its training that they may take."""
    make, steps = batches(settings, questions)
    a, b = bench.interleaved(make, our_step(settings, questions, device), rounds, 2)
    told = f"data of a step beside {DATA_SHARE:.0%} of it, {name}"
    return bench.row(told, 1e3 * a / steps, 1e3 * DATA_SHARE * b, "ms", 1.0)


# Training


def forward_flops(model: Model, vocabulary: int, shown: Rows, by_hand: bool) -> int:
    """FLOP of the loss of rows (S, B, T); its gradient has twice as many. by_hand: of the gradient by hand."""
    parts = [part for one in zip(*shown, strict=True) for part in (by_length(Rows(*one)) if by_hand else [Rows(*one)])]
    return sum(rows_flops(model, vocabulary, part, by_hand) for part in parts)


def rows_flops(model: Model, vocabulary: int, shown: Rows, by_hand: bool) -> int:
    """The same of the rows (B, T) of one model, all as long."""
    (B, T), A, d = shown.tokens.shape, shown.where.shape[-1], model.d
    answered = int((shown.targets != IGNORED).sum()) if by_hand else B * A
    total = 0
    for layer in range(model.layers):
        last = by_hand and layer == model.layers - 1
        Q, out = (A, answered) if last else (T, B * T)
        total += 2 * B * (Q + 2 * T) * d * d + 4 * B * Q * T * d + 2 * out * 13 * d * d
    return total + 2 * answered * d * vocabulary


def our_state(settings: Config, questions: list[Questions], device: torch.device) -> State:
    """The state before the first step, shown its batch."""
    state = State.start(settings, questions, device)
    state.show(Sampler(settings, questions).draw(1, state.two_hop))
    return state


def our_step(settings: Config, questions: list[Questions], device: torch.device) -> Callable[[], Tensor]:
    """The step of train.py, on one batch, its gradient a replayed graph on a GPU; gives (S, 2), loss first."""
    state, count, team = our_state(settings, questions, device), itertools.count(1), team_of(device)
    learn = graphed(partial(differentiate, settings, state), device)
    return lambda: train.step(settings, state, learn, team, next(count))


def windows(settings: Config, number: int) -> Config:
    """The same with windows in place of rows."""
    c = replace(settings.train, batch=number, exposures=None)
    return replace(settings, data=replace(settings.data, packing="causal"), train=c)


def llama_step(settings: Config, questions: list[Questions], device: torch.device) -> Callable[[], Tensor]:
    """A step as usually written with transformers: all logits, its own loss (a mean over tokens), schedule-free AdamW."""
    from schedulefree import AdamWScheduleFree

    c, shown = settings.optim, our_state(settings, questions, device).rows
    model = to_llama(train.build(settings, questions[0].vocabulary, settings.seeds[0])).to(device)
    optimizer = AdamWScheduleFree(
        model.parameters(), c.lr, (c.beta1, c.beta2), c.eps, weight_decay=c.weight_decay, warmup_steps=c.warmup
    )
    optimizer.train()
    tokens, labels = shown.tokens[0], torch.where(shown.targets[0] == IGNORED, -100, shown.targets[0])

    def step() -> Tensor:
        with autocast(device, settings.precision):
            loss = model(input_ids=tokens, labels=labels, shift_labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def step_row(settings: Config, questions: list[Questions], device, rate: Callable[[], float], rounds: int) -> dict:
    """A step of a seed beside transformers', on as many questions; share of the matrix rate just before and after."""
    packed = windows(settings, WINDOWS[device.type])
    number = int(Sampler(packed, questions).draw(1, [packed.mix.two_hop]).questions)
    ours = replace(settings, train=replace(settings.train, batch=number))
    state, before = our_state(ours, questions, device), rate()
    other = llama_step(packed, questions, device)
    a, b = bench.interleaved(our_step(ours, questions, device), other, rounds, 2)
    flops = 3 * forward_flops(ours.model, questions[0].vocabulary, state.rows, fits(ours, state.replicas))
    share = flops / a / statistics.mean((before, rate()))
    target = 1.8 if device.type == "cpu" else None
    told = f"step of {number} questions in rows beside transformers' Llama on windows of {packed.data.context} tokens"
    return bench.row(told, number / a, number / b, "questions/s", target, share)


def gradient_row(name: str, settings: Config, questions: list[Questions], rounds: int) -> dict:
    """The gradient by hand beside autograd's, on a CPU."""
    state = our_state(settings, questions, torch.device("cpu"))
    ours = partial(by_hand, settings.model, state.replicas.leaves, state.rows)
    a, b = bench.interleaved(ours, partial(state.replicas.differentiate, objective, *state.rows), rounds, 2)
    return bench.row(f"gradient by hand beside autograd's, {name}", 1e3 * a, 1e3 * b, "ms", 1.0)


# Evaluation


def exhaustive_row(settings: Config, device: torch.device) -> dict:
    """The losses of a seed on all one-hop questions, once, beside the budget."""
    questions = questions_of(settings, device)
    replicas = State.start(settings, questions, device).replicas
    asked = [ask(questions[0], ONE_HOP, None, 0)]
    before = torch.get_num_threads()
    torch.set_num_threads(EXHAUSTIVE_THREADS)
    try:
        seconds, _ = bench.interleaved(lambda: measure(replicas, questions, asked), lambda: None, 1, 0)
    finally:
        torch.set_num_threads(before)
    told = f"losses on all {len(asked[0]):,} one-hop questions, {EXHAUSTIVE_THREADS} threads, beside the budget"
    return bench.row(told, seconds, EXHAUSTIVE_S, "s", 1.0)


def main(settings: Bench) -> None:
    """Measure every row, print and save them."""
    device = setup(settings.device, "fp32", settings.threads)
    few = max(3, settings.rounds // 3)
    # First, as a new process counts the memory of the one that starts it
    told = people_rows(few)
    told.append(bench.help_row(HERE / "train.py"))
    quick, large = (config.load(Config, HERE / "configs" / f"{name}.yaml") for name in ("quick", "gpu"))
    on_cpu = device.type == "cpu"
    large = replace(large, seeds=[0], precision="fp32" if on_cpu else "bf16")
    paper = replace(large, train=replace(large.train, exposures=None, batch=128)) if on_cpu else large
    rate = partial(bench.matrix_rate, device, torch.float32 if on_cpu else torch.bfloat16, settings.threads)
    questions, small = questions_of(paper, device), questions_of(quick, device)
    told += sampling_rows(questions[0], paper.mix.two_hop, settings.rounds)
    told.append(data_row("quick", quick, small, device, settings.rounds))
    told.append(data_row("the paper's template", paper, questions, device, settings.rounds))
    told.append(step_row(paper, questions, device, rate, settings.rounds))
    if on_cpu:
        told.append(gradient_row("quick", quick, small, settings.rounds))
        told.append(gradient_row("the paper's template", paper, questions, settings.rounds))
    told.append(exhaustive_row(replace(paper, data=replace(paper.data, R=17)), device))
    print(f"{describe(device)}, {torch.get_num_threads()} thread(s), matrix rate {rate() / 1e9:.0f} GFLOP/s")
    bench.table(told)
    bench.write(settings.out, told)


if __name__ == "__main__":
    config.main(main, Bench)
