"""Curvature of the loss along training: largest eigenvalues and trace of its Hessian (paper appendix B.5)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np
import torch
from torch.func import functional_call

from common import experiment, hessian, plotting
from common.claims import Claim
from common.device import generator
from common.limits import Count, Share
from icl_landscape.analysis._curves import draw_curve, over_training
from icl_landscape.analysis._presets import ALL
from icl_landscape.evaluate import Probe, Trained, predict, repeated
from icl_landscape.regression.losses import objective


@dataclass
class Settings(Probe):
    sequences: Count = 1024
    """Fixed sequences that the loss is taken on; the paper's number."""
    top: Count = 3
    """Eigenvalues."""
    iterations: Count = 40
    """Most Lanczos steps, each a Hessian-vector product."""
    tolerance: Share = 1e-3
    """Residual at which to stop, over the largest eigenvalue."""
    probes: Count = 10
    """Random vectors for the trace."""

    def __post_init__(self):
        if self.top > self.iterations:
            raise ValueError(f"top is {self.top}, iterations {self.iterations}; expected top <= iterations")


def measure(settings: Settings, model, x: torch.Tensor, y: torch.Tensor, seed: int) -> dict:
    """Of one model, whose attention is explicit, as the fused form has no second derivative."""
    params = dict(model.named_parameters())
    loss = lambda leaves: objective(lambda *inputs: functional_call(model, leaves, inputs), x, y)[0]  # noqa: E731
    product, size = hessian.hessian_product(loss, params)
    stream = generator("cpu", seed, "hessian")
    spectrum = hessian.lanczos(product, size, settings.top, settings.iterations, stream, settings.tolerance)
    total, error = hessian.trace(product, size, settings.probes, stream)
    return {
        "top": spectrum.top.tolist(),
        "residual": float(spectrum.top_residuals[0]),
        "lowest": float(spectrum.lowest[0]),
        "trace": total,
        "trace_error": error,
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); per seed and checkpoint (S, T): top (the largest eigenvalues, (S, T, top)), residual (of the first),
    lowest eigenvalue (coarse where it has not converged), trace and trace_error (Hutchinson's mean and its standard error),
    prior_score (mean of yhat^2: least where LR1 ends)."""
    steps, batch = settings.steps(trained), trained.sequences(settings.sequences)
    rows = [[] for _ in trained.seeds]
    for step in steps:
        scores = predict(trained.stack([step]), repeated(batch, 1)).double().square().mean((1, 2)).tolist()
        for number, seed in enumerate(trained.seeds):
            told = measure(settings, trained.model(seed, step), batch.x[number], batch.y[number], seed)
            rows[number].append(told | {"prior_score": scores[number]})
    return {"steps": steps, **{key: [[row[key] for row in seed] for seed in rows] for key in rows[0][0]}}


def peaks(result: dict) -> dict[str, list]:
    """Per seed the largest value over training of the first eigenvalue and of the trace, over its value where the prior score
    is least; and the step of the eigenvalue's peak over that one."""
    least = [int(np.argmin(seed)) for seed in result["prior_score"]]
    first = [np.asarray(seed)[:, 0] for seed in result["top"]]
    traces = [np.asarray(seed) for seed in result["trace"]]
    steps = result["steps"]
    return {
        "largest eigenvalue / at the prior": [float(c.max() / c[i]) for c, i in zip(first, least, strict=True)],
        "trace / at the prior": [float(c.max() / c[i]) for c, i in zip(traces, least, strict=True)],
        "step of the peak / of the prior": [
            steps[int(c.argmax())] / max(steps[i], 1) for c, i in zip(first, least, strict=True)
        ],
        "largest eigenvalue, end / peak": [float(c[-1] / c.max()) for c in first],
    }


def draw(result: dict):
    fig, axes = plotting.axes(2, height=2.5)
    count = len(result["top"][0][0])
    for rank, color in zip(range(count), plotting.ordered(count), strict=True):
        draw_curve(axes[0], result, "top", rf"$\lambda_{rank + 1}$", color, lambda seed, rank=rank: seed[:, rank])
    draw_curve(axes[1], result, "trace", "trace", plotting.PALETTE["model"])
    for ax, text in zip(axes, ("largest eigenvalues", "trace"), strict=True):
        over_training(ax, text)
    axes[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    first = np.asarray(result["top"])[:, :, 0]
    where = [result["steps"][int(row.argmax())] for row in first]
    start, peak, end = first[:, 0].mean(), first.max(1).mean(), first[:, -1].mean()
    return f"largest eigenvalue {start:.3g} at the start, {peak:.3g} at its peak at steps {where}, {end:.3g} at the end"


CLAIMS = [
    Claim("C12", "The Hessian's statistics show LR2: they peak in it.", source="appendix B.5",
          paper="largest eigenvalue 35 at the end of LR1, 477 at 10k, 189 at the end of LR2; trace 166, 2976, 1808",
          presets=ALL, number=peaks,
          above={"largest eigenvalue / at the prior": 1.5, "trace / at the prior": 1.5, "step of the peak / of the prior": 1.0},
          below={"largest eigenvalue, end / peak": 0.9}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
