"""Information content of one-hop models against size and load (Johnston & Belrose, arXiv 2502.03490, one-hop scaling; capacity
ratios of Allen-Zhu & Li, arXiv 2404.05405)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from capacity_reasoning.analysis import _scaling_figure
from capacity_reasoning.analysis._grid import EXACT, at, by_seed, dip, extremes, line, saturated, variation
from capacity_reasoning.analysis._presets import ALL, LONG
from capacity_reasoning.analysis._runs import siblings
from capacity_reasoning.capacity import Row, contents, storages
from capacity_reasoning.estimators.entropy import SCHEMES, copies_of, subject_entropies
from capacity_reasoning.evaluate import Analysis, Trained, norms
from capacity_reasoning.examine import ONE_HOP
from common import experiment
from common.claims import Claim
from common.config import UserError
from common.experiment import interval
from common.limits import Name

LONG_ENOUGH = 900
"""Exposures of a fact from which a run counts as one of 1000."""


@dataclass
class Settings(Analysis):
    prefix: Name = "onehop_"
    """Runs beside this one: those whose names begin so."""


def exposures(trained: Trained) -> float | None:
    """How often each fact was asked on average; None for windows, whose questions are cut at no fixed number."""
    c = trained.config
    if c.data.packing == "causal":
        return None
    return c.train.steps * c.train.batch * (1 - c.mix.two_hop) / (trained.N * (4 + trained.R))


def known(trained: Trained, number: int, row: Row) -> list[float]:
    """Part of each subject's bits that a model knows (S,): 1 - loss / entropy, below 0 where it is worse than a guess."""
    support = trained.support[number]
    stored = copies_of(support, "one_hop") * subject_entropies(support, row.scheme)
    learnt = row.found.per_subject - row.found.selection
    return np.divide(learnt, stored, out=np.ones(support.S), where=stored > 0).tolist()


def of_scheme(rows: list[Row], P: int) -> dict:
    """One run under one scheme; rows: of every seed."""
    found = [row.found for row in rows]
    return {
        "bits": [one.bits for one in found],
        "error": [one.error for one in found],
        "dataset": [one.dataset for one in found],
        "baseline": [float(one.selection.sum()) for one in found],
        "per_parameter": [one.bits / P for one in found],
        "load": [one.dataset / P for one in found],
    }


def measure(trained: Trained, most: int | None) -> dict:
    """One run of `analyse`."""
    if ONE_HOP not in storages(trained):
        raise UserError(
            f"found orders {trained.config.mix.orders} in {trained.run.path}, expected a run with one-hop questions; "
            "mend: another --prefix"
        )
    rows = [[row for row in seed if row.hops == ONE_HOP] for seed in contents(trained, most)]
    schemes = {name: [next(row for row in seed if row.scheme == name) for seed in rows] for name in SCHEMES}
    model = trained.config.model
    return {
        "N": trained.N, "R": trained.R, "P": trained.P, "layers": model.layers, "d": model.d, "exposures": exposures(trained),
        "subjects": list(trained.support[0].subjects), "norm": norms(trained),
        "known": [known(trained, number, row) for number, row in enumerate(schemes[EXACT])],
        "schemes": {name: of_scheme(seeds, trained.P) for name, seeds in schemes.items()},
    }  # fmt: skip


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> name -> N, R, P, layers, d, exposures (of a fact; None: unknown), subjects (names), norm (S,) of weights,
    known (S, subjects): part of each subject's bits; schemes -> name -> per seed bits (content), error (standard, 0 where all
    questions are asked), dataset and baseline (bits), per_parameter (bits / P) and load (dataset / P)."""
    runs = siblings(trained, settings.prefix, own=True)
    return {"runs": {run.run.path.name: measure(run, settings.most) for run in runs}}


# --- per seed, over runs --------------------------------------------------------------------------------------------------


def linear(result: dict) -> dict[str, list]:
    """Per seed the line through saturated runs, and how near any run comes to its dataset's entropy."""
    lines = by_seed(result, line, saturated)
    full = by_seed(result, lambda runs, seed: max(at(run, "bits", seed) / at(run, "dataset", seed) for run in runs))
    return {
        "bits per added parameter": [one and one[0] for one in lines],
        "R^2": [one and one[1] for one in lines],
        "largest content / entropy": full,
    }


