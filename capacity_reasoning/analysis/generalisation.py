"""Which held-out two-hop questions a model answers: new combinations of hops that it has seen, or new hops too (Johnston &
Belrose, arXiv 2502.03490, section on generalisation; their detailed_generalization_eval)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from scipy.stats import spearmanr

from capacity_reasoning.analysis._axes import ABOVE, DOTS
from capacity_reasoning.analysis._losses import lag, over_uniform, tell
from capacity_reasoning.analysis._presets import ALL
from capacity_reasoning.capacity import TWO_HOP
from capacity_reasoning.evaluate import Analysis, Trained, two_hop_modes
from capacity_reasoning.examine import ONE_HOP, Asked, Losses, measure
from common import experiment, plotting
from common.claims import Claim
from common.limits import Range

COMBINATIONS = "complete_two_hop"
COMPONENTS = ("first_people", "relations", "second_people", "second_attributes")
"""Classes with a first person, relation, second person or subject that no training question has there."""


@dataclass
class Settings(Analysis):
    bins: Annotated[int, Range(2, 500)] = 24
    """Bins of either loss in the histogram of combinations."""


def hops(trained: Trained, asked: list[Asked]) -> dict[str, list[Asked]]:
    """The two one-hop questions inside two-hop ones: who is p's r, and what is that person's s."""
    told = {"first": [], "second": []}
    for one, questions in zip(asked, trained.questions, strict=True):
        r, none = one.chain[:, 0], torch.full_like(one.chain, -1)
        q = questions.facts.relations[one.p, r].long()
        told["first"].append(Asked(one.p, none, r + trained.support[0].A))
        told["second"].append(Asked(q, none, one.s))
    return told


def combinations(trained: Trained, settings: Settings) -> dict:
    """Losses of held-out combinations against those of their hops; keys as `analyse` tells of them."""
    asked, stack = trained.ask(COMBINATIONS, settings.most), trained.stack()
    whole = measure(stack, trained.questions, asked)
    parts = {name: measure(stack, trained.questions, each) for name, each in hops(trained, asked).items()}
    both = [a.nats + b.nats for a, b in zip(parts["first"], parts["second"], strict=True)]
    columns = {name: [one.nats for one in each] for name, each in parts.items()} | {"both": both}
    ranks = {name: [_correlation(x, y.nats) for x, y in zip(xs, whole, strict=True)] for name, xs in columns.items()}
    return {"correlation": ranks, "histogram": _histogram(both, whole, settings.bins)}


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's; None where one of both does not vary."""
    return float(spearmanr(x, y).statistic) if len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0 else None


def _histogram(both: list[np.ndarray], whole: list[Losses], bins: int) -> dict:
    """Counts over all seeds (bins, bins): rows by the loss of both hops together, columns by that of the two-hop question."""
    x, y = np.concatenate(both), np.concatenate([one.nats for one in whole])
    edges = [np.linspace(0, np.quantile(values, 0.99) or 1, bins + 1) for values in (x, y)]
    counts, *_ = np.histogram2d(np.minimum(x, edges[0][-1]), np.minimum(y, edges[1][-1]), bins=edges)
    return {"counts": counts.astype(int).tolist(), "hops": edges[0].tolist(), "two_hop": edges[1].tolist()}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: N, R, P, subjects; modes -> train_onehop and every class of two-hop questions -> per seed questions (how many),
    loss and uniform (nats per question; that of a guess among the answers to the same questions), value {loss, uniform} of the
    final value alone, by_subject (seeds, S; None for one that is not asked), by_kind -> kind of token; combinations, where
    there are any: correlation (Spearman's, of the loss of a held-out combination with the one-hop loss of its first hop, its
    second, and both), and histogram {counts (bins, bins), hops, two_hop} of both losses over all seeds, the highest hundredth
    in the last bin."""
    modes = [ONE_HOP] * (1 in trained.config.mix.orders) + two_hop_modes(trained)
    found = {mode: tell(trained, mode, settings.most) for mode in modes}
    result = {
        "N": trained.N,
        "R": trained.R,
        "P": trained.P,
        "subjects": list(trained.support[0].subjects),
        "modes": found,
    }
    return result | ({"combinations": combinations(trained, settings)} if COMBINATIONS in modes else {})


def generalises(result: dict) -> dict[str, list]:
    """Per seed the lag of held-out combinations behind training questions, and the loss over uniform of new components.

    None where the training questions are not learnt.
    """
    modes, train = result["modes"], result["modes"][TWO_HOP]
    lags = lag(modes[COMBINATIONS], train)
    told = {"lag of new combinations": lags}
    for mode in COMPONENTS:
        known = zip(over_uniform(modes[mode]), lags, strict=True)
        told[f"{mode}, loss / uniform"] = [float(x) if learnt is not None else None for x, learnt in known]
    return told


def draw(result: dict):
    """Loss over uniform of every kind of question; that of single subjects; combinations against their hops."""
    fig, axes = plotting.axes(3, width=plotting.FULL, height=2.9, width_ratios=(1.2, 1.2, 1))
    modes = result["modes"]
    rows = {mode.replace("_", " "): over_uniform(cell) for mode, cell in modes.items()}
    for place, values in enumerate(rows.values()):
        axes[0].plot(values, [place] * len(values), color=plotting.PALETTE["model"], **DOTS)
    axes[0].axvline(1, color=plotting.GREY, linestyle="--", linewidth=0.8)
    axes[0].set(xlabel="loss / uniform loss", xlim=(0, None), yticks=range(len(rows)), yticklabels=list(rows))
    axes[0].invert_yaxis()
    shown = {"seen": TWO_HOP, "new combination": COMBINATIONS, "new second person": "second_people"}
    for (label, mode), color in zip(shown.items(), (plotting.BLUE, plotting.GREEN, plotting.VERMILION), strict=True):
        if mode in modes:
            values = np.asarray(modes[mode]["by_subject"], float)
            for number, row in enumerate(values):
                place = np.arange(len(row))
                axes[1].plot(row, place, ".", ms=5, alpha=0.7, color=color, label=label if number == 0 else None)
    names = [name.replace("_", " ") for name in result["subjects"]]
    axes[1].set(xlabel="nats / question", xlim=(0, None), yticks=range(len(names)), yticklabels=names)
    axes[1].invert_yaxis()
    axes[1].legend(**ABOVE)
    if "combinations" in result:
        histogram = result["combinations"]["histogram"]
        grids = histogram["hops"], histogram["two_hop"], np.log1p(histogram["counts"]).T
        axes[2].pcolormesh(*grids, cmap=plotting.SEQUENTIAL, rasterized=True)
    axes[2].grid(False)
    axes[2].set(xlabel="its hops (nats)", ylabel="new combination (nats)")
    return fig


def finding(result: dict) -> str:
    told = (f"{mode} {over_uniform(cell).mean():.2f}" for mode, cell in result["modes"].items())
    return f"loss / uniform: {', '.join(told)}"


CLAIMS = [
    Claim("C7", "New combinations of hops that were seen are answered; questions with a first person, relation, second person "
          "or attribute never seen in that place are not.", source="section on generalisation, abstract",
          paper="new combinations nearly as training; the others about uniform or above", presets=ALL, number=generalises,
          needs=("latent/generalisation",), below={"lag of new combinations": 0.25},
          above={f"{mode}, loss / uniform": 0.9 for mode in COMPONENTS}),
    Claim("C9", "The bridge entity can be read no better from models that compose than from those that memorise.",
          source="section on probes", paper="barely better than an arbitrary relation of the first person",
          not_run="the probe of the bridge entity comes with the later half"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
