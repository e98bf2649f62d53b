"""What the predictions do along training: loss by token, prior score, ICL scores, distance to ridge, inputs out of
distribution (paper section 4, Fig 5)."""

import common.process  # noqa: F401

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
import torch

from common import experiment, plotting
from common.claims import Claim
from common.limits import Count, Distinct, Positive
from common.replicas import Replicas
from icl_landscape.analysis._curves import along, draw_curve, first, lowest, over_training
from icl_landscape.analysis._presets import ALL, LONG
from icl_landscape.evaluate import Probe, Trained, predict, repeated
from icl_landscape.regression import baselines
from icl_landscape.regression.data import Batch, scale_inputs, scale_tasks
from icl_landscape.regression.losses import subsequence_mse, token_losses


@dataclass
class Settings(Probe):
    sequences: Count = 2048
    """Fixed sequences that every checkpoint of every seed is tested on."""
    scales: Annotated[list[Positive], Distinct()] = field(default_factory=lambda: [3.0, 5.0, 10.0, 100.0])
    """Factors g of inputs and of tasks out of distribution."""
    sigma2: Positive | None = None
    """Variance of the noise on y; null: that of training. The authors' figures have 0.015625, a standard deviation of 0.125."""


@dataclass
class Tests:
    """Fixed sequences and what the baselines say of them."""

    own: Batch
    """Of each seed's own law of tasks (S, B, ...)."""
    true: Batch
    """Of tasks N(0, I_D)."""
    baselines: dict[str, torch.Tensor]
    """Predictions (S, B, K) on `own`."""

    @classmethod
    def of(cls, trained: Trained, settings: Settings) -> "Tests":
        own, true = (trained.sequences(settings.sequences, law, settings.sigma2) for law in ("pretraining", "true"))
        sigma2 = settings.sigma2 or trained.data.sigma2
        told = {"ridge": baselines.ridge(own.x, own.y, sigma2)}
        if trained.tasks[0].table is not None:
            rows = zip(own.x, own.y, trained.tasks, strict=True)
            told["dmmse"] = torch.stack([baselines.dmmse(x, y, law.table, sigma2) for x, y, law in rows])
        return cls(own, true, told)


