"""Fourier concentration of the embedding along training (paper Fig 2b, 2c; sheet C3, C4)."""

from common import plotting
from layernorm_grok import fourier
from layernorm_grok.analysis._driver import Probe, along, colors, draw_lives, perform
from layernorm_grok.evaluate import Trained

LEVEL = 1.0
"""The paper's threshold on C_F."""
RISE = 30.0
"""Ours, in units of the value at the start: what white noise gives depends on P and d (sheet C4)."""


def measure(model, name: str, seed: int) -> dict:
    table = model.embed[: model.P]
    return {
        "concentration": fourier.concentration(table),
        "without_dc": fourier.concentration(table, dc=False),
        "key_share": fourier.key_frequency_share(table),
        "gini": fourier.gini(table),
    }


def passing(curve: dict, level: float) -> int | None:
    """First checkpoint with C_F at the level."""
    return next((s for s, v in zip(curve["steps"], curve["concentration"], strict=True) if v >= level), None)


def analyse(trained: Trained, settings: Probe) -> dict:
    """Curves per cell and seed; when C_F passes 1 and when 30 times its start; when the seed generalised."""
    cells = along(trained, settings, measure, "the curve of C_F")
    for name, cell in cells.items():
        cell["first"] = trained.times(name)["first"]
        cell["passes"] = [passing(curve, LEVEL) for curve in cell["seeds"]]
        cell["rises"] = [passing(curve, RISE * curve["concentration"][0]) for curve in cell["seeds"]]
    return {"cells": cells, "level": LEVEL, "rise": RISE}


def draw(result: dict):
    """C_F and the share of the five strongest frequencies along training; rising of C_F against generalising."""
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(3, height=2.6)
    panels = ("concentration", "Fourier concentration C_F"), ("key_share", "share of 5 frequencies")
    for ax, (key, text) in zip(axes, panels, strict=False):
        draw_lives(ax, cells, key)
        ax.set(xlabel="step", ylabel=text)
    for name, cell in cells.items():
        for rises, first in zip(cell["rises"], cell["first"], strict=True):
            if rises and first:
                axes[2].plot(rises, first, "o", ms=4, color=palette[name])
        if cell["first"][0] is not None:
            axes[0].axvline(cell["first"][0], color=palette[name], lw=0.6, ls=":")
    axes[0].axhline(result["level"], color=plotting.GREY, lw=0.6, ls="--")
    axes[0].set_yscale("log")
    low, high = axes[2].get_xlim()
    axes[2].plot([low, high], [low, high], color=plotting.GREY, lw=0.6)
    axes[2].set(xlabel=f"step: C_F {result['rise']:g} times its start", ylabel="step: test at 0.99")
    fig.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def finding(result: dict) -> str:
    ends = ((name, [curve["concentration"][-1] for curve in cell["seeds"]]) for name, cell in result["cells"].items())
    return "C_F at the end: " + "; ".join(f"{n} {'/'.join(f'{v:.2f}' for v in values)}" for n, values in ends)


if __name__ == "__main__":
    perform("fourier", Probe, analyse, draw, finding)
