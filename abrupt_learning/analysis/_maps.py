"""Figures of attention maps: those of the first seed that dropped, since no two seeds put the same head in the same place."""

from abrupt_learning.estimators.attention_scores import FOLLOWED
from common import plotting

NAMES = {"row": "own row", "column": "own column", "observed": "observed cells"}


def show(ax, values: list, result: dict, title: str, limit: float | None = None):
    """A map, query down and key across, ruled off at the rows of the matrix."""
    image = plotting.heatmap(ax, values, limit=limit)
    columns = result["size"][1]
    for rule in (ax.axhline, ax.axvline):
        for edge in range(columns, len(values), columns):
            rule(edge - 0.5, color=plotting.GREY, lw=0.3)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=6)
    return image


def label(result: dict, name: str) -> str:
    layer, head = (result["heads"][name][key]["values"][result["shown"]] for key in ("layer", "head"))
    return f"layer {layer:.0f} head {head:.0f}"


def draw(result: dict):
    """Every head at the last milestone under the first mask, with its scores; colours share a scale within a layer."""
    kind, at = next(iter(result["chance"])), list(result["steps"])[-1]
    grid, scores = result["maps"]["grid"][kind], result["scores"][result["shown"]][kind][at]
    layers, heads = len(grid), len(grid[0])
    fig, axs = plotting.axes(heads, layers, height=(5.6 / heads + 0.45) * layers + 0.3, squeeze=False)
    for layer, row in enumerate(grid):
        top = max(max(max(line) for line in values) for values in row)
        for head, values in enumerate(row):
            own = {name: scores[name][layer][head] for name in ("row", "column", "self")}
            title = "\n".join(f"{name} {score:.2f}" for name, score in own.items())
            title = title if layer else f"head {head + 1}\n{title}"
            image = show(axs[layer][head], values, result, title, top)
        axs[layer][0].set_ylabel(f"layer {layer + 1}\nquery cell")
        fig.colorbar(image, ax=axs[layer], shrink=0.8, pad=0.01).ax.tick_params(labelsize=6)
    for ax in axs[-1]:
        ax.set_xlabel("key cell")
    return fig


def draw_progress(result: dict):
    """The followed heads at every milestone, each on one colour scale, and the best scores of any head."""
    kind, steps, shown = next(iter(result["chance"])), result["steps"], result["shown"]
    fig, axs = plotting.axes(len(steps), len(FOLLOWED) + 1, height=6.2)
    for row, (name, key) in zip(axs, FOLLOWED.items(), strict=False):
        top = max(max(max(line) for line in values) for values in result["maps"]["progress"][name].values())
        for ax, at in zip(row, steps, strict=True):
            score = result["followed"][kind][at][name][key]["values"][shown]
            title = f"step {steps[at]['values'][shown]:.0f}: {score:.2f}"
            show(ax, result["maps"]["progress"][name][at], result, title, top)
        row[0].set_ylabel(f"{label(result, name)}\nto {NAMES[name]}")
    for ax in axs[-1]:
        ax.remove()
    ax = fig.add_subplot(axs[-1][0].get_gridspec()[-1, :])
    for (name, key), color in zip(FOLLOWED.items(), plotting.COLORS, strict=False):
        seeds = list(zip(*(result["maximum"][kind][at][name]["values"] for at in steps), strict=True))
        plotting.seed_lines(ax, range(len(steps)), seeds, NAMES[name], color)
        ax.axhline(result["chance"][kind][key], color=color, ls=":", lw=0.8)
    ax.set_xticks(range(len(steps)), list(steps))
    ax.set(ylabel="attention of the best\nhead (dotted: chance)", xlabel="milestone", ylim=(0, 1.02))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def draw_masks(result: dict):
    """The followed heads at the last milestone where whole rows or columns are hidden, with the mask beside."""
    patterns, (m, n) = result["patterns"], result["size"]
    last = list(result["steps"])[-1]
    fig, axs = plotting.axes(1 + len(FOLLOWED), len(patterns), height=2.1 * len(patterns), squeeze=False)
    for row, (kind, pattern) in zip(axs, patterns.items(), strict=True):
        plotting.heatmap(row[0], [pattern[i * n : (i + 1) * n] for i in range(m)])
        row[0].set_title(f"mask {kind}\n(shown cells dark)", fontsize=6)
        row[0].set(xticks=[], yticks=[], ylabel="row", xlabel="column")
        row[0].spines[:].set_visible(True)
        for ax, name in zip(row[1:], FOLLOWED, strict=True):
            layer, head = (int(result["heads"][name][key]["values"][result["shown"]]) - 1 for key in ("layer", "head"))
            seen = result["followed"][kind][last][name]["observed_by_masked"]["values"][result["shown"]]
            chance = result["chance"][kind]["observed_by_masked"]
            title = f"{name}: {label(result, name)}\nhidden to shown {seen:.2f}\n(chance {chance:.2f})"
            show(ax, result["maps"]["grid"][kind][layer][head], result, title)
            ax.set(xlabel="key cell", ylabel="query cell")
    return fig
