"""The readout scale is a larger unembedding with a larger learning rate, exactly (paper Eqs 7 to 13; sheet C15, 3.7).

Logits alpha z U trained at eta, and logits z U' with U' = alpha U at the start, eta alpha and lambda / alpha for U' alone:
under AdamW with epsilon 0 both are the same run. Everything is computed in float64 from the run's first cell.
"""

from dataclasses import dataclass, field

import torch

from common import plotting
from layernorm_grok.analysis._driver import Analysis, over_seeds, perform
from layernorm_grok.evaluate import Trained
from layernorm_grok.losses import cross_entropy
from layernorm_grok.train import build


@dataclass
class Identity(Analysis):
    alphas: list[float] = field(default_factory=lambda: [0.5, 1.5])
    """Readout scales."""
    epsilons: list[float] = field(default_factory=lambda: [0.0, 1e-8])
    """AdamW's epsilon: with 0 the identity is exact."""
    steps: int = 100
    """Steps trained."""

    def __post_init__(self):
        if not self.alphas or not self.epsilons or min(self.alphas) <= 0 or min(self.epsilons) < 0 or self.steps < 1:
            raise ValueError("expected alphas above 0, epsilons of 0 or more, at least one of each, and 1 step or more")


def trajectory(
    trained: Trained, seed: int, scale: float, start: float, factor: float, eps: float, steps: int, loss_scale=1.0
) -> list:
    """Logits scale z U over all pairs (P^2, C) after each step; U starts `start` times larger and learns at `factor` eta."""
    config, cell = trained.config, next(iter(trained.cells.values()))
    model = build(config, cell, seed).double().to(trained.device)
    with torch.no_grad():
        model.unembed.mul_(start)
    body = [p for n, p in model.named_parameters() if n != "unembed"]
    groups = [
        {"params": body, "lr": cell.lr, "weight_decay": cell.weight_decay},
        {"params": [model.unembed], "lr": factor * cell.lr, "weight_decay": cell.weight_decay / factor},
    ]
    # foreach=False and the guard below: with epsilon 0 a weight without gradient gives 0/0, which counts as 0.
    optimiser = torch.optim.AdamW(groups, betas=(config.train.beta1, config.train.beta2), eps=eps, foreach=False)
    rows, targets = trained.pairs(seed)[0], trained.targets
    every, found = torch.arange(config.data.P**2, device=trained.device), []
    for _ in range(steps):
        optimiser.zero_grad()
        (loss_scale * cross_entropy(scale * model(rows).logits, targets[rows]).mean()).backward()
        kept = [(p, p.grad == 0, p.detach().clone()) for p in model.parameters() if eps == 0 and (p.grad == 0).any()]
        optimiser.step()
        with torch.no_grad():
            for p, still, before in kept:
                lost = still & ~p.isfinite()
                p[lost] = before[lost] * (1 - cell.lr * cell.weight_decay)
            found.append(scale * model(every).logits)
    return found


def apart(one: list, other: list) -> list[float]:
    """Largest difference between the logits, over their largest value, after each step."""
    return [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]


def analyse(trained: Trained, settings: Identity) -> dict:
    """Distance between the runs by alpha and epsilon; to a run at alpha = 1; and to one whose loss is 3 times larger."""
    result = {}
    for eps in settings.epsilons:
        plains = {seed: trajectory(trained, seed, 1.0, 1.0, 1.0, eps, settings.steps) for seed in trained.seeds}
        for alpha in settings.alphas:
            rows = []
            for seed, plain in plains.items():
                scaled = trajectory(trained, seed, alpha, 1.0, 1.0, eps, settings.steps)
                moved = trajectory(trained, seed, 1.0, alpha, alpha, eps, settings.steps)
                louder = trajectory(trained, seed, alpha, 1.0, 1.0, eps, settings.steps, loss_scale=3.0)
                rows.append(
                    {"moved": apart(scaled, moved), "plain": apart(scaled, plain), "louder": apart(scaled, louder)}
                )
            result[f"alpha={alpha:g} eps={eps:g}"] = {"alpha": alpha, "eps": eps, **over_seeds(rows)}
    return {"pairs": result, "steps": settings.steps}


def draw(result: dict):
    """Distance of the run at alpha from its twin, from one with a tripled loss, and from the run at alpha = 1."""
    fig, axes = plotting.axes(len(result["pairs"]), height=2.4, sharey=True, squeeze=False)
    axes = axes[0]
    looks = {
        "plain": ("alpha = 1", plotting.VERMILION),
        "louder": ("loss times 3", plotting.ORANGE),
        "moved": ("alpha in U and its rate", plotting.BLUE),
    }
    for ax, (name, pair) in zip(axes, result["pairs"].items(), strict=True):
        for key, (text, color) in looks.items():
            rows = zip(*(node["values"] for node in pair[key]), strict=True)
            plotting.seed_lines(
                ax, range(1, result["steps"] + 1), [[max(v, 1e-17) for v in row] for row in rows], text, color
            )
        ax.set(title=name, xlabel="step", yscale="log")
    axes[0].set_ylabel("relative distance of the logits")
    axes[-1].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    worst = (
        (n, max(pair["moved"][-1]["values"]), max(pair["plain"][-1]["values"])) for n, pair in result["pairs"].items()
    )
    return "; ".join(f"{name}: {ours:.0e} from its twin, {plain:.0e} from alpha = 1" for name, ours, plain in worst)


if __name__ == "__main__":
    perform("readout_identity", Identity, analyse, draw, finding)
