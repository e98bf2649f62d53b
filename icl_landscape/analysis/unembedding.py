"""From how many dimensions of the residual stream the prediction is read, along training (paper appendix D.3.4)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np
import torch

from common import experiment, plotting
from common.claims import Claim
from common.replicas import Replicas
from icl_landscape.analysis._curves import along, draw_curve, over_training
from icl_landscape.analysis._presets import LONG
from icl_landscape.estimators.structure import effective_unembedding, participation_ratio
from icl_landscape.evaluate import Probe, Trained


@dataclass
class Settings(Probe):
    pass


def measure(stack: Replicas, times: int) -> dict[str, torch.Tensor]:
    """What `analyse` tells of some checkpoints, (times S, ...) each."""
    weight, bias = (stack.params[f"unembedding.{part}"] for part in ("weight", "bias"))
    # Without LayerNorms the stream is read as it is
    gain, shift = stack.params.get("norm.weight", 1.0), stack.params.get("norm.bias", 0.0)
    w, b = effective_unembedding(weight, bias, gain, shift)
    return {"w_eff": w, "b_eff": b, "participation_ratio": participation_ratio(w)}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); per seed and checkpoint: w_eff (S, T, d) and b_eff (S, T), with which yhat = w_eff . z + b_eff of the
    normalised stream z, or of the stream itself in a run without LayerNorms; participation_ratio (S, T) of w_eff."""
    with torch.no_grad():
        return along(trained, settings.steps(trained), measure)


def narrows(result: dict) -> dict[str, list]:
    """Per seed the participation ratio at the end, and the largest rise above the least since its peak, over the peak."""
    ends, rises = [], []
    for seed in result["participation_ratio"]:
        curve = np.asarray(seed)
        later = curve[int(curve.argmax()) :]
        ends.append(float(later[-1]))
        rises.append(float((later - np.minimum.accumulate(later)).max() / later[0]))
    return {"participation ratio at the end": ends, "largest rise after its peak / peak": rises}


def draw(result: dict):
    """Participation ratio and b_eff over training; sizes of w_eff in order, at some checkpoints of the first seed."""
    fig, axes = plotting.axes(3, height=2.3)
    draw_curve(axes[0], result, "participation_ratio", "", plotting.PALETTE["model"])
    over_training(axes[0], "participation ratio of $w_{eff}$")
    axes[0].set_ylim(0, None)
    draw_curve(axes[1], result, "b_eff", "", plotting.PALETTE["model"])
    over_training(axes[1], "$b_{eff}$")
    steps, rows = result["steps"], np.abs(result["w_eff"][0])
    shown = np.unique(np.linspace(0, len(steps) - 1, 6).round().astype(int))
    for i, color in zip(shown, plotting.ordered(len(shown)), strict=True):
        axes[2].plot(np.arange(1, rows.shape[1] + 1), np.sort(rows[i])[::-1], color=color, label=f"step {steps[i]}")
    axes[2].set(xlabel="dimension, in order of size", ylabel="$|w_{eff}|$", title=f"seed {result['seeds'][0]}")
    axes[2].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    told = [f"{s[0]:.1f}, at most {max(s):.1f}, at the end {s[-1]:.1f}" for s in result["participation_ratio"]]
    return f"participation ratio of w_eff, by seed: {'; '.join(told)}"


CLAIMS = [
    Claim("C10", "After LR2 the prediction comes to be read from a handful of residual dimensions.", source="appendix D.3.4",
          paper="participation ratio 34.9 at the start, 39.8 in LR2, 32.2 at its end, 3.8 at the end of LR3, 1.0 at the end",
          presets=LONG, number=narrows,
          below={"participation ratio at the end": 10.0, "largest rise after its peak / peak": 0.1}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
