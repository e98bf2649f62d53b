"""Sharpness: the largest eigenvalues of the Hessian of the trained loss (authors' logger)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from functools import partial

import torch

from common import experiment, hessian, plotting
from common.limits import Count, Share
from layernorm_grok.analysis._lives import along, at_end, by_cell, draw_lives
from layernorm_grok.evaluate import Probe, Trained
from layernorm_grok.train import trained_loss


@dataclass
class Settings(Probe):
    top: Count = 3
    """Eigenvalues, as the authors log."""
    iterations: Count = 60
    """Most Lanczos steps, each one Hessian-vector product."""
    tolerance: Share = 1e-3
    """Residual at which to stop, over the largest eigenvalue."""

    def __post_init__(self):
        if self.top > self.iterations:
            raise ValueError(f"top is {self.top}, iterations {self.iterations}; expected top <= iterations")


@torch.enable_grad()
def measure(settings: Settings, trained: Trained, model, name: str, seed: int) -> dict:
    """Largest, mean and smallest of the top k (as the authors log) and the lowest eigenvalue, on all train pairs."""
    untrained = trained.model(name, seed, 0) if trained.config.train.subtract_init else None
    loss = trained_loss(trained.config, trained.cell(name), model, trained.pairs[seed][0], untrained)
    params = {n: p.double() for n, p in model.double().named_parameters()}
    product, size = hessian.hessian_product(loss, params)
    start = torch.Generator().manual_seed(seed)
    spectrum = hessian.lanczos(product, size, settings.top, settings.iterations, start, settings.tolerance)
    return {
        "max": float(spectrum.top[0]),
        "mean": float(spectrum.top.mean()),
        "min": float(spectrum.top[-1]),
        "lowest": float(spectrum.lowest[0]),
        "residual": float(spectrum.top_residuals[0]),
        "products": spectrum.iterations,
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: cells (name -> `_lives.along`: max, mean and min of the top k (the authors' min, not lambda_min), lowest, residual,
    products). The authors' power iteration converges to max or lowest, whichever is further from 0."""
    return {"cells": along(trained, settings, partial(measure, settings), "the development of the sharpness")}


def draw(result: dict):
    """The largest eigenvalue, and the smallest of the top k (the authors' `min`)."""
    fig, axes = plotting.axes(2, height=2.6)
    for ax, (key, text) in zip(axes, {"max": "largest eigenvalue", "min": "smallest of the top"}.items(), strict=True):
        draw_lives(ax, result["cells"], key, ylabel=text, xscale="symlog", yscale="log")
    axes[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    return f"largest eigenvalue at the end: {by_cell(result['cells'], at_end('max'), '.2g')}"


if __name__ == "__main__":
    experiment.main(__name__)
