"""Information content of two-hop models by storage, against their size: how often is a fact stored, and from which size on are
hops composed (Johnston & Belrose, arXiv 2502.03490, two-hop scaling with 17 relations).

Composed: the two-hop loss is below what the same bits could buy in a table of two-hop answers (the level of big hash).
"""

import common.process  # noqa: F401

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from capacity_reasoning.analysis import _two_hop_figure
from capacity_reasoning.analysis._losses import Scheme, beside_uniform, capacity_constant, fitted, needed, stored
from capacity_reasoning.analysis._presets import LONG
from capacity_reasoning.analysis._runs import siblings
from capacity_reasoning.capacity import TWO_HOP
from capacity_reasoning.estimators.entropy import STORAGES, baseline_bits
from capacity_reasoning.evaluate import Analysis, Trained
from capacity_reasoning.examine import ONE_HOP
from common import experiment
from common.claims import Claim
from common.config import UserError
from common.limits import Name

BELOW = 0.9
"""Two-hop loss over the level of big hash, below which hops count as composed."""


@dataclass
class Settings(Analysis):
    prefix: Name = "twohop_"
    """Two-hop runs to compare: those of the study whose names begin so."""
    onehop: Name = "onehop_"
    """Runs of one-hop questions, beside this one."""
    scheme: Scheme = "corrected"
    """How the model knows which names exist."""


def sizes(run: Trained) -> dict:
    """What a run is told by."""
    return {"N": run.N, "R": run.R, "P": run.P, "layers": run.config.model.layers}


def one_hop(run: Trained, settings: Settings) -> dict:
    """One-hop content of a run."""
    found = run.losses(ONE_HOP, settings.most)
    return {
        ONE_HOP: beside_uniform(run, ONE_HOP, found),
        "one_hop": stored(run, found, ONE_HOP, settings.scheme, settings.most)["one_hop"],
    }


