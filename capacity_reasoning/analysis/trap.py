"""Which type of question a small model memorises where it is trained on both: the trap of two-hop answers stored one by one
(Johnston & Belrose, arXiv 2502.03490, two-hop runs with 4 relations, and their rule of allocation)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from capacity_reasoning.analysis._axes import ABOVE, DOTS, log_x
from capacity_reasoning.analysis._losses import Scheme, beside_uniform, over_uniform, stored
from capacity_reasoning.analysis._presets import ALL
from capacity_reasoning.analysis._runs import siblings
from capacity_reasoning.capacity import TWO_HOP
from capacity_reasoning.estimators.allocation import memorised_first
from capacity_reasoning.evaluate import Analysis, Trained
from capacity_reasoning.examine import ONE_HOP
from common import experiment, plotting
from common.claims import Claim, Missing
from common.limits import Name

HOME = "trap_r4_h0.1/trap"
TELLING = 0.05
"""Share of its greatest decrease by which the loss of a type has to have fallen for a run to say which was first."""
COLORS = {ONE_HOP: plotting.BLUE, TWO_HOP: plotting.VERMILION}
LABELS = {ONE_HOP: "one hop", TWO_HOP: "two hops"}
STORED_AS = {"one_hop": "one copy", "double": "two copies", "big_hash": "big hash"}


@dataclass
class Settings(Analysis):
    prefix: Name = "trap_"
    """Runs to compare: those of the study whose names begin so."""
    scheme: Scheme = "corrected"
    """How the model knows which names exist, for its content."""


def measure(run: Trained, settings: Settings) -> dict:
    """One run of `analyse`."""
    found = {mode: run.losses(mode, settings.most) for mode in (ONE_HOP, TWO_HOP)}
    curves = {mode: run.curves(mode) for mode in found}
    R, h = run.R, run.config.mix.hop_ratio
    return {
        **{"R": R, "h": h, "Rh": R * h, "P": run.P, "N": run.N, "predicted": memorised_first(R, h)},
        **{mode: beside_uniform(run, mode, losses) for mode, losses in found.items()},
        "bits_per_parameter": stored(run, found[TWO_HOP], TWO_HOP, settings.scheme, settings.most),
        "steps": curves[ONE_HOP][0].tolist(),
        "curves": {mode: values.tolist() for mode, (_, values) in curves.items()},
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> name -> R, h, Rh, P, N; predicted, the type that bits should go to first; train_onehop and train_twohop,
    each {loss, uniform} per seed (nats per question); bits_per_parameter -> storage -> {content, error, dataset} of two-hop
    answers per seed; steps (T,), and curves -> train_onehop, train_twohop: loss (seeds, T) as metrics.jsonl tells."""
    runs = siblings(trained, settings.prefix, own=True)
    return {"runs": {run.run.path.name: measure(run, settings) for run in sorted(runs, key=_order)}}


def _order(run: Trained) -> tuple:
    R, h = run.R, run.config.mix.hop_ratio
    return R * h, R, run.N, run.P


def pair(result: dict) -> tuple[dict, dict]:
    """(trapped, free): the run with the smallest R h, and of those that differ in h alone the one with the largest.

    Raises Missing where they are not on both sides of R h = 1.
    """
    runs = list(result["runs"].values())
    trapped = min(runs, key=lambda run: run["Rh"])
    same = [run for run in runs if all(run[name] == trapped[name] for name in ("R", "N", "P"))]
    free = max(same, key=lambda run: run["h"])
    if not trapped["Rh"] < 1 < free["Rh"]:
        raise Missing(
            f"found R h from {trapped['Rh']:g} to {free['Rh']:g} at R = {free['R']}, expected some on each side of 1"
        )
    return trapped, free


def trap(result: dict) -> dict[str, list]:
    """Per seed one-hop loss over the uniform one, trapped and free; bits per parameter that big hash finds beyond one copy."""
    trapped, free = pair(result)
    big, single = (np.asarray(trapped["bits_per_parameter"][name]["content"]) for name in ("big_hash", "one_hop"))
    return {
        "one-hop loss / uniform, least R h": over_uniform(trapped[ONE_HOP]).tolist(),
        "the same, largest h": over_uniform(free[ONE_HOP]).tolist(),
        "bits/parameter, big hash less one copy": (big - single).tolist(),
    }


