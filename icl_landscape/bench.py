"""The sampler of chains, the step of train.py, its shortcuts and ridge beside the literal way, in turn in one run.

    python icl_landscape/bench.py          prints a table, writes results/icl_landscape/bench.json

The literal model sends every token through every block and all D + 1 outputs. devinterp 2.0.1 and canonical-interp 0.2.7 are
measured where they are installed; where neither is, a loop written like theirs takes their place.
"""

import common.process  # noqa: F401

import copy
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from common import bench, config
from common.device import describe, generator, graphed, setup
from common.limits import Count, Device, Place, Threads
from common.replicas import Replicas
from icl_landscape import train
from icl_landscape.regression.baselines import ridge
from icl_landscape.regression.data import TRUE, Data, sample
from icl_landscape.regression.gradient import by_hand
from icl_landscape.regression.layers import VECTOR
from icl_landscape.regression.losses import objective
from icl_landscape.regression.model import Model
from icl_landscape.sgmcmc.chains import Chains
from icl_landscape.sgmcmc.settings import Minibatches, Sampling
from icl_landscape.train import Config, State, build

HERE = Path(__file__).parent
SAMPLES = 4096
"""Sequences that minibatches are drawn from."""


@dataclass
class Bench:
    threads: Threads = 1
    """CPU threads of both sides; one, as figures per core are asked for."""
    rounds: Count = 9
    """Timed rounds of each pair."""
    device: Device = "auto"
    """auto, cpu or cuda."""
    out: Place = "results/icl_landscape/bench.json"
    """Where the rows go."""


def literal(settings: Config) -> Config:
    """The same model without shortcuts."""
    return replace(settings, model=replace(settings.model, drop_last_y=False, last_block_at_x=False))


def step_flops(model: Model, data: Data, by_hand: bool = False) -> int:
    """FLOP of the loss of one sequence and its gradient: three passes' worth, less the gradient of the tokens themselves.

    by_hand: of the gradient by hand, whose first block maps features and whose keys are padded.
    """
    d, T = model.d, 2 * data.K - model.drop_last_y
    keys = -(-T // VECTOR) * VECTOR if by_hand else T
    embedding, total = 2 * T * (data.D + 1) * d, 0
    for layer in range(model.layers):
        Q = data.K if model.last_block_at_x and layer == model.layers - 1 else T
        total += 2 * d * (2 * Q * keys + model.include_output * Q * d + 2 * Q * model.d_mlp)
        if by_hand and layer == 0:
            embedding += 2 * T * (data.D + T + 2) * 3 * d
        else:
            total += 2 * d * d * (Q + 2 * T)
    total += 2 * d * (data.K if model.last_block_at_x else T * (data.D + 1))
    # The prediction by hand is no matrix product
    return 3 * total + 2 * embedding - by_hand * 2 * d * data.K


# Sampling


def minibatches(settings: Config, sampling: Sampling, device: torch.device) -> Minibatches:
    """What each chain is given at a step: x (C, B, K, D), y (C, B, K); the same for all samplers here."""
    held = sample(settings.data, TRUE, SAMPLES, generator(device, 0, "sequences"))
    return Minibatches((held.x, held.y), sampling)


def our_chains(settings: Config, sampling: Sampling, device: torch.device) -> Callable[[], Tensor]:
    """A step of all chains of the engine, which gives their losses (C,)."""
    replicas = Replicas([build(settings, 0, device)] * sampling.chains)
    draw = minibatches(settings, sampling, device)
    differentiate = by_hand(replicas, settings.model)
    chains = Chains(replicas.flat, differentiate, draw, sampling, parts=settings.data.K, generators=draw.generators)

    def step() -> Tensor:
        chains.record()
        return chains.losses.mean(1)

    return step


class LiteralSgld:
    """Langevin's step as usually written: parameter by parameter, each with its own noise and pull."""

    def __init__(self, parameters, lr: float, nbeta: float, localization: float):
        self.parameters = list(parameters)
        self.centre = [p.detach().clone() for p in self.parameters]
        self.lr, self.nbeta, self.localization = lr, nbeta, localization

    @torch.no_grad()
    def step(self) -> None:
        for p, centre in zip(self.parameters, self.centre, strict=True):
            if p.grad is not None:
                drift = p.grad * self.nbeta + self.localization * (p - centre)
                p.add_(drift, alpha=-self.lr / 2).add_(torch.randn_like(p), alpha=self.lr**0.5)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None


def looped_chains(settings: Config, sampling: Sampling, device: torch.device, optimiser) -> Callable[[], Tensor]:
    """Chain by chain a copy of the literal model, and an optimiser over its parameters as devinterp has it."""
    start = build(literal(settings), 0, device)
    models = [copy.deepcopy(start) for _ in range(sampling.chains)]
    rates = {"lr": sampling.epsilon, "nbeta": sampling.nbeta, "localization": sampling.gamma}
    optimisers = [optimiser(model.parameters(), **rates) for model in models]
    draw = minibatches(settings, sampling, device)

    def step() -> Tensor:
        losses = []
        for model, optimiser, x, y in zip(models, optimisers, *draw(), strict=True):
            loss = objective(model, x, y)[0]
            loss.backward()
            if not loss.isfinite():
                raise RuntimeError("a chain diverged")
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses)

    return step


