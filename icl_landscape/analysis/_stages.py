"""Stages of a run's curves, with what they are found from, and the paper's stages on the run's clock."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch

from common import experiment
from common.config import UserError
from common.limits import Amount, Natural, Positive, Range, Seed, Share
from icl_landscape.estimators.gaussian_process import smooth
from icl_landscape.estimators.stages import Rule, averages, bootstrap, centred, resample, stages, variances
from icl_landscape.evaluate import Analysis, Trained
from icl_landscape.train import Config, Train, learning_rate

READS = {"llc_paper": "llc_chains", "llc_local": "llc_chains", "behaviour": "token_losses"}
"""Results that are read, and of each the curve."""
PAPER = {"LR1": 1_000, "LR2": 40_000, "LR3": 126_000, "LR4": 320_000, "LR5": 500_000, "LR1, older numbering": 1_500}
"""Ends of the paper's stages (Table 2). The authors' own files have an older numbering: LR1 to 1.5k, and LR3 + LR4 as one."""
LEAST = 3
"""Values that a curve must have."""


@dataclass
class Detection(Analysis):
    """Settings of an experiment that finds stages."""

    flat: Share = 0.1
    """Largest |slope| of a plateau over log(t + 1), as part of the curve's largest |slope|."""
    slope: Positive | None = None
    """For the LLC the same as a number, in place of `flat`; the authors have 8."""
    sigmas: Amount = 4.0
    """A stage changes the curve by more standard deviations of that change, as the fit knows it, ..."""
    least: Share = 0.02
    """... and by more than this part of the fit's range."""
    grid: Annotated[int, Range(10, 10**5)] = 300
    """Points of a fit, in equal distances of log(t + 1)."""
    resamples: Natural = 100
    """Draws of chains and seeds for the intervals of boundaries."""
    seed: Seed = 0
    """Of those draws."""

    def rule(self, llc: bool) -> Rule:
        return Rule(self.flat, self.slope if llc else None, self.sigmas, self.least, self.grid)


def read(trained: Trained, name: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """(steps (T,), curve (S, T, ...) with NaN for null, the whole) of another experiment's result on the same run.

    Raises UserError where it is missing, or of other seeds.
    """
    run, key = trained.run, READS[name]
    need = name if run.path.name == "main" else f"{run.path.name}/{name}"
    mend = f"make it with: {experiment.command(Config.PAPER, need, run.path.parent)}"
    path = run.path / "results" / f"{name}.json"
    if not path.is_file():
        raise UserError(f"found no {path}, expected what the stages are found from; {mend}")
    result = run.read(name)
    if result.get("seeds") != trained.seeds:
        raise UserError(f"found seeds {result.get('seeds')} in {path}, expected {trained.seeds}; {mend}")
    try:
        steps, curve = np.asarray(result["steps"], dtype=float), np.asarray(result[key], dtype=float)
    except (KeyError, ValueError, TypeError):
        steps, curve = np.empty(0), np.empty((0, 0))
    if curve.ndim != 3 or curve.shape[:2] != (len(trained.seeds), steps.size):
        raise UserError(f"found no {key} of {len(trained.seeds)} seeds over steps in {path}; {mend}")
    return steps, curve, result


def clock(train: Train) -> np.ndarray:
    """Sum of the learning rates of all updates up to each step, 0 to the last (steps + 1,)."""
    rates = learning_rate(train, torch.arange(1, train.steps + 1, dtype=torch.float64))
    return np.concatenate([[0.0], rates.double().cumsum(0).numpy()])


def papers(train: Train) -> list[dict]:
    """The paper's ends of stages: name, paper (its step), rates (sum of the learning rates to it), and step, the first of this
    run with as large a sum (None beyond its end)."""
    theirs, ours = clock(Train()), clock(train)
    rates = {name: theirs[end] for name, end in PAPER.items()}
    steps = {name: int(np.searchsorted(ours, rate)) for name, rate in rates.items()}
    return [
        {"name": n, "paper": PAPER[n], "rates": float(rates[n]), "step": s if s < len(ours) else None}
        for n, s in steps.items()
    ]


def staged(
    settings: Detection, rule: Rule, steps: np.ndarray, y: np.ndarray, known: np.ndarray, draw: Callable | None
) -> dict:
    """Of one curve y (T,): boundaries with intervals, stages, and the fit on a grid.

    draw: random generator -> the curve (T,) drawn anew; None: the fit with its noise.
    """
    there = np.isfinite(y)
    if there.sum() < LEAST:
        return {"boundaries": [], "stages": [], "fit": [float("nan")] * settings.grid}
    fit = smooth(steps, y, known)
    again = draw or (lambda random: fit.mean(fit.x) + np.sqrt(fit.noise) * random.standard_normal(len(fit.x)))
    rows = (steps, known) if draw else (steps[there], known[there])
    sure = bootstrap(fit, rows[0], again, rule, settings.resamples, settings.seed, rows[1])
    found = [{"start": s.start, "end": s.end, "type": s.type, "change": s.change} for s in stages(fit, rule)]
    grid = np.linspace(*np.log1p([steps[0], steps[-1]]), settings.grid)
    return {"boundaries": sure, "stages": found, "fit": fit.mean(grid).tolist()}


def curve_stages(settings: Detection, rule: Rule, steps: np.ndarray, chains: np.ndarray) -> dict:
    """Of a curve (S, T, chains), one chain where there are none: steps, values (S, T), fit_steps, and what `staged` says of
    each seed and of the mean over those that did not diverge."""
    chains = centred(chains)
    values, known, several = averages(chains), variances(chains), chains.shape[2] > 1
    draws = [partial(resample, chains[n : n + 1]) if several else None for n in range(len(chains))]
    seeds = [staged(settings, rule, steps, y, known, draw) for y, draw in zip(values, draws, strict=True)]
    whole = np.isfinite(values).all(1)
    mean = values[whole].mean(0) if whole.any() else np.full(len(steps), np.nan)
    pooled = staged(settings, rule, steps, mean, known / max(whole.sum(), 1), partial(resample, chains[whole]))
    grid = np.expm1(np.linspace(*np.log1p([steps[0], steps[-1]]), settings.grid))
    return {
        "steps": steps.tolist(),
        "values": values.tolist(),
        "fit_steps": grid.tolist(),
        "seeds": seeds,
        "pooled": pooled,
    }


def add_losses(curve: dict, steps: np.ndarray, losses: np.ndarray) -> None:
    """To every stage of a curve the change of the test loss in it, from losses (S, T) at steps (T,)."""
    for rows, loss in [*zip(curve["seeds"], losses, strict=True), (curve["pooled"], losses.mean(0))]:
        for stage in rows["stages"]:
            start, end = np.interp(np.log1p([stage["start"], stage["end"]]), np.log1p(steps), loss)
            stage["loss"] = float(end - start)
