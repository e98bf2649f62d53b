"""Does the LLC put the checkpoints in the same order whatever the data set's size, the batch, the loss and the sampling seed?
(paper appendix on calibration). One setting at a time is changed from a base."""

import common.process  # noqa: F401

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

import numpy as np
from scipy.stats import spearmanr

from common import experiment, plotting
from common.claims import Claim
from common.config import UserError
from common.limits import Distinct, Natural, Seed
from icl_landscape.analysis._curves import draw_curve, over_training
from icl_landscape.analysis._grid import Grid, first_seeds, over_settings
from icl_landscape.analysis._llc import findings, told, with_sampling
from icl_landscape.analysis._presets import LONG
from icl_landscape.evaluate import Trained


@dataclass
class Variants:
    """Values beside that of the base, each a variant of its own."""

    samples: Annotated[list[Natural], Distinct()] = field(default_factory=list)
    """Sizes of the fixed set that minibatches come from; 0: fresh sequences."""
    batch: Annotated[list[Natural], Distinct()] = field(default_factory=list)
    """Sequences of a minibatch; 0: all of a fixed set."""
    loss: Annotated[list[Literal["mse", "subsequence"]], Distinct()] = field(default_factory=list)
    """Losses."""
    seed: Annotated[list[Seed], Distinct()] = field(default_factory=list)
    """Seeds of noise and minibatches."""
    shared: Annotated[list[bool], Distinct()] = field(default_factory=list)
    """Whether every checkpoint has the same noise and minibatches."""


@dataclass
class Settings(Grid):
    variants: Variants = field(default_factory=Variants)

    def __post_init__(self):
        super().__post_init__()
        variants, fixed = self.variants, self.samples
        if (self.sampling.batch == 0 and not (fixed and all(variants.samples))) or (0 in variants.batch and not fixed):
            raise ValueError(
                "found a batch of 0, all of the fixed set, and samples 0, expected --samples to say its size"
            )


def named(settings: Settings) -> dict[str, Settings]:
    """Name of a variant, such as "batch 64", -> its settings."""
    several, alone = {}, replace(settings, variants=Variants())
    for one in fields(Variants):
        own = alone if one.name in ("samples", "loss") else alone.sampling
        for value in getattr(settings.variants, one.name):
            if value != getattr(own, one.name):
                change = {one.name: value}
                changed = replace(alone, **change) if own is alone else with_sampling(alone, **change)
                several[f"{one.name} {str(value).lower()}"] = changed
    return several


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: seeds (those looked at); steps (T); base and variants -> name -> per seed and checkpoint (S, T) what llc.py tells;
    order -> name -> per seed Spearman's rank correlation over checkpoints of the LLC with the base's (null where undefined);
    kinds -> name -> kind of finding -> how many."""
    trained = first_seeds(trained, settings.seeds)
    steps, several = settings.steps(trained), {"base": settings} | named(settings)
    if len(several) == 1:
        raise UserError("found no variants that differ from the base, expected some, such as --variants.seed [1, 2]")
    curves, kinds = {}, {}
    for name, parts in zip(several, over_settings(trained, list(several.values()), steps), strict=True):
        rows = [told(parts[seed]) for seed in trained.seeds]
        curves[name] = {key: [row[key] for row in rows] for key in rows[0]}
        found = [row["kind"] for seed in trained.seeds for row in findings(seed, steps, parts[seed])]
        kinds[name] = {kind: found.count(kind) for kind in dict.fromkeys(found)}
    base = curves.pop("base")
    order = {name: [rank(*pair) for pair in zip(base["llc"], one["llc"], strict=True)] for name, one in curves.items()}
    return {"seeds": trained.seeds, "steps": steps, "base": base, "variants": curves, "order": order, "kinds": kinds}


def rank(one, other) -> float | None:
    """Spearman's correlation over checkpoints where both are finite; None for fewer than three, or where one is constant."""
    both = np.array([one, other], dtype=float)
    both = both[:, np.isfinite(both).all(0)]
    if both.shape[1] < 3 or not np.ptp(both, axis=1).all():
        return None
    return float(spearmanr(*both).statistic)


def least(result: dict) -> list[float | None]:
    """Per seed the least rank correlation over variants; None where a variant has none."""
    columns = zip(*result["order"].values(), strict=True)
    return [None if None in seed else min(seed) for seed in columns]


RESULTS = {
    "llc_dataset_size": "size of the data set",
    "llc_batch_size": "batch",
    "llc_loss": "loss",
    "llc_seed": "sampling seed",
}
"""The experiments of this script -> what they vary."""


def keeps_order(*results: dict) -> dict[str, list]:
    """Per seed and experiment the least rank correlation of checkpoints between the base and any variant."""
    return {name: least(result) for name, result in zip(RESULTS.values(), results, strict=True)}


def draw(result: dict):
    """LLC over training of the base and every variant; their rank correlations per seed."""
    fig, axes = plotting.axes(2, height=2.4, width_ratios=[3, 2])
    names = list(result["variants"])
    draw_curve(axes[0], {"steps": result["steps"], **result["base"]}, "llc", "base", plotting.INK)
    for name, color in zip(names, plotting.ordered(len(names)), strict=True):
        draw_curve(axes[0], {"steps": result["steps"], **result["variants"][name]}, "llc", name, color)
    over_training(axes[0], r"$\hat\lambda$")
    axes[0].set_xlim(left=result["steps"][0])
    axes[0].legend(fontsize=6)
    plotting.seed_dots(axes[1], result["order"], plotting.PALETTE["model"])
    axes[1].axhline(CLAIMS[0].above[RESULTS["llc_loss"]], color=plotting.GREY, linewidth=0.8)
    axes[1].set(ylabel="rank correlation with the base", ylim=(None, 1.05))
    axes[1].tick_params(axis="x", labelrotation=30)
    return fig


def finding(result: dict) -> str:
    told = {n: "/".join("?" if v is None else f"{v:.2f}" for v in seeds) for n, seeds in result["order"].items()}
    return "rank correlation of the checkpoints with the base: " + ", ".join(f"{n} {text}" for n, text in told.items())


CLAIMS = [
    Claim("C18", "The LLC's order of checkpoints does not depend on data set size, batch, loss and sampling seed.",
          source="appendix on calibration", paper="shown as curves", presets=LONG, needs=tuple(RESULTS), number=keeps_order,
          above=dict.fromkeys(RESULTS.values(), 0.8)),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