def vmapped_chains(settings: Config, sampling: Sampling, device: torch.device, update) -> Callable[[], Tensor]:
    """The literal model stacked under vmap and compiled, as canonical-interp's estimator has it by default."""
    start = build(literal(settings), 0, device)
    params, _ = stack_module_state([copy.deepcopy(start) for _ in range(sampling.chains)])
    centre = {name: p[0].clone() for name, p in params.items()}
    draw = minibatches(settings, sampling, device)

    def loss(params: dict, x: Tensor, y: Tensor) -> Tensor:
        return objective(lambda *inputs: functional_call(start, params, inputs), x, y)[0]

    differentiate = torch.compile(vmap(grad_and_value(loss), randomness="different"), mode="reduce-overhead")
    rates = {"learning_rate": sampling.epsilon, "nbeta": sampling.nbeta, "localization": sampling.gamma}

    def step() -> Tensor:
        gradients, losses = differentiate(params, *draw())
        update(params, gradients, centre, **rates)
        return losses

    return step


def canonical_update() -> Callable:
    """canonical-interp's `sgld_step`, from its file alone: the package itself needs Python 3.12. Raises ImportError."""
    package = importlib.util.find_spec("canonical_interp")
    if package is None:
        raise ImportError("no canonical_interp")
    name = "canonical_interp_optim"
    found = importlib.util.spec_from_file_location(name, Path(package.submodule_search_locations[0]) / "optim.py")
    # torch.compile looks a function's module up by its name
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.sgld_step


def devinterp_optimiser() -> type:
    """devinterp's SGLD, the default of its sampler. Raises ImportError."""
    from devinterp.optim import SGLD

    warnings.filterwarnings("ignore", "SGLD has been deprecated", DeprecationWarning)
    return SGLD


