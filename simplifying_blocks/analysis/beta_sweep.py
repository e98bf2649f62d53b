"""Final loss over the weight beta of what is learned in V and P, or over their learning rate (paper Figs 3, 9, 15)."""

import common.process  # noqa: F401

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common import experiment, plotting
from common.claims import Claim, Missing, by_seed
from simplifying_blocks.analysis._compare import ending, known
from simplifying_blocks.analysis._presets import SLOW
from simplifying_blocks.evaluate import Comparison, Trained

COLORS = {
    "identity": plotting.BLUE,
    "orthogonal": plotting.VERMILION,
    "last_block": plotting.ORANGE,
    "all_blocks": plotting.GREEN,
}
BASES = ("identity", "orthogonal")


@dataclass
class Settings(Comparison):
    """The runs of the sweep; the one analysed is drawn as a line beside them."""


def place(run: Trained) -> tuple[str, float]:
    """(curve, x) of a run: base or tie of V and P, and their beta times the ratio of their learning rate."""
    model = run.config.model.resolved()
    beta = 0.0 if isinstance(model.beta_V, str) else model.beta_V
    return model.init_V if model.tie == "none" else model.tie, beta * run.config.train.vp_lr_ratio


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: curves -> base or tie -> x (values of beta, or of the rate's ratio), final (per seed and x, nats per token);
    reference (final loss of the analysed run per seed)."""
    found: dict[str, dict] = {}
    for run in trained.others(settings.runs).values():
        if run.run.path.name not in settings.runs:
            continue
        curve, x = place(run)
        found.setdefault(curve, {})[x] = ending(run)["final"]["values"]
    curves = {
        name: {"x": sorted(rows), "final": by_seed(*(rows[x] for x in sorted(rows)))} for name, rows in found.items()
    }
    return {"curves": curves, "reference": ending(trained)["final"]}


def draw(result: dict):
    """A line per base or tie."""
    fig, ax = plotting.axes(width=4.0)
    for name, curve in result["curves"].items():
        plotting.seed_lines(ax, curve["x"], curve["final"], name.replace("_", " "), COLORS.get(name, plotting.INK))
    ax.axhline(result["reference"]["mean"], color=plotting.GREY, ls=":", label="the analysed run")
    ax.set(xlabel="weight beta of what V and P learn, or ratio of their rate", ylabel="held-out loss (nats per token)")
    ax.legend()
    return fig


def finding(result: dict) -> str:
    def ends(curve: dict) -> str:
        first, last = np.mean(curve["final"], 0)[[0, -1]]
        return f"{first:.3f} at {curve['x'][0]:g}, {last:.3f} at {curve['x'][-1]:g}"

    return "; ".join(f"{name} {ends(curve)}" for name, curve in result["curves"].items())


def row(result: dict, curve: str) -> list[list[float]]:
    """Losses of a curve, per seed and x."""
    return [known(losses) for losses in result["curves"][curve]["final"]]


def shared(result: dict, *names: str) -> list[list[tuple[float, ...]]]:
    """Per seed, at each x that all curves have, their losses; raises Missing where they share none."""
    curves = [result["curves"][name] for name in names]
    xs = sorted(set.intersection(*(set(curve["x"]) for curve in curves)))
    if not xs:
        raise Missing(f"found no beta that {', '.join(names)} share, expected some")
    seeds = by_seed(*(row(result, name) for name in names))
    return [[tuple(rows[k][curves[k]["x"].index(x)] for k in range(len(curves))) for x in xs] for rows in seeds]


def rank_correlation(x, y) -> float:
    """Spearman's."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def falls(result: dict) -> dict[str, list[float]]:
    """C2: per seed Spearman's correlation of beta and loss on each curve, and how far identity is below orthogonal at worst."""
    ranks = {
        f"rank correlation, {base}": [rank_correlation(result["curves"][base]["x"], y) for y in row(result, base)]
        for base in BASES
    }
    worst = [np.min([orthogonal - identity for identity, orthogonal in pairs]) for pairs in shared(result, *BASES)]
    return ranks | {"orthogonal over identity, least": worst}


def duality(betas: dict, ratios: dict) -> dict[str, list[float]]:
    """C3: per seed and base the largest distance of the two curves where both have a point, over the range of the first."""
    found = {}
    for base in BASES:
        both = {"curves": {"beta": betas["curves"][base], "ratio": ratios["curves"][base]}}
        spans = [np.ptp(values) for values in row(betas, base)]
        apart = [np.max([abs(a - b) for a, b in pairs]) for pairs in shared(both, "beta", "ratio")]
        found[f"distance over range, {base}"] = [a / s for a, s in by_seed(apart, spans)]
    return found


def between(betas: dict, ties: dict) -> dict[str, list[float]]:
    """C18: mean over the betas that all have of each curve over the next, and where the orthogonal one is lowest."""
    order = ("orthogonal", "last_block", "all_blocks", "identity")
    every = {"curves": {name: (betas if name in BASES else ties)["curves"][name] for name in order}}
    means = [np.mean(rows, 0) for rows in shared(every, *order)]
    steps = {f"{a} over {b}": [float(m[k] - m[k + 1]) for m in means] for k, (a, b) in enumerate(pairwise(order))}
    xs = betas["curves"]["orthogonal"]["x"]
    best = [xs[int(np.argmin(y))] if np.isfinite(y).all() else None for y in row(betas, "orthogonal")]
    return steps | {"best beta, orthogonal": best}


CLAIMS = [
    Claim(
        "C2",
        "The final loss falls as beta goes to 0, and the identity beats an orthogonal base at every beta.",
        source="Fig 3",
        presets=SLOW,
        number=falls,
        above={
            "rank correlation, identity": 0.8,
            "rank correlation, orthogonal": 0.5,
            "orthogonal over identity, least": 0.0,
        },
        paper="orthogonal 1.48 to 1.25, identity 1.38 to 1.178 (1.178 as text)",
    ),
    Claim(
        "C3",
        "A lower learning rate of V and P does what a lower beta does.",
        source="App A, Fig 9",
        presets=SLOW,
        needs=("beta_sweep", "lr_ratio"),
        number=duality,
        below={f"distance over range, {base}": 0.3 for base in BASES},
        paper="the same ends",
        note=lambda b, r: "for one SGD step an identity, tested; here AdamW's final losses",
    ),
    Claim(
        "C18",
        "Orthogonal bases that undo each other close part of the gap to the identity, "
        "and orthogonal ones prefer a small beta.",
        source="Fig 15",
        presets=SLOW,
        needs=("beta_sweep", "tied_bases"),
        number=between,
        above={"orthogonal over last_block": 0.0, "last_block over all_blocks": 0.0, "all_blocks over identity": 0.0},
        within={"best beta, orthogonal": (0.01, 0.3)},
        paper="in this order; at about 0.1 to 0.2 (read off)",
    ),
]

if __name__ == "__main__":
    experiment.main(__name__)