def measure(settings: Settings, tests: Tests, stack: Replicas, times: int) -> dict[str, torch.Tensor]:
    """What `analyse` tells of some checkpoints, (times S, ...) each."""
    own, true = repeated(tests.own, times), repeated(tests.true, times)
    predictions = predict(stack, own)
    told = {
        "token_losses": token_losses(predictions, own.y),
        "true_token_losses": token_losses(predict(stack, true), true.y),
        "prior_score": predictions.double().square().mean((1, 2)),
        "weight_norm": stack.flat.norm(dim=1),
    }
    told["subsequence_mse"] = subsequence_mse(told["token_losses"])
    for name, values in tests.baselines.items():
        far = (predictions - values.repeat(times, 1, 1)).double().square()
        told[f"delta_{name}"] = far.mean((1, 2))
    for g in settings.scales:
        for what, scale in (("inputs", scale_inputs), ("tasks", scale_tasks)):
            scaled = scale(true, g)
            told[f"{what}_x{g:g}"] = token_losses(predict(stack, scaled), scaled.y) / g
    return told


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); per seed and checkpoint (S, T): prior_score (mean of yhat^2), delta_ridge and, for finitely many
    tasks, delta_dmmse (mean squared difference of predictions), weight_norm, subsequence_mse; by token (S, T, K): token_losses
    (on the law of training), true_token_losses (on tasks N(0, I)), inputs_x<g> and tasks_x<g> (loss / g with inputs or tasks
    g times larger); baselines -> name -> loss by token per seed (S, K); sigma2; trivial (loss of the prediction 0)."""
    tests = Tests.of(trained, settings)
    told = {n: token_losses(p, tests.own.y).tolist() for n, p in tests.baselines.items()}
    sigma2 = settings.sigma2 or trained.data.sigma2
    with torch.no_grad():
        curves = along(trained, settings.steps(trained), partial(measure, settings, tests))
    return {**curves, "baselines": told, "sigma2": sigma2, "trivial": trained.data.D + sigma2}


def gain(curve, start: int, end: int) -> np.ndarray:
    """ICL score ell_end - ell_start of losses by token (T, K), tokens counted from 1: negative is better (as plotted)."""
    curve = np.asarray(curve)
    return curve[:, end - 1] - curve[:, start - 1]


def last_token(result: dict) -> int:
    """K."""
    return len(result["token_losses"][0][0])


def middle_token(result: dict) -> int:
    """4 where K is 8, as in the paper: half of the tokens."""
    return max(1, last_token(result) // 2)


def icl_step(result: dict, seed: int) -> float:
    """The first checkpoint with ell_K - ell_1 below -1; inf without one."""
    return first(result["steps"], gain(result["token_losses"][seed], 1, last_token(result)), lambda v: v < -1)


def learns_the_prior(result: dict) -> dict[str, list]:
    """Per seed: least prior score over sigma^2; its step over that of ICL; the largest prior score after it."""
    scores = [np.asarray(seed) for seed in result["prior_score"]]
    where = [lowest(result["steps"], score) for score in scores]
    return {
        "least prior score / sigma^2": [float(s.min()) / result["sigma2"] for s in scores],
        "its step / step of ell_K - ell_1 = -1": [
            (step / max(icl_step(result, number), 1)) if icl_step(result, number) < math.inf else 0.0
            for number, step in enumerate(where)
        ],
        "prior score at the end": [float(s[-1]) for s in scores],
    }


def learns_in_context(result: dict) -> dict[str, list]:
    """Per seed ell_K - ell_1, at the end and at the checkpoint where the prior score is least."""
    gains = [gain(seed, 1, last_token(result)) for seed in result["token_losses"]]
    least = [int(np.argmin(seed)) for seed in result["prior_score"]]
    return {
        "ell_K - ell_1 at the end": [float(g[-1]) for g in gains],
        "ell_K - ell_1 where the prior score is least": [float(g[i]) for g, i in zip(gains, least, strict=True)],
    }


def early_first(result: dict) -> list[float]:
    """Per seed the step at which ell_m - ell_1 reaches half of its last value over that at which ell_K - ell_m does."""

    def half(seed, start: int, end: int) -> float:
        curve = gain(seed, start, end)
        return first(result["steps"], curve, lambda v: v <= curve[-1] / 2) if curve[-1] < 0 else math.inf

    K, m = last_token(result), middle_token(result)
    pairs = [(half(seed, 1, m), half(seed, m, K)) for seed in result["token_losses"]]
    return [early / late if early < math.inf else math.inf for early, late in pairs]


def forgets_large_inputs(result: dict) -> dict[str, list]:
    """Per seed and g: (ell_K - ell_1) / g at the end less its least value before, while the loss still falls."""
    K = last_token(result)
    scores = {g: [gain(seed, 1, K) for seed in result[f"inputs_x{g}"]] for g in (5, 10)}
    losses = [np.asarray(seed).mean(1) for seed in result["token_losses"]]
    least = [int(np.argmin(seed)) for seed in scores[5]]
    return {
        **{f"g = {g}, end less least": [float(s[-1] - s.min()) for s in rows] for g, rows in scores.items()},
        "loss since, end / then": [float(loss[-1] / loss[i]) for loss, i in zip(losses, least, strict=True)],
    }


def falls_to_ridge(result: dict) -> dict[str, list]:
    """Per seed, from the least prior score on: distance at the end over that then, and the largest rise above the least so
    far over that then."""
    ends, rises = [], []
    for score, curve in zip(result["prior_score"], result["delta_ridge"], strict=True):
        later = np.asarray(curve)[int(np.argmin(score)) :]
        ends.append(float(later[-1] / later[0]))
        rises.append(float((later - np.minimum.accumulate(later)).max() / later[0]))
    return {"end / start": ends, "largest rise / start": rises}


def grows(result: dict) -> dict[str, list]:
    """Per seed the norm at the end over that at the start, and the largest fall below the largest so far over it."""
    curves = [np.asarray(seed) for seed in result["weight_norm"]]
    return {
        "end / start": [float(c[-1] / c[0]) for c in curves],
        "largest fall / start": [float((np.maximum.accumulate(c) - c).max() / c[0]) for c in curves],
    }


def draw(result: dict):
    """Loss by token with the baseline's, prior score, ICL scores, distance to ridge, and ICL scores on larger inputs."""
    K, m = last_token(result), middle_token(result)
    fig, axes = plotting.axes(3, 2, height=4.2)
    axes = axes.flatten()
    for k, color in zip(range(K), plotting.ordered(K), strict=True):
        draw_curve(axes[0], result, "token_losses", f"k = {k + 1}", color, lambda seed, k=k: seed[:, k])
    axes[0].legend(fontsize=5, ncols=2)
    draw_curve(axes[1], result, "prior_score", "mean of prediction$^2$", plotting.PALETTE["model"])
    axes[1].axhline(result["sigma2"], color=plotting.GREY, linewidth=0.8, label=r"$\sigma^2$")
    for (start, end), color in {(1, K): plotting.INK, (1, m): plotting.SKY, (m, K): plotting.VERMILION}.items():
        part = lambda seed, start=start, end=end: gain(seed, start, end)  # noqa: E731
        draw_curve(axes[2], result, "token_losses", rf"$\ell_{end} - \ell_{start}$", color, part)
    draw_curve(axes[3], result, "delta_ridge", "to ridge", plotting.PALETTE["model"])
    if "delta_dmmse" in result:
        draw_curve(axes[3], result, "delta_dmmse", "to dMMSE", plotting.PALETTE["baseline"])
    for ax, what in ((axes[4], "inputs"), (axes[5], "tasks")):
        names = [key for key in result if key.startswith(f"{what}_x")]
        for name, color in zip(names, plotting.ordered(len(names)), strict=True):
            draw_curve(ax, result, name, f"g = {name.partition('_x')[2]}", color, lambda seed: gain(seed, 1, K))
    texts = ("loss by token", "prior score", "ICL score", "distance to baseline")
    for ax, text in zip(axes, (*texts, "ICL score / g, inputs g x", "ICL score / g, tasks g t"), strict=True):
        over_training(ax, text)
    for ax in axes[1:]:
        ax.legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    prior, icl = learns_the_prior(result), learns_in_context(result)
    least = np.mean(prior["least prior score / sigma^2"])
    steps = ", ".join(str(lowest(result["steps"], seed)) for seed in result["prior_score"])
    ends = ", ".join(f"{value:.2f}" for value in icl["ell_K - ell_1 at the end"])
    return f"prior score down to {least:.2g} sigma^2 at steps {steps}; ICL score at the end {ends}"


