"""How compressible the prelogits are along training (paper Figs 6 and 9; sheet C16, C17, C18)."""

import torch

from common import plotting
from layernorm_grok import compressibility, times
from layernorm_grok.analysis._driver import Probe, along, colors, draw_lives, perform
from layernorm_grok.evaluate import Trained

AFTER = 200
"""Step from which a minimum counts, as in the paper."""


def measure_of(trained: Trained):
    """Spectrum of z^T z on train and on test pairs, and ||theta||, of one model."""
    sides = {seed: trained.pairs(seed) for seed in trained.seeds}

    @torch.no_grad()
    def measure(model, name: str, seed: int) -> dict:
        found = {}
        for side, rows in zip(("train", "test"), sides[seed], strict=True):
            found |= {f"{side}_{key}": v for key, v in compressibility.spectrum(model(rows).prelogits).items()}
        used = [p for n, p in model.named_parameters() if not unused(n, model)]
        return found | {"weight_norm": float(torch.cat([p.flatten() for p in used]).norm())}

    return measure


def unused(name: str, model) -> bool:
    """Whether a parameter belongs to a norm that this placement leaves out."""
    layer = name.split(".")[-2] if ".ln" in name else ""
    return layer.startswith("ln") and layer not in model.placement.norms


def still_falling(curve: dict, key: str, budget: int) -> bool:
    """Whether a replica stopped before the budget with its least value in its last tenth: the true minimum is unknown."""
    steps, values = curve["steps"], curve[key]
    found = [(v, s) for s, v in zip(steps, values, strict=True) if s >= AFTER and v == v]
    return steps[-1] < budget and (not found or min(found)[1] > 0.9 * steps[-1])


def least(curve: dict) -> float:
    """Least effective rank (test) from AFTER on: at the start the prelogits are nearly the same for all pairs."""
    found = [v for s, v in zip(curve["steps"], curve["test_effective_rank"], strict=True) if s >= AFTER]
    return min(found or curve["test_effective_rank"])


def within_ten_percent(cell: dict, key: str) -> list[int | None]:
    """Per seed the first checkpoint from AFTER on within 10% of that seed's minimum."""
    return [compressibility.within(curve[key], curve["steps"], after=AFTER) for curve in cell["seeds"]]


def analyse(trained: Trained, settings: Probe) -> dict:
    """Curves per cell and seed, "within 10%" steps of effective rank and power-law exponent on both sides, and T_gen."""
    cells = along(trained, settings, measure_of(trained), "the development of the spectrum")
    budget = trained.config.train.steps
    for name, cell in cells.items():
        cell["first"] = trained.times(name)["first"]
        cell["within"] = {
            key: within_ten_percent(cell, key)
            for key in ("train_effective_rank", "test_effective_rank", "train_alpha_pl", "test_alpha_pl")
        }
        last = [curve["steps"][-1] for curve in cell["seeds"]]
        cell["median_within"] = {key: times.median_time(steps, last) for key, steps in cell["within"].items()}
        cell["at_stop"] = {key: [still_falling(c, key, budget) for c in cell["seeds"]] for key in cell["within"]}
        cell["minimum"] = [least(curve) for curve in cell["seeds"]]
    return {"cells": cells, "after": AFTER}


def draw(result: dict):
    """Effective rank, power-law exponent, numerical rank, ||theta||; the "within 10%" step against T_gen."""
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(3, 2, height=4.6)
    panels = (
        ("test_effective_rank", "effective rank (test)"), ("test_alpha_pl", "power-law exponent (test)"),
        ("test_numerical_rank", "numerical rank (test)"), ("weight_norm", "norm of all weights"),
        ("train_effective_rank", "effective rank (train)"),
    )  # fmt: skip
    for ax, (key, text) in zip(axes.flat, panels, strict=False):
        draw_lives(ax, cells, key)
        ax.set(xlabel="step", ylabel=text)
    ax = axes.flat[5]
    for name, cell in cells.items():
        for key, marker in (("test_effective_rank", "o"), ("test_alpha_pl", "s")):
            for inside, first in zip(cell["within"][key], cell["first"], strict=True):
                if inside is not None and first is not None:
                    ax.plot(
                        inside,
                        first,
                        marker,
                        ms=4,
                        color=palette[name],
                        mfc=palette[name] if marker == "o" else "white",
                    )
    ax.set_xlabel("step within 10% of the minimum\n(disc: rank, square: exponent)")
    ax.set_ylabel("step: test accuracy at 0.99")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def finding(result: dict) -> str:
    rows = result["cells"].items()
    return "effective rank within 10% of its minimum at " + "; ".join(
        f"{name} {'/'.join(str(s or 'never') for s in cell['within']['test_effective_rank'])}" for name, cell in rows
    )


if __name__ == "__main__":
    perform("compressibility", Probe, analyse, draw, finding)