def first_types(run: dict) -> list[str | None]:
    """Per seed the type whose loss has fallen by the larger share of its greatest decrease, 1 - loss/uniform; None: neither."""
    shares = {"one_hop": 1 - over_uniform(run[ONE_HOP]), "two_hop": 1 - over_uniform(run[TWO_HOP])}
    pairs = zip(*shares.values(), strict=True)
    return [("one_hop" if one > two else "two_hop") if max(one, two) >= TELLING else None for one, two in pairs]


def rightly_predicted(result: dict) -> list[float | None]:
    """Per seed the share of runs where the type predicted by R h comes first; None without a telling run on each side of 1."""
    rows = [(run["predicted"], first_types(run)) for run in result["runs"].values() if run["predicted"] != "either"]
    shares = []
    for seed in range(len(result["seeds"])):
        told = [(expected, types[seed]) for expected, types in rows if types[seed] is not None]
        sides = {expected for expected, _ in told}
        shares.append(float(np.mean([expected == came for expected, came in told])) if len(sides) == 2 else None)
    return shares


def draw(result: dict):
    """What is learnt of both types against R h; their loss over training at the smallest R h and the largest; contents."""
    fig, axes = plotting.axes(2, 2, height=4.4)
    axes, runs = axes.flatten(), list(result["runs"].values())
    learnt = {LABELS[mode]: [1 - over_uniform(run[mode]) for run in runs] for mode in COLORS}
    _against(axes[0], runs, learnt, COLORS.values(), "1 - loss / uniform loss")
    bits = {
        label: [run["bits_per_parameter"][storage]["content"] for run in runs] for storage, label in STORED_AS.items()
    }
    _against(axes[3], runs, bits, (plotting.BLUE, plotting.GREEN, plotting.VERMILION), "two-hop bits / parameter")
    for ax, run in zip(axes[1:3], (runs[0], runs[-1]), strict=True):
        for mode, color in COLORS.items():
            curves = np.asarray(run["curves"][mode], float) / np.asarray(run[mode]["uniform"])[:, None]
            plotting.seed_lines(ax, run["steps"], curves, LABELS[mode], color)
        ax.axhline(1, color=plotting.GREY, linestyle="--", linewidth=0.8)
        ax.set(
            xscale="symlog",
            xlim=(max(1, run["steps"][-1] / 100), None),
            ylim=(0, 1.5),
            xlabel="step",
            ylabel="loss / uniform loss",
        )
        ax.set_title(f"R = {run['R']}, h = {run['h']:.3g}: R h = {run['Rh']:.3g}")
    return fig


def _against(ax, runs: list[dict], groups: dict[str, list], colors, ylabel: str) -> None:
    """A dot per run and seed over R h, a colour per group, of which the threshold is marked."""
    for (label, values), color in zip(groups.items(), colors, strict=True):
        each = [(run["Rh"], value) for run, row in zip(runs, values, strict=True) for value in row]
        ax.plot(*zip(*each, strict=True), color=color, label=label, **DOTS)
    ax.axvline(1, color=plotting.GREY, linestyle="--", linewidth=0.8)
    log_x(ax, "R h")
    ax.set_ylabel(ylabel)
    ax.legend(ncols=3, **ABOVE)


def finding(result: dict) -> str:
    told = [
        f"R h = {run['Rh']:.2g}: {over_uniform(run[ONE_HOP]).mean():.2f} and {over_uniform(run[TWO_HOP]).mean():.2f}"
        for run in result["runs"].values()
    ]
    return f"one-hop and two-hop loss over uniform: {'; '.join(told)}"


CLAIMS = [
    Claim("C4", "With few relations and few one-hop questions a small model memorises two-hop answers one by one: one-hop "
          "questions stay at chance, unlike with more of them.", source="abstract, two-hop runs with R = 4",
          paper="R = 4, h = 0.1, N = 10k: 7.4 nats of 7.53; 1.71 bits/parameter as big hash, 0.78 as one copy", presets=ALL,
          number=trap, needs=(HOME,), below={"the same, largest h": 0.8},
          above={"one-hop loss / uniform, least R h": 0.9, "bits/parameter, big hash less one copy": 0.1}),
    Claim("C13", "Bits go first to the type with the larger decrease of loss per bit: two-hop answers for R h < 1, one-hop "
          "facts for R h > 1.", source="research notes, rule of allocation; the threshold follows from it",
          paper="h = 0.1: R = 4 trapped, R = 17 not; h = 1/3: R = 4 not", presets=ALL, number=rightly_predicted,
          needs=(HOME,), unit="share of runs as predicted", within=(1.0, 1.0)),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
