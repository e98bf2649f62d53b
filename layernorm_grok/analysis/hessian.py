"""Sharpness: the largest eigenvalues of the Hessian of the trained loss (authors' logger; sheet 3.8)."""

from dataclasses import dataclass

import torch

from common import plotting
from layernorm_grok import hessian
from layernorm_grok.analysis._driver import Probe, along, draw_lives, perform
from layernorm_grok.evaluate import Trained
from layernorm_grok.train import trained_loss


@dataclass
class Hessian(Probe):
    top: int = 3
    """Eigenvalues, as the authors log."""
    iterations: int = 60
    """Most Lanczos steps, each one Hessian-vector product."""
    tolerance: float = 1e-3
    """Residual at which to stop, over the largest eigenvalue."""

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.top <= self.iterations:
            raise ValueError(f"top is {self.top}, iterations {self.iterations}; expected 1 <= top <= iterations")


def measure_of(trained: Trained, settings: Hessian):
    """Largest, mean and smallest of the top k (as the authors log) and the lowest eigenvalue, on all train pairs."""
    rows = {seed: trained.pairs(seed)[0] for seed in trained.seeds}

    @torch.enable_grad()
    def measure(model, name: str, seed: int) -> dict:
        start = trained.model(name, seed, 0) if trained.config.train.subtract_init else None
        loss = trained_loss(trained.config, trained.cell(name), model, rows[seed], start)
        params = {n: p.double() for n, p in model.double().named_parameters()}
        found = hessian.top_eigenvalues(loss, params, settings.top, settings.iterations, seed, settings.tolerance)
        ends = {"max": float(found.top[0]), "mean": float(found.top.mean()), "min": found.smallest_of_top}
        residual = float(found.top_residuals[0])
        ends["dominant"] = float(found.dominant[0])
        return ends | {"lowest": float(found.lowest[0]), "residual": residual, "products": found.iterations}

    return measure


def analyse(trained: Trained, settings: Hessian) -> dict:
    return {"cells": along(trained, settings, measure_of(trained, settings), "the development of the sharpness")}


def draw(result: dict):
    """The largest eigenvalue, and the smallest of the top k (the authors' `min`)."""
    fig, axes = plotting.axes(2, height=2.6)
    for ax, (key, text) in zip(axes, {"max": "largest eigenvalue", "min": "smallest of the top"}.items(), strict=True):
        draw_lives(ax, result["cells"], key)
        ax.set(xlabel="step", ylabel=text, xscale="symlog", yscale="log")
        ax.set_xlim(left=0)
    axes[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    ends = ((n, [c["max"][-1] for c in cell["seeds"]]) for n, cell in result["cells"].items())
    return "largest eigenvalue at the end: " + "; ".join(
        f"{name} {'/'.join(f'{v:.2g}' for v in values)}" for name, values in ends
    )


if __name__ == "__main__":
    perform("hessian", Hessian, analyse, draw, finding)
