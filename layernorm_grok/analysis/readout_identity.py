"""The readout scale is a larger unembedding with a larger learning rate, exactly (paper Eqs 7 to 13).

Logits alpha z U trained at eta, and logits z U' with U' = alpha U at the start, eta alpha and lambda / alpha for U' alone:
under AdamW with epsilon 0 both are the same run. Everything is computed in float64 from the run's first cell.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from common import experiment, plotting
from common.claims import Claim, by_seed
from common.experiment import over_seeds
from common.limits import Amount, Count, Distinct, Positive
from layernorm_grok.analysis._compare import ALL
from layernorm_grok.evaluate import Analysis, Trained
from layernorm_grok.grid import build
from layernorm_grok.losses import cross_entropy


@dataclass
class Settings(Analysis):
    alphas: Annotated[list[Positive], Distinct(1)] = field(default_factory=lambda: [0.5, 1.5])
    """Readout scales."""
    epsilons: Annotated[list[Amount], Distinct(1)] = field(default_factory=lambda: [0.0, 1e-8])
    """AdamW's epsilon: with 0 the identity is exact."""
    steps: Count = 100
    """Steps trained."""


def trajectory(
    trained: Trained, eps: float, steps: int, seed: int, scale=1.0, moved=1.0, loss_scale=1.0
) -> list[Tensor]:
    """Logits scale z U over all pairs (P^2, C) after each step; U starts `moved` times larger and learns at `moved` eta."""
    config, cell = trained.config, next(iter(trained.cells.values()))
    model = build(config, cell, seed).double().to(trained.device)
    with torch.no_grad():
        model.unembed.mul_(moved)
    body = [p for n, p in model.named_parameters() if n != "unembed"]
    groups = [
        {"params": body, "lr": cell.lr, "weight_decay": cell.weight_decay},
        {"params": [model.unembed], "lr": moved * cell.lr, "weight_decay": cell.weight_decay / moved},
    ]
    # foreach=False and the guard below: with epsilon 0 a weight without gradient gives 0/0, which counts as 0.
    optimiser = torch.optim.AdamW(groups, betas=(config.train.beta1, config.train.beta2), eps=eps, foreach=False)
    rows, targets = trained.pairs[seed][0], trained.targets
    every, logits = torch.arange(config.data.P**2, device=trained.device), []
    for _ in range(steps):
        optimiser.zero_grad()
        (loss_scale * cross_entropy(scale * model(rows).logits, targets[rows]).mean()).backward()
        kept = [(p, p.grad == 0, p.detach().clone()) for p in model.parameters() if eps == 0 and (p.grad == 0).any()]
        optimiser.step()
        with torch.no_grad():
            for p, still, before in kept:
                lost = still & ~p.isfinite()
                p[lost] = before[lost] * (1 - cell.lr * cell.weight_decay)
            logits.append(scale * model(every).logits)
    return logits


def apart(one: list, other: list) -> list[float]:
    """Largest difference between the logits, over their largest value, after each step."""
    return [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps, pairs ("alpha=... eps=..." -> alpha, eps, and per step the relative distance of the run at alpha from
    moved: its twin, plain: a run at alpha = 1, louder: one with three times the loss, learned: its own first step)."""
    result = {}
    for eps in settings.epsilons:
        train = partial(trajectory, trained, eps, settings.steps)
        plains = {seed: train(seed) for seed in trained.seeds}
        for alpha in settings.alphas:
            rows = []
            for seed, plain in plains.items():
                scaled = train(seed, scale=alpha)
                others = {"moved": train(seed, moved=alpha), "plain": plain}
                others |= {"louder": train(seed, scale=alpha, loss_scale=3.0), "learned": scaled[:1] * settings.steps}
                rows.append({key: apart(scaled, other) for key, other in others.items()})
            result[f"alpha={alpha:g} eps={eps:g}"] = {"alpha": alpha, "eps": eps, **over_seeds(rows)}
    return {"pairs": result, "steps": settings.steps}


def draw(result: dict):
    """Distance of the run at alpha from its twin, from one with a tripled loss, and from the run at alpha = 1."""
    fig, axes = plotting.axes(len(result["pairs"]), height=2.4, sharey=True, squeeze=False)
    looks = {
        "plain": ("alpha = 1", plotting.VERMILION),
        "louder": ("loss times 3", plotting.ORANGE),
        "moved": ("alpha in U and its rate", plotting.BLUE),
    }
    for ax, (name, pair) in zip(axes[0], result["pairs"].items(), strict=True):
        for key, (text, color) in looks.items():
            rows = np.array([node["values"] for node in pair[key]]).T
            plotting.seed_lines(ax, range(1, result["steps"] + 1), rows.clip(1e-17), text, color)
        ax.set(title=name, xlabel="step", yscale="log")
    axes[0, 0].set_ylabel("relative distance of the logits")
    axes[0, -1].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    worst = {n: [max(pair[key][-1]["values"]) for key in ("moved", "plain")] for n, pair in result["pairs"].items()}
    return "; ".join(f"{n}: {ours:.0e} from its twin, {plain:.0e} from alpha = 1" for n, (ours, plain) in worst.items())


def distances(result: dict) -> dict[str, list]:
    """C15, in float64 with epsilon 0, after all steps: how far the run is from its twin and from one with three times the loss
    (the most over alphas; to be nothing), from one at alpha = 1 and from its own first step (the least; not nothing)."""
    pairs = [pair for pair in result["pairs"].values() if pair["eps"] == 0]
    ends = lambda key: by_seed(*(pair[key][-1]["values"] for pair in pairs))  # noqa: E731
    return {
        "from twin": [max(row) for row in ends("moved")],
        "from 3 x loss": [max(row) for row in ends("louder")],
        "from alpha = 1": [min(row) for row in ends("plain")],
        "from first step": [min(row) for row in ends("learned")],
    }


CLAIMS = [
    Claim("C15", "Under AdamW with epsilon 0 the readout scale cancels in the update (an identity: this tests the code).",
          source="Eqs 7 to 13", presets=ALL, paper="exact", number=distances,
          below={"from twin": 1e-9, "from 3 x loss": 1e-9}, above={"from alpha = 1": 0.01, "from first step": 0.01}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