def two_hop(run: Trained, settings: Settings) -> dict:
    """One run of `analyse`."""
    found = run.losses(TWO_HOP, settings.most)
    return {
        **sizes(run),
        TWO_HOP: beside_uniform(run, TWO_HOP, found),
        "storages": stored(run, found, TWO_HOP, settings.scheme, settings.most),
        "needed": {storage: needed(run, storage, settings.scheme) for storage in STORAGES},
        "names": [baseline_bits(support, settings.scheme) / run.P for support in run.support],
        **(one_hop(run, settings) if 1 in run.config.mix.orders else {}),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> name -> N, R, P, layers; train_twohop and, where trained on, train_onehop {loss, uniform} (nats per
    question); in bits per parameter, all per seed: storages -> one_hop, double, big_hash {content, error, dataset}; needed ->
    the same storages, of all questions asked; names, their part; one_hop {content, error, dataset} of one-hop questions.
    onehop -> name -> N, R, P, layers, train_onehop, one_hop, of models trained on one-hop questions alone."""
    runs = [run for run in siblings(trained, settings.prefix) if not run.config.data.cot and 2 in run.config.mix.orders]
    if not runs:
        raise UserError(f"found runs {settings.prefix}* with chain of thought alone, expected two hops without")
    singles = [run for run in siblings(trained, settings.onehop, own=True) if run.config.mix.orders == [1]]
    return {
        "runs": {run.run.path.name: two_hop(run, settings) for run in runs},
        "onehop": {run.run.path.name: sizes(run) | one_hop(run, settings) for run in singles},
    }


def constants(result: dict) -> list[float | None]:
    """Per seed the bits that a parameter of one-hop models holds; None without a saturated one."""
    if not result["onehop"]:
        return [None] * len(result["seeds"])
    return capacity_constant([run["one_hop"] for run in result["onehop"].values()])


def over_level(run: dict, seed: int, constant: float) -> float:
    """Two-hop loss over that of a table of two-hop answers that has all bits but those of the names; inf if all fit in."""
    facts = run["needed"]["big_hash"][seed] - run["names"][seed]
    share = (constant - run["names"][seed]) / facts
    level = run[TWO_HOP]["uniform"][seed] * (1 - min(max(share, 0.0), 1.0))
    return run[TWO_HOP]["loss"][seed] / level if level > 0 else np.inf


def over_one_hop(run: dict, seed: int, constant: float) -> float:
    """P over the parameters that just hold every fact once."""
    return constant / run["needed"]["one_hop"][seed]


def composing(result: dict, seed: int, constant: float) -> Iterator[dict]:
    """The runs whose model of a seed composes."""
    return (run for run in result["runs"].values() if over_level(run, seed, constant) < BELOW)


def storage_fits(result: dict) -> dict[str, list]:
    """Per seed, medians over the models that compose: content over min(dataset, what one-hop models hold), by storage.

    one_hop: only where the parameters do not hold two copies of relations, since else both storages allow the same loss.
    None without such a model, or without a saturated one-hop one.
    """
    told: dict[str, list] = {f"content / allowed, {storage}": [] for storage in STORAGES}
    for seed, constant in enumerate(constants(result)):
        runs = [] if constant is None else list(composing(result, seed, constant))
        for storage, values in zip(STORAGES, told.values(), strict=True):
            telling = [run for run in runs if storage != "one_hop" or run["needed"]["double"][seed] > constant]
            each = [run["storages"][storage] for run in telling]
            fits = [fitted(row["content"][seed], row["dataset"][seed], constant) for row in each]
            values.append(float(np.median(fits)) if fits else None)
    return told


def onset(result: dict) -> list[float | None]:
    """Per seed the smallest P that composes over the P that holds every fact once, the least of any population.

    None where none composes, and of a population whose smallest model does so from 2 on: a smaller one might have too.
    """
    found = []
    for seed, constant in enumerate(constants(result)):
        each = [] if constant is None else [_onset(runs, seed, constant) for runs in populations(result).values()]
        found.append(min((ratio for ratio in each if ratio is not None), default=None))
    return found


def _onset(runs: list[dict], seed: int, constant: float) -> float | None:
    composed = [over_level(run, seed, constant) < BELOW for run in runs]
    if not any(composed):
        return None
    ratio = over_one_hop(runs[composed.index(True)], seed, constant)
    return None if composed[0] and ratio >= 2 else float(ratio)


def populations(result: dict) -> dict[tuple[int, int], list[dict]]:
    """Runs by (N, R), in the order of P."""
    groups: dict[tuple[int, int], list[dict]] = {}
    for run in sorted(result["runs"].values(), key=lambda run: run["P"]):
        groups.setdefault((run["N"], run["R"]), []).append(run)
    return groups


def draw(result: dict):
    """Bits per parameter by storage; loss over the level of big hash; one-hop against two-hop content, in bits and per P."""
    levels = []
    for (N, R), runs in populations(result).items():
        points = [
            (over_one_hop(run, seed, constant), over_level(run, seed, constant))
            for run in runs
            for seed, constant in enumerate(constants(result))
            if constant is not None
        ]
        levels.append((f"N = {N:,}, R = {R}", points))
    return _two_hop_figure.draw(result, levels, BELOW)


def finding(result: dict) -> str:
    known = [constant for constant in constants(result) if constant is not None]
    held = f"{np.mean(known):.2f} bits per parameter" if known else "none saturated"
    fits = {name: [v for v in values if v is not None] for name, values in storage_fits(result).items()}
    told = [f"{name} {np.mean(values):.2f}" for name, values in fits.items() if values]
    return f"one-hop models: {held}; {', '.join(told) or 'no two-hop model composes'}"


CLAIMS = [
    Claim("C5", "With many relations and enough parameters every relation is stored twice, as bridge and as answer: content "
          "under double storage is what one-hop models hold, and under others is not.", source="abstract, two-hop scaling",
          paper="equal within error; no number found", presets=LONG, number=storage_fits,
          within={"content / allowed, double": (0.8, 1.25)}, above={"content / allowed, big_hash": 1.25},
          below={"content / allowed, one_hop": 0.8}),
    Claim("C12", "Hops are composed only from about 2 to 3 times the parameters that hold every fact once.",
          source="draft and research notes", paper="2 (draft) to 3 (notes)", presets=LONG, number=onset,
          unit="least P that composes / P of one-hop", above=2.0),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
