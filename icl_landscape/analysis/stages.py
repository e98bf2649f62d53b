"""Developmental stages found from the LLC and the loss over training, beside the paper's (section 3.3, Fig 1b, Table 2)."""

import common.process  # noqa: F401

from collections import Counter
from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.claims import Claim
from icl_landscape.analysis._curves import over_training
from icl_landscape.analysis._presets import ALL
from icl_landscape.analysis._stages import READS, Detection, add_losses, curve_stages, papers, read
from icl_landscape.evaluate import Trained


@dataclass
class Settings(Detection):
    pass


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: curves -> paper, local (LLC at those settings), loss (test loss) -> steps (T), values (S, T), fit_steps (G), seeds
    (a list) and pooled (the mean over seeds), each with boundaries (step, 95% bootstrap interval low and high, found: share of
    the draws with it), stages (start, end, type, change of the curve, loss: change of the test loss) and fit (G); gamma (of
    paper and local); papers (name, paper, rates, step: the paper's ends of stages on this run's clock, see `papers`);
    likeness (per seed the correlation of the LLC at the paper's settings with -loss, None where unknown)."""
    results = {name: read(trained, name) for name in READS}
    steps, tokens, _ = results["behaviour"]
    losses = tokens.mean(2)
    curves, gamma = {"loss": curve_stages(settings, settings.rule(llc=False), steps, losses[:, :, None])}, {}
    for name in ("paper", "local"):
        at, chains, whole = results[f"llc_{name}"]
        curves[name] = curve_stages(settings, settings.rule(llc=True), at, chains)
        gamma[name] = whole.get("settings", {}).get("sampling", {}).get("gamma")
    for curve in curves.values():
        add_losses(curve, steps, losses)
    likeness = results["llc_paper"][2].get("loss_correlation") or [None] * len(trained.seeds)
    return {"curves": curves, "gamma": gamma, "papers": papers(trained.config.train), "likeness": likeness}


def ends(result: dict, seed: int) -> list[float]:
    """Steps of a seed from the first to the last that part its stages LR1, LR2, ...: boundaries of its LLC at the paper's
    settings, or else of its loss; empty where neither has one."""
    for name in ("paper", "loss"):
        stages = result["curves"][name]["seeds"][seed]["stages"]
        if len(stages) > 1:
            return [stages[0]["start"], *(stage["end"] for stage in stages)]
    return []


def changes(result: dict, name: str, seed: int, count: int = 4) -> list[float | None]:
    """Of a seed's curve in LR1, LR2, ... (`count` of them), None for a stage that was not found."""
    curve, there = result["curves"][name], ends(result, seed)
    fit = np.asarray(curve["seeds"][seed]["fit"], dtype=float)
    values = np.interp(np.log1p(there), np.log1p(curve["fit_steps"]), fit) if there else []
    return [*np.diff(values).tolist(), *[None] * count][:count]


def types(result: dict, seed: int) -> tuple[str, ...] | None:
    """Of LR1 and LR2, A where the LLC at the paper's settings rises and B where it falls; None where they were not found."""
    both = changes(result, "paper", seed, 2)
    return None if None in both or np.isnan(both).any() else tuple("A" if change > 0 else "B" for change in both)


def llc_rises(result: dict) -> dict[str, list]:
    """Per seed: change of the LLC at the paper's settings in LR1 and LR2, LR2's part of both; where they were found those in
    LR3 and LR4, and those of the LLC nearer to the checkpoint in LR1 and LR2."""
    count = range(len(result["curves"]["paper"]["seeds"]))
    paper, local = ([changes(result, name, seed) for seed in count] for name in ("paper", "local"))
    return {
        "LLC in LR1": [row[0] for row in paper],
        "LLC in LR2": [row[1] for row in paper],
        "LR2 / (|LR1| + |LR2|)": [None if row[1] is None else row[1] / (abs(row[0]) + abs(row[1])) for row in paper],
        "LLC in LR3": [row[2] for row in paper],
        "LLC in LR4": [row[3] for row in paper],
        "local LLC in LR1": [row[0] for row in local],
        "local LLC in LR2": [row[1] for row in local],
    }


def same_for_all(result: dict) -> dict[str, list]:
    """Per seed: how many of LR1 and LR2 have the type that most seeds have, and how many rise; step of LR1|LR2 over its median
    over seeds."""
    count = range(len(result["curves"]["paper"]["seeds"]))
    found = [types(result, seed) for seed in count]
    most = [Counter(kinds).most_common(1)[0][0] for kinds in zip(*filter(None, found), strict=True)]
    steps = [ends(result, seed)[1] if found[seed] else None for seed in count]
    middle = np.median([step for step in steps if step is not None] or [np.nan])
    return {
        "of LR1 and LR2, of the type of most seeds": [
            row and sum(a == b for a, b in zip(row, most, strict=True)) for row in found
        ],
        "of LR1 and LR2, of type A": [row and row.count("A") for row in found],
        "step of LR1|LR2 / median": [None if step is None else step / middle for step in steps],
    }


def how_found(result: dict) -> str:
    """Where the boundary LR1|LR2 of each seed comes from, and whether the LLC tells more than the loss."""
    seeds = result["curves"]["paper"]["seeds"]
    own = sum(len(row["stages"]) > 1 for row in seeds)
    from_loss = sum(bool(ends(result, seed)) for seed in range(len(seeds))) - own
    like = [value for value in result["likeness"] if value is not None]
    told = f"; correlation of this LLC with -loss {min(like):.4f} to {max(like):.4f}" if like else ""
    return f"LR1|LR2 from the LLC of {own} of {len(seeds)} seeds, from the loss of {from_loss}{told}"


TITLES = {"loss": "test loss", "paper": "LLC at the paper's settings", "local": "LLC near the checkpoint"}
COLORS = {"loss": plotting.INK, "paper": plotting.PALETTE["model"], "local": plotting.GREEN}


def draw(result: dict):
    """Loss and both LLCs over training; boundaries of the mean with their intervals as bands, those of single seeds as ticks
    below, the paper's on this run's clock dashed."""
    fig, axes = plotting.axes(1, 3, height=6.0, sharex=True)
    for ax, (name, title) in zip(axes, TITLES.items(), strict=True):
        curve, gamma = result["curves"][name], result["gamma"].get(name)
        plotting.seed_lines(ax, curve["steps"], curve["values"], None, COLORS[name])
        over_training(
            ax, "loss" if name == "loss" else r"$\hat\lambda$", title + (f", $\\gamma$ = {gamma:g}" if gamma else "")
        )
        draw_boundaries(ax, curve, COLORS[name])
        draw_papers(ax, result["papers"], names=name == "loss")
    for ax in axes[:-1]:
        ax.set_xlabel("")
    axes[0].legend(loc="lower left", fontsize=6)
    return fig


def draw_boundaries(ax, curve: dict, color: str) -> None:
    """A line and a band for each boundary of the mean, a tick for each of a seed, the type of each stage at the top."""
    for number, row in enumerate(curve["pooled"]["boundaries"]):
        label = "found, with 95% interval" if number == 0 else None
        ax.axvspan(row["low"] or row["step"], row["high"] or row["step"], color=color, alpha=0.22, linewidth=0)
        ax.axvline(row["step"], color=color, linewidth=1.0, label=label)
    if ticks := [row["step"] for seed in curve["seeds"] for row in seed["boundaries"]]:
        ax.plot(ticks, [0.03] * len(ticks), "|", color=color, markersize=7, transform=ax.get_xaxis_transform())
    for stage in curve["pooled"]["stages"]:
        middle = np.expm1(np.log1p([stage["start"], stage["end"]]).mean())
        text = f"{'rises' if stage['type'] == 'A' else 'falls'} {stage['change']:+.3g}"
        place = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 7, "color": color}
        ax.text(middle, 0.97, text, bbox={"color": "white", "alpha": 0.7, "pad": 0.5}, **place)


