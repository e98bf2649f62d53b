"""Where bits pay most: a toy of two hops that share K nats, and the rule that decides which questions a model of limited
capacity stores first (research notes of Johnston & Belrose, arXiv 2502.03490). Exact, without a model."""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from capacity_reasoning.analysis._presets import ALL
from capacity_reasoning.estimators.allocation import decrease_per_bit, memorised_first, toy_loss, toy_optimum
from capacity_reasoning.evaluate import Analysis, Trained
from common import experiment, plotting
from common.claims import Claim
from common.limits import Count, Distinct, Positive, Range, Share

POINTS = 401
"""Of a curve; odd, so that the even split is one."""
TOLD = {"one_hop": "one-hop\nfacts", "two_hop": "two-hop\nanswers", "either": "either"}


@dataclass
class Settings(Analysis):
    n: Annotated[int, Range(2, 10**9)] = 1000
    """Values of each hop in the toy, all alike."""
    a: Share = 0.1
    """Share of one-hop questions in the toy."""
    capacities: Annotated[list[Positive], Distinct(1)] = field(default_factory=lambda: [5.0, 10.0, 15.0, 20.0])
    """K, nats that the toy's two hops share."""
    R: Annotated[list[Count], Distinct(1)] = field(default_factory=lambda: [1, 4, 12, 17])
    """Numbers of relations in the rule."""
    h: Annotated[list[Positive], Distinct(1)] = field(default_factory=lambda: [0.05, 0.1, 1 / 3, 1.0])
    """One-hop questions for each two-hop one in the rule."""


def toy(capacity: float, n: int, a: float) -> dict:
    """One K of `analyse`: the loss along I1, its optimum, and what the even split loses to that."""
    first = np.linspace(0, capacity, POINTS)
    optimum = toy_optimum(capacity, n, a)
    even, least = toy_loss(np.array([capacity / 2, optimum[0]]), capacity, n, a)
    return {"K": capacity, "I1": first.tolist(), "loss": toy_loss(first, capacity, n, a).tolist(),
            "optimum": list(optimum), "even_split": float(even - least)}  # fmt: skip


def rule(R: int, h: float) -> dict:
    """One R and h of `analyse`."""
    one, two = decrease_per_bit(R, h)
    return {"R": R, "h": h, "Rh": R * h, "one_hop": one, "two_hop": two, "first": memorised_first(R, h)}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: n and a of the toy; toy, a row per K: I1 (nats of the first hop) and loss along it (nats), optimum [I1, I2],
    even_split (loss of I1 = K/2 above the least); rule, a row per R and h: Rh, one_hop and two_hop (decrease of the mean loss
    per stored bit, in units of 1/(N S)), first (the kind stored first)."""
    rows = [toy(capacity, settings.n, settings.a) for capacity in sorted(settings.capacities)]
    rules = [rule(R, h) for R in sorted(settings.R) for h in sorted(settings.h)]
    return {"n": settings.n, "a": settings.a, "toy": rows, "rule": rules}


def largest(result: dict) -> dict | None:
    """The toy of the largest K, None where even that is below 2 ln n, what both hops need."""
    row = max(result["toy"], key=lambda row: row["K"])
    return row if row["K"] >= 2 * np.log(result["n"]) else None


def even(result: dict) -> dict[str, list]:
    """Part of the largest K in either hop at the optimum, and the loss of the even split above it."""
    row = largest(result)
    if row is None:
        return {"I1 / K": [None], "I2 / K": [None], "loss of the even split above the least": [None]}
    first, second = (nats / row["K"] for nats in row["optimum"])
    return {"I1 / K": [first], "I2 / K": [second], "loss of the even split above the least": [row["even_split"]]}


def draw(result: dict):
    """Left: the toy's loss along I1/K, a curve per K, a dot at its optimum. Right: what is stored first, by R and h."""
    fig, (left, right) = plotting.axes(2, height=2.6)
    rows = result["toy"]
    for number, (row, color) in enumerate(zip(rows, plotting.ordered(len(rows)), strict=True)):
        share = np.asarray(row["I1"]) / row["K"]
        left.plot(share, row["loss"], color=color, label=f"K = {row['K']:g}")
        best = row["optimum"][0] / row["K"]
        left.plot(
            best,
            np.interp(best, share, row["loss"]),
            "o",
            color=color,
            markersize=4 + 2 * (len(rows) - number),
            clip_on=False,
            zorder=3,
        )
    told = f"Toy of n = {result['n']:,}, a = {result['a']:g}; dots: optima"
    left.set(xlabel="part of K in the first hop, I1/K", ylabel="loss (nats per question)", title=told)
    left.set_ylim(0, 1.3 * max(max(row["loss"]) for row in rows))
    left.legend(loc="upper center", ncols=2)
    draw_rule(right, result["rule"])
    return fig


def draw_rule(ax, rows: list[dict]) -> None:
    """What is stored first, as a table: blue for two-hop answers, red for one-hop facts."""
    Rs, hs = sorted({row["R"] for row in rows}), sorted({row["h"] for row in rows})
    log = np.full((len(Rs), len(hs)), np.nan)
    for row in rows:
        place = Rs.index(row["R"]), hs.index(row["h"])
        log[place] = np.log10(row["Rh"])
        told = f"Rh = {row['Rh']:.2g}\n{TOLD[row['first']]}"
        ax.text(place[1], place[0], told, ha="center", va="center", fontsize=6)
    plotting.heatmap(ax, log, signed=True, limit=2 * max(1.0, float(np.abs(log).max())))
    ax.set_aspect("auto")
    ax.set_xticks(range(len(hs)), [f"{h:.3g}" for h in hs])
    ax.set_yticks(range(len(Rs)), Rs)
    ax.set(
        xlabel="one-hop per two-hop question, h",
        ylabel="relations, R",
        title="Stored first: one-hop facts where Rh > 1",
    )


def finding(result: dict) -> str:
    optima = [f"{' / '.join(f'{nats:.3g}' for nats in row['optimum'])} of {row['K']:g}" for row in result["toy"]]
    trapped = [f"R = {row['R']} at h = {row['h']:.2g}" for row in result["rule"] if row["first"] == "two_hop"]
    return f"best I1 / I2: {', '.join(optima)} nats; two-hop answers first for {', '.join(trapped) or 'none'}"


CLAIMS = [
    Claim("C16", "Of K nats for two hops, where K is large, the even split is best.", source="research notes, toy allocation",
          paper="10 / 10 for n = 1000, K = 20, a = 0.1", presets=ALL, number=even, min_seeds=1,
          within={"I1 / K": (0.495, 0.505), "I2 / K": (0.495, 0.505)},
          below={"loss of the even split above the least": 1e-9}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
