"""The figure of `two_hop`."""

import numpy as np

from capacity_reasoning.analysis._axes import DOTS, PARAMETERS, log_x
from common import plotting

STORED_AS = {"one_hop": "one copy", "double": "two copies", "big_hash": "big hash"}
SHADES = dict(zip(STORED_AS, (plotting.BLUE, plotting.GREEN, plotting.VERMILION), strict=True))


def draw(result: dict, levels: list[tuple[str, list]], below: float):
    """levels: by population, its name and (P over that of one hop, loss over the level of big hash) per run and seed."""
    fig, axes = plotting.axes(2, 2, height=4.8)
    bits_by_size(axes[0, 0], result)
    composition(axes[0, 1], levels, below)
    both = [run for run in result["runs"].values() if "one_hop" in run]
    contents(axes[1, 0], both)
    per_parameter(axes[1, 1], both)
    return fig


def bits_by_size(ax, result: dict) -> None:
    """Content per parameter against P, a dot per run and seed, with that of one-hop models."""
    groups = {
        name: [(run["P"], run["storages"][name]["content"]) for run in result["runs"].values()] for name in STORED_AS
    }
    groups["onehop"] = [(run["P"], run["one_hop"]["content"]) for run in result["onehop"].values()]
    for name, rows in groups.items():
        points = [(P, value) for P, values in rows for value in values]
        label, color = STORED_AS.get(name, "one-hop runs"), SHADES.get(name, plotting.GREY)
        if points:
            ax.plot(*zip(*points, strict=True), color=color, label=label, **DOTS)
    ax.axhline(2, color=plotting.GREY, linestyle="--", linewidth=0.8)
    log_x(ax, PARAMETERS)
    ax.set(ylabel="content, bits / parameter", title="two-hop content by storage")
    ax.set_yscale("symlog", linthresh=2)
    ax.legend()


def composition(ax, levels: list[tuple[str, list]], below: float) -> None:
    """Loss over the level of big hash against P."""
    for (label, points), color in zip(levels, plotting.ordered(len(levels)), strict=True):
        if points:
            ax.plot(*zip(*points, strict=True), color=color, label=label, **DOTS)
    ax.axhline(below, color=plotting.GREY, linestyle="--", linewidth=0.8)
    ax.axvspan(2, 3, color=plotting.GREY, alpha=0.15, linewidth=0)
    log_x(ax, "P / parameters for every fact once")
    ax.set(yscale="log", ylabel="loss / level of big hash")
    ax.set_title("composed below the line")
    if any(points for _, points in levels):
        ax.legend()


def contents(ax, runs: list[dict]) -> None:
    """One-hop and two-hop content in bits, and the lines of zero loss of each population."""
    for name, color in SHADES.items():
        points = [(x * run["P"], y * run["P"]) for run in runs for x, y in _pairs(run, name) if min(x, y) > 0]
        if points:
            ax.plot(*zip(*points, strict=True), color=color, label=STORED_AS[name], **DOTS)
    for run in {(run["N"], run["R"]): run for run in runs}.values():
        ax.axvline(np.mean(run["one_hop"]["dataset"]) * run["P"], color=plotting.GREY, linewidth=0.6)
        for name, color in SHADES.items():
            ax.axhline(np.mean(run["storages"][name]["dataset"]) * run["P"], color=color, linewidth=0.6)
    ax.set(xscale="log", yscale="log", xlabel="one-hop content (bits)", ylabel="two-hop content (bits)")
    ax.set_title("lines: zero loss")


def per_parameter(ax, runs: list[dict]) -> None:
    """The same per parameter, names counted in two-hop content alone."""
    for name, color in SHADES.items():
        points = [(x - names, y) for run in runs for (x, y), names in zip(_pairs(run, name), run["names"], strict=True)]
        if points:
            ax.plot(*zip(*points, strict=True), color=color, label=STORED_AS[name], **DOTS)
    ax.plot([0, 2], [2, 0], color=plotting.INK, linewidth=0.8)
    ax.set(xlabel="one-hop facts, bits / parameter", ylabel="two hops, bits / parameter", title="line: y = 2 - x")
    ax.set_yscale("symlog", linthresh=2)


def _pairs(run: dict, storage: str) -> list[tuple[float, float]]:
    """Per seed one-hop content and two-hop content under a storage, bits per parameter."""
    return list(zip(run["one_hop"]["content"], run["storages"][storage]["content"], strict=True))