def draw_papers(ax, rows: list[dict], names: bool) -> None:
    """A dashed line for each of the paper's boundaries that lies in this run."""
    label = "paper's, at the same sum of learning rates"
    for row in rows:
        if row["step"] is None:
            continue
        ax.axvline(row["step"], color=plotting.VERMILION, linestyle="--", linewidth=0.9, label=label)
        label = None
        if names:
            words = f"{row['paper'] / 1000:g}k"
            older = "," in row["name"]
            place = {"textcoords": "offset points", "xytext": (2 if older else -2, -1), "fontsize": 6}
            side = "left" if older else "right"
            ax.annotate(
                words,
                (row["step"], 0.55),
                xycoords=ax.get_xaxis_transform(),
                ha=side,
                color=plotting.VERMILION,
                **place,
            )


def finding(result: dict) -> str:
    def told(name: str) -> str:
        rows = result["curves"][name]["pooled"]
        at = [f"{r['step']:.0f} ({r['low'] or np.nan:.0f} to {r['high'] or np.nan:.0f})" for r in rows["boundaries"]]
        return f"{name} {''.join(stage['type'] for stage in rows['stages']) or 'no stage'} {', '.join(at)}".strip()

    own = ", ".join(
        "none" if not (row := ends(result, seed)) else f"{row[1]:.0f}" for seed in range(len(result["seeds"]))
    )
    theirs = ", ".join(f"{row['name']} at {row['step']}" for row in result["papers"] if row["step"] is not None)
    curves = "; ".join(told(name) for name in ("loss", "paper", "local"))
    return f"boundaries {curves}; LR1|LR2 by seed {own}; the paper's ends on this clock: {theirs or 'none'}"


CLAIMS = [
    Claim("C1", "The LLC rises in the stages LR1 and LR2, most in LR2.", source="Fig 1b, Table 2",
          paper="+21.4, +149, -12.3, -44.1, +3.56 in LR1 to LR5, which end at 1k, 40k, 126k, 320k, 500k", presets=ALL,
          number=llc_rises, above={"LLC in LR1": 0.0, "LLC in LR2": 0.0, "LR2 / (|LR1| + |LR2|)": 0.5}, note=how_found),
    Claim("C2", "All seeds go through the same stages in the same order.", source="appendix F",
          paper="LLC in LR1 +7.5 to +20.9, in LR2 +149.5 to +152.8 over five seeds", presets=ALL, number=same_for_all,
          above={"of LR1 and LR2, of the type of most seeds": 1.5, "of LR1 and LR2, of type A": 1.5},
          within={"step of LR1|LR2 / median": (1 / 3, 3.0)}, note=how_found),
    Claim("C16", "Three principal components explain most of the trajectory; forms appear near the ends of stages.",
          source="Figs 2b, 6b", paper="0.65, 0.08, 0.05 of the variance; forms at 2.5k, 34.5k, 106.1k, 168.9k",
          not_run="essential dynamics come with the second half of this paper."),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