def peers(*where) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """(name, a step of all chains) of the samplers of others that are here and run, else of the loop written like theirs."""
    libraries = {
        "devinterp": lambda: looped_chains(*where, devinterp_optimiser()),
        "canonical-interp": lambda: vmapped_chains(*where, canonical_update()),
    }
    met = 0
    for name, make in libraries.items():
        try:
            step = make()
            step()
        except Exception as error:  # One that fails to import, or whose compiler is missing
            print(f"left out {name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        met += 1
        yield f"{name} {importlib.metadata.version(name)}", step
    if not met:
        yield "a literal loop written like devinterp's (neither peer is installed)", looped_chains(*where, LiteralSgld)


def sampling_rows(settings: Config, sampling: Sampling, device, rate: float, rounds: int) -> list[dict]:
    """Chain-steps per second beside each of the others: the target is to be met by the faster of them, so by all."""
    where = settings, sampling, device
    ours, chains, rows = our_chains(*where), sampling.chains, []
    work = sampling.batch * step_flops(settings.model, settings.data, device.type == "cpu")
    for name, other in peers(*where):
        a, b = bench.interleaved(ours, other, rounds, 2)
        words = f"SGLD, {chains} chains, batch {sampling.batch}, beside {name}"
        target = 50.0 if device.type == "cuda" else 2.0
        rows.append(bench.row(words, chains / a, chains / b, "steps/s", target, work * chains / a / rate))
    return rows


# Training


def our_step(settings: Config, device: torch.device) -> Callable[[], Tensor]:
    """The step of train.py; on a GPU it is the replayed graph."""
    state = State.start(settings, device)
    return graphed(partial(train.step, settings, state), device, state.streams)


def literal_step(settings: Config, device: torch.device) -> Callable[[], Tensor]:
    """The loop as usually written: the literal model of the first seed, torch's Adam and OneCycleLR. Gives the loss ()."""
    c, seed = settings.train, settings.seeds[0]
    state = State.start(replace(settings, seeds=[seed]), device)
    model = build(literal(settings), seed, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=c.lr, betas=(c.beta1, c.beta2), eps=c.eps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, c.lr, total_steps=c.steps, pct_start=c.rise / c.steps, anneal_strategy="linear",
        cycle_momentum=False, div_factor=c.rise - 1, final_div_factor=c.rise - 1,
    )  # fmt: skip

    def step() -> Tensor:
        batch = sample(settings.data, state.tasks[0], c.batch, state.streams[0])
        optimiser.zero_grad()
        loss = objective(model, batch.x, batch.y)[0]
        loss.backward()
        optimiser.step()
        schedule.step()
        return loss.detach()

    return step


def training_rows(settings: Config, device, rate: float, rounds: int, seeds: int = 5) -> list[dict]:
    """One seed beside the literal loop and without the shortcuts, and several in one process beside one after another."""
    one, batch = replace(settings, seeds=[0]), settings.train.batch
    ours, singles = our_step(one, device), [our_step(one, device) for _ in range(seeds)]
    stacked = our_step(replace(settings, seeds=list(range(seeds))), device)
    share = lambda count, seconds: count * batch * step_flops(one.model, one.data) / seconds / rate  # noqa: E731
    rows = []
    for name, count, call, other, target in [
        (f"step of {seeds} seeds, batch {batch}, beside one after another", seeds, stacked,
         lambda: [single() for single in singles], 1.0),
        (f"step of a seed, batch {batch}, beside torch's Adam on the literal model", 1, ours,
         literal_step(one, device), 1.0),
        (f"step of a seed, batch {batch}, beside itself without the shortcuts", 1, ours,
         our_step(literal(one), device), 1.0),
    ]:  # fmt: skip
        a, b = bench.interleaved(call, other, rounds)
        rows.append(bench.row(name, a * 1e3, b * 1e3, "ms", target, share(count, a)))
    return rows


# Ridge


def looped_ridge(x: Tensor, y: Tensor, sigma2: float) -> Tensor:
    """A solve for every position of every sequence, as usually written."""
    said = torch.zeros_like(y)
    for b, (inputs, targets) in enumerate(zip(x.double(), y.double(), strict=True)):
        for k in range(1, y.shape[1]):
            X = inputs[:k]
            w = torch.linalg.solve(X.T @ X + sigma2 * torch.eye(x.shape[2]).to(X), X.T @ targets[:k])
            said[b, k] = w @ inputs[k]
    return said


def positional_ridge(x: Tensor, y: Tensor, sigma2: float) -> Tensor:
    """A solve for every position of all sequences at once."""
    wide, target, said = x.double(), y.double(), torch.zeros_like(y)
    for k in range(1, y.shape[1]):
        X = wide[:, :k]
        gram = X.mT @ X + sigma2 * torch.eye(x.shape[2]).to(X)
        w = torch.linalg.solve(gram, X.mT @ target[:, :k, None])
        said[:, k] = (wide[:, k, None] @ w)[:, 0, 0]
    return said


def ridge_rows(data: Data, device, rounds: int, sequences: int = 1024) -> list[dict]:
    """Ridge for all prefixes from one Cholesky factor, beside a solve for each."""
    x, y, _ = sample(data, TRUE, sequences, generator(device, 0, "sequences"))
    rows = []
    for name, other, target in [("a solve per sequence and position", looped_ridge, 20.0),
                                ("a batched solve per position", positional_ridge, 1.0)]:  # fmt: skip
        times = bench.interleaved(*(partial(f, x, y, data.sigma2) for f in (ridge, other)), rounds, 1)
        rows.append(
            bench.row(f"ridge of {sequences} sequences, beside {name}", *(t * 1e3 for t in times), "ms", target)
        )
    return rows


def main(settings: Bench) -> None:
    """Measure every row, print and save them."""
    device = setup(settings.device, "fp32", settings.threads)
    rate, few = bench.matrix_rate(device, threads=settings.threads), max(3, settings.rounds // 3)
    trained = config.load(Config, HERE / "configs" / ("gpu.yaml" if device.type == "cuda" else "quick.yaml"))
    chains = Sampling(epsilon=1e-5, gamma=1500.0, batch=128, chains=64 if device.type == "cuda" else 8)
    rows = [
        *sampling_rows(trained, chains, device, rate, settings.rounds),
        *training_rows(trained, device, rate, settings.rounds),
        *ridge_rows(trained.data, device, few),
        bench.help_row(HERE / "train.py"),
    ]
    print(f"{describe(device)}, {torch.get_num_threads()} thread(s), matrix rate {rate / 1e9:.0f} GFLOP/s")
    bench.table(rows)
    bench.write(settings.out, rows)


if __name__ == "__main__":
    config.main(main, Bench)