CLAIMS = [
    Claim("C3", "The prior is learned first: the prediction 0.", source="section 4.1, Fig 5 top",
          paper="about 0.1; 0.007 to 0.018 in the published data, after step 1465; then 2.2", presets=ALL,
          number=learns_the_prior,
          below={"least prior score / sigma^2": 1.0, "its step / step of ell_K - ell_1 = -1": 1.0},
          above={"prior score at the end": 1.8}),
    Claim("C4", "In-context learning is acquired in LR2, after the prior.", source="section 4.2, Fig 5 bottom",
          paper="-3.48 at the end of LR2, +0.08 at that of LR1", presets=ALL, number=learns_in_context,
          below={"ell_K - ell_1 at the end": -1.0}, above={"ell_K - ell_1 where the prior score is least": -1.0}),
    Claim("C5", "Early context is used first.", source="section 4.2, Fig 5",
          paper="ell_4 - ell_1 at half of its end by 2843, ell_8 - ell_4 later than 5050", presets=ALL, number=early_first,
          unit="step of half, early / late", below=1.0),
    Claim("C6", "After LR2 large inputs are predicted worse, while the loss still falls.", source="section 4.3, Fig 5",
          paper="g = 5: -6.62 to -3.05; g = 10: -2.48 to -0.42", presets=LONG, number=forgets_large_inputs,
          above={"g = 5, end less least": 0.5, "g = 10, end less least": 0.5},
          below={"loss since, end / then": 1.0}),
    Claim("C13", "The norm of the weights grows throughout.", source="appendix B.5",
          paper="24.9 at the start, 31.9 at the end of LR2, 236 at the end", presets=ALL, number=grows,
          above={"end / start": 1.0}, below={"largest fall / start": 0.02}),
    Claim("C14", "In LR2 the distance to ridge falls without a rise.", source="Fig 5, appendix",
          paper="2.44 at the start of LR2, 0.24 at its end", presets=ALL, number=falls_to_ridge,
          below={"end / start": 0.5, "largest rise / start": 0.05}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