def flatter(result: dict) -> list[float | None]:
    """Per seed the coefficient of variation of `enumerate` minus that of `optimal`."""
    pairs = zip(*(variation(result, scheme)["values"] for scheme in ("enumerate", "optimal")), strict=True)
    return [None if None in pair else pair[0] - pair[1] for pair in pairs]


def long(run: dict, seed: int) -> bool:
    """Whether a run asked each fact about 1000 times, so far as is known."""
    return (run["exposures"] or 0) >= LONG_ENOUGH


def anchor(result: dict) -> dict[str, list]:
    """Per seed, of runs of about 1000 exposures: the peak capacity ratio; the least part known at loads up to 1.8."""

    def peak(runs: list[dict], seed: int) -> float | None:
        return max((at(run, "per_parameter", seed) for run in runs), default=None)

    def least(runs: list[dict], seed: int) -> float | None:
        light = [run for run in runs if at(run, "load", seed) <= 1.8]
        return min((at(run, "bits", seed) / at(run, "dataset", seed) for run in light), default=None)

    return {"peak bits per parameter": by_seed(result, peak, long),
            "content / entropy at loads up to 1.8": by_seed(result, least, long)}  # fmt: skip


def uneven(result: dict) -> dict[str, list]:
    """Per seed the range over subjects of the known part at the largest load, that range above the one at the least load; and
    bits per parameter where only names are known, over the best of the other saturated runs of the same model."""
    pairs = by_seed(result, extremes)
    ranges = [pair and [float(np.ptp(run["known"][seed])) for run in pair] for seed, pair in enumerate(pairs)]
    return {
        "range of known parts at the largest load": [pair and pair[1] for pair in ranges],
        "that range above the one at the least load": [pair and pair[1] - pair[0] for pair in ranges],
        "bits per parameter with names only / best": by_seed(result, dip, saturated),
    }


# --- told -----------------------------------------------------------------------------------------------------------------


def draw(result: dict):
    """Content against P under three schemes and for each N; against N; bits per parameter; the parts known by subject."""
    return _scaling_figure.draw(
        result, {name: variation(result, name) for name in SCHEMES}, by_seed(result, extremes)[0]
    )


def spread(result: dict, scheme: str) -> str:
    """A scheme's coefficient of variation in words: mean over seeds, jackknife error, interval over seeds."""
    found = variation(result, scheme)
    mean, error = interval(found["values"])
    over = "" if error is None else f", over seeds {error:.2f}"
    return f"{scheme} {mean:.2f} (jackknife {np.mean(found['jackknife']):.2f}{over})"


def finding(result: dict) -> str:
    told = {name: variation(result, name)["values"] for name in SCHEMES}
    told = {name: float(np.mean(values)) for name, values in told.items() if None not in values}
    if not told:
        return f"{len(result['runs'])} runs, fewer than three of them saturated: no scheme can be told from another"
    flattest = min(told, key=told.get)
    rest = ", ".join(spread(result, name) for name in sorted(told, key=told.get))
    return f"{flattest} makes bits per parameter flattest; coefficient of variation over saturated runs: {rest}"


CLAIMS = [
    Claim("C1", "One-hop information content grows linearly with P, until the dataset's entropy caps it.",
          source="one-hop scaling", paper="about 2 bits per parameter", presets=ALL, number=linear,
          above={"R^2": 0.95}, within={"bits per added parameter": (0.5, 2.3)},
          below={"largest content / entropy": 1 + 1e-9}),
    Claim("C2", "Bits per parameter are flatter over N and P under `enumerate` than under `optimal`.",
          source="research notes, selection schemes", paper="0.10 - 0.23 (read off the authors' curves, R = 4)", presets=ALL,
          number=flatter, unit="difference of coefficients of variation", below=0.0,
          note=lambda result: spread(result, EXACT) if None not in variation(result, EXACT)["values"] else ""),
    Claim("C3", "At 1000 exposures of a fact capacity peaks at 2 to 2.3 bits per parameter, and a load up to 1.8 is known.",
          source="arXiv 2404.05405, results 1 and 4", paper="2 or more, at most 2.3", presets=LONG, number=anchor,
          within={"peak bits per parameter": (2.0, 2.3)}, above={"content / entropy at loads up to 1.8": 0.9}),
    Claim("C14", "Under pressure capacity is uneven across subjects, and dips slightly where only names are known.",
          source="research notes", paper="described only", presets=ALL, number=uneven,
          above={"range of known parts at the largest load": 0.1, "that range above the one at the least load": 0.0},
          within={"bits per parameter with names only / best": (0.7, 1.0)}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
