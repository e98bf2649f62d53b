"""Sharpness: the largest eigenvalues of the Hessian of the trained loss (authors' logger)."""

from dataclasses import dataclass

import torch

from common import experiment, plotting
from layernorm_grok.analysis._lives import along, at_end, by_cell, draw_lives
from layernorm_grok.estimators import hessian
from layernorm_grok.evaluate import Probe, Trained
from layernorm_grok.train import trained_loss


@dataclass
class Settings(Probe):
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


def measure_of(trained: Trained, settings: Settings):
    """Largest, mean and smallest of the top k (as the authors log) and the lowest eigenvalue, on all train pairs."""
    rows = {seed: trained.pairs(seed)[0] for seed in trained.seeds}

    @torch.enable_grad()
    def measure(model, name: str, seed: int) -> dict:
        start = trained.model(name, seed, 0) if trained.config.train.subtract_init else None
        loss = trained_loss(trained.config, trained.cell(name), model, rows[seed], start)
        params = {n: p.double() for n, p in model.double().named_parameters()}
        spectrum = hessian.top_eigenvalues(loss, params, settings.top, settings.iterations, seed, settings.tolerance)
        return {
            "max": float(spectrum.top[0]),
            "mean": float(spectrum.top.mean()),
            "min": spectrum.smallest_of_top,
            "dominant": float(spectrum.dominant[0]),
            "lowest": float(spectrum.lowest[0]),
            "residual": float(spectrum.top_residuals[0]),
            "products": spectrum.iterations,
        }

    return measure


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along`: max, mean and min of the top k, dominant, lowest, residual, products)."""
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
    return f"largest eigenvalue at the end: {by_cell(result['cells'], at_end('max'), '.2g')}"


if __name__ == "__main__":
    experiment.main(__name__)
