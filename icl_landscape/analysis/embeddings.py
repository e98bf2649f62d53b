"""Collapse of the token and the positional embedding along training, and how much they share (paper appendix D.3.1)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from common import experiment, plotting
from common.claims import Claim
from common.config import UserError
from common.limits import Count
from common.replicas import Replicas
from icl_landscape.analysis._curves import along, draw_curve, lowest, over_training
from icl_landscape.analysis._presets import ALL
from icl_landscape.estimators.structure import normalised_squares, overlap
from icl_landscape.evaluate import Probe, Trained, predict, repeated
from icl_landscape.regression.data import Batch


@dataclass
class Settings(Probe):
    rank: Count = 8
    """Main directions of the positions in which token embeddings are looked for; by chance they hold rank / d of each."""
    sequences: Count = 256
    """Fixed sequences for the prior score, which tells where LR2 starts."""


def measure(settings: Settings, batch: Batch, stack: Replicas, times: int) -> dict[str, torch.Tensor]:
    """What `analyse` tells of some checkpoints, (times S, ...) each."""
    token, position = (stack.params[f"{name}.weight"] for name in ("token", "position"))
    return {
        "token": normalised_squares(token),
        "position": normalised_squares(position),
        "overlap": overlap(token, position, settings.rank),
        "prior_score": predict(stack, repeated(batch, times)).double().square().mean((1, 2)),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); per seed and checkpoint (S, T, ...): token (D + 1) and position (2K), squared singular values over
    their sum, largest first; overlap (D + 1), share of each token column's squared norm in the `rank` main directions of the
    positions, that of y first; prior_score. chance (rank / d).

    The last of the 2K positions, that of the last y, is never trained. Raises UserError for a rank that the positions lack.
    """
    d, most = trained.config.model.d, min(trained.config.model.d, 2 * trained.data.K)
    if settings.rank > most:
        raise UserError(f"found rank {settings.rank}, expected at most {most}, that of the positions: --rank {most}")
    batch = trained.sequences(settings.sequences)
    with torch.no_grad():
        curves = along(trained, settings.steps(trained), partial(measure, settings, batch))
    return {**curves, "chance": settings.rank / d}


def directions(squares) -> np.ndarray:
    """How many directions matter: 1 / sum p^2, the participation ratio, of normalised squares p (..., n) -> (...)."""
    return 1 / np.square(squares).sum(-1)


def collapses(result: dict) -> dict[str, list]:
    """Per seed, at the end over the start of LR2, the checkpoint of the least prior score: the least normalised squared
    singular value of the token embedding, and how many directions the positions have."""
    starts = [result["steps"].index(lowest(result["steps"], seed)) for seed in result["prior_score"]]
    least = [np.asarray(seed)[:, -1] for seed in result["token"]]
    count = [directions(seed) for seed in result["position"]]
    ratios = lambda curves: [float(c[-1] / c[start]) for c, start in zip(curves, starts, strict=True)]  # noqa: E731
    return {
        "least token S^2 / sum, end / start": ratios(least),
        "directions of the positions, end / start": ratios(count),
    }


def draw(result: dict):
    """Spectra of both embeddings, and the share of the token embedding in directions of the positions."""
    fig, axes = plotting.axes(3, height=2.3)
    for ax, key in ((axes[0], "token"), (axes[1], "position")):
        count = len(result[key][0][0])
        for i, color in zip(range(count), plotting.ordered(count), strict=True):
            draw_curve(ax, result, key, f"$S_{{{i + 1}}}$", color, lambda seed, i=i: seed[:, i])
        over_training(ax, r"$S_i^2 / \sum_j S_j^2$", f"{key} embedding")
        ax.set_yscale("log")
    axes[0].legend(fontsize=6)
    for i, color in zip(range(len(result["overlap"][0][0])), plotting.COLORS, strict=False):
        draw_curve(axes[2], result, "overlap", f"$x_{i}$" if i else "y", color, lambda seed, i=i: seed[:, i])
    axes[2].axhline(result["chance"], color=plotting.PALETTE["chance"], linewidth=0.8, label="chance")
    over_training(axes[2], "share within positions", f"{result['settings']['rank']} directions")
    axes[2].legend(fontsize=6, ncols=2)
    return fig


def finding(result: dict) -> str:
    least = ", ".join(f"{seed[0][-1]:.3f} to {seed[-1][-1]:.3f}" for seed in result["token"])
    count = ", ".join(f"{directions(s)[0]:.1f} to {directions(s)[-1]:.1f}" for s in result["position"])
    return f"least token S^2 / sum {least}; directions of the positions {count}"


CLAIMS = [
    Claim("C7", "Token and positional embeddings collapse by the end of LR2.", source="appendix D.3.1",
          paper="least token S^2 / sum: 0.13 at the start of LR2, 0.03 at its end, 0.015 at the end",
          presets=ALL, number=collapses,
          below={"least token S^2 / sum, end / start": 0.5, "directions of the positions, end / start": 0.8}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
