"""Figures of attention maps: those of the first seed that dropped, since no two seeds put the same head in the same place."""

import numpy as np

from abrupt_learning.estimators.attention_scores import FOLLOWED
from common import plotting

NAMES = {"row": "own row", "column": "own column", "observed": "observed cells"}


def show(ax, values: list, columns: int, title: str, limit: float | None = None):
    """A map, query down and key across, ruled off at the rows of the matrix."""
    image = plotting.heatmap(ax, values, limit=limit)
    for edge in range(columns, len(values), columns):
        ax.axhline(edge - 0.5, color=plotting.GREY, lw=0.3)
        ax.axvline(edge - 0.5, color=plotting.GREY, lw=0.3)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=6)
    return image


def of_head(result: dict, kind: str, at: str, name: str, score: str) -> float:
    """A score of a followed head in the seed drawn."""
    layer, head = result["heads"][result["shown"]][name]
    return result["scores"][result["shown"]][kind][at][score][layer][head]


def draw(result: dict):
    """Every head at the last milestone under the run's own masks, with its scores; colours share a scale within a layer."""
    grid, scores = result["maps"]["grid"]["none"], result["scores"][result["shown"]]["none"]
    scores, layers, heads = scores[list(scores)[-1]], len(grid), len(grid[0])
    fig, axs = plotting.axes(heads, layers, height=(5.6 / heads + 0.45) * layers + 0.3, squeeze=False)
    for layer, row in enumerate(grid):
        for head, values in enumerate(row):
            title = "\n".join(f"{name} {scores[name][layer][head]:.2f}" for name in ("row", "column", "self"))
            title = title if layer else f"head {head + 1}\n{title}"
            image = show(axs[layer][head], values, result["size"][1], title, np.max(row))
        axs[layer][0].set_ylabel(f"layer {layer + 1}\nquery cell")
        fig.colorbar(image, ax=axs[layer], shrink=0.8, pad=0.01).ax.tick_params(labelsize=6)
    for ax in axs[-1]:
        ax.set_xlabel("key cell")
    return fig


def draw_progress(result: dict):
    """The followed heads at every milestone, each on one colour scale, and the best scores of any head."""
    steps, shown, chance = result["steps"], result["shown"], result["chance"]["none"]
    fig, axs = plotting.axes(len(steps), len(FOLLOWED) + 1, height=6.2, squeeze=False)
    best = fig.add_subplot(axs[-1][0].get_gridspec()[-1, :])
    for ax in axs[-1]:
        ax.remove()
    for row, (name, key), color in zip(axs[:-1], FOLLOWED.items(), plotting.COLORS, strict=False):
        maps = result["maps"]["progress"][name]
        for ax, at in zip(row, steps, strict=True):
            title = f"step {steps[at]['values'][shown]:.0f}: {of_head(result, 'none', at, name, key):.2f}"
            show(ax, maps[at], result["size"][1], title, np.max(list(maps.values())))
        layer, head = result["heads"][shown][name]
        row[0].set_ylabel(f"layer {layer + 1} head {head + 1}\nto {NAMES[name]}")
        seeds = np.array([[seed["none"][at][key] for at in steps] for seed in result["scores"]]).max((2, 3))
        plotting.seed_lines(best, range(len(steps)), seeds, NAMES[name], color)
        best.axhline(chance[key], color=color, ls=":", lw=0.8)
    best.set_xticks(range(len(steps)), list(steps))
    best.set(ylabel="attention of the best\nhead (dotted: chance)", xlabel="milestone", ylim=(0, 1.02))
    best.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def draw_masks(result: dict):
    """The followed heads at the last milestone where whole rows or columns are hidden, with the mask beside."""
    patterns, last = result["patterns"], list(result["steps"])[-1]
    fig, axs = plotting.axes(1 + len(FOLLOWED), len(patterns), height=2.1 * len(patterns))
    for (mask, *row), (kind, pattern) in zip(axs, patterns.items(), strict=True):
        plotting.heatmap(mask, np.reshape(pattern, result["size"]))
        mask.set_title(f"mask {kind}\n(shown cells dark)", fontsize=6)
        mask.set(xticks=[], yticks=[], ylabel="row", xlabel="column")
        mask.spines[:].set_visible(True)
        chance = result["chance"][kind]["observed_by_masked"]
        for ax, name in zip(row, FOLLOWED, strict=True):
            layer, head = result["heads"][result["shown"]][name]
            seen = of_head(result, kind, last, name, "observed_by_masked")
            title = f"{name}: layer {layer + 1} head {head + 1}\nhidden to shown {seen:.2f}\n(chance {chance:.2f})"
            show(ax, result["maps"]["grid"][kind][layer][head], result["size"][1], title)
            ax.set(xlabel="key cell", ylabel="query cell")
    return fig
