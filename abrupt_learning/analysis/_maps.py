"""Figures of attention maps: one seed's maps, since no two seeds put the same head in the same place."""

from common import plotting


def show(ax, values: list, result: dict, title: str, limit: float | None = None):
    """A map, query down and key across, ruled off at the rows of the matrix."""
    image = plotting.heatmap(ax, values, limit=limit)
    columns = result["size"][1]
    rules = [place - 0.5 for place in range(columns, len(values), columns)]
    for rule in (ax.axhline, ax.axvline):
        for place in rules:
            rule(place, color=plotting.GREY, lw=0.3)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=6)
    return image


def label(head: dict) -> str:
    return f"layer {head['layer']['values'][0]:.0f} head {head['head']['values'][0]:.0f}"


def draw_grid(result: dict, kind: str, at: str):
    """Every head under one kind of mask at one milestone, with its scores; colours share a scale within a layer."""
    grid, scores = result["maps"]["grid"][kind], result["scores"][0][kind][at]
    layers, heads = len(grid), len(grid[0])
    fig, axs = plotting.axes(heads, layers, height=(6.5 / heads + 0.35) * layers + 0.2, squeeze=False)
    for layer, row in enumerate(grid):
        top = max(max(max(line) for line in values) for values in row)
        for head, values in enumerate(row):
            own = {name: scores[name][layer][head] for name in ("row", "column", "self")}
            title = f"head {head + 1}: row {own['row']:.2f}\ncol {own['column']:.2f}, self {own['self']:.2f}"
            image = show(axs[layer][head], values, result, title, top)
        axs[layer][0].set_ylabel(f"layer {layer + 1}\nquery cell")
        fig.colorbar(image, ax=axs[layer], shrink=0.8, pad=0.01).ax.tick_params(labelsize=6)
    for ax in axs[-1]:
        ax.set_xlabel("key cell")
    return fig


def draw_progress(result: dict):
    """The end's best row head and column head at every milestone, and the best scores of any head."""
    kind, steps = next(iter(result["chance"])), result["steps"]
    fig, axs = plotting.axes(len(steps), 3, height=5.2)
    for row, (name, maps) in zip(axs, result["maps"]["progress"].items(), strict=False):
        for ax, (at, values) in zip(row, maps.items(), strict=True):
            score = result["followed"][kind][at][name][name]["values"][0]
            show(ax, values, result, f"step {steps[at]['values'][0]:.0f}: {name} {score:.2f}")
        row[0].set_ylabel(f"{label(result['heads'][name])}\nquery cell")
    for ax in axs[2]:
        ax.remove()
    ax = fig.add_subplot(axs[2][0].get_gridspec()[2, :])
    for name, color in zip(("row", "column"), plotting.COLORS, strict=False):
        seeds = list(zip(*(result["maximum"][kind][at][name]["values"] for at in steps), strict=True))
        plotting.seed_lines(ax, range(len(steps)), seeds, f"best {name} score of any head", color)
        ax.axhline(result["chance"][kind][name], color=color, ls=":", lw=0.8)
    ax.set_xticks(range(len(steps)), list(steps))
    ax.set(ylabel="attention (dotted: chance)", xlabel="milestone", ylim=(0, 1))
    ax.legend(loc="upper left")
    return fig


def draw_masks(result: dict):
    """The end's best heads where whole rows or columns are hidden, with the mask beside."""
    kinds, (m, n) = result["patterns"], result["size"]
    last = list(result["steps"])[-1]
    fig, axs = plotting.axes(3, len(kinds), height=2.4 * len(kinds), squeeze=False)
    for row, (kind, shown) in zip(axs, kinds.items(), strict=True):
        plotting.heatmap(row[0], [shown[i * n : (i + 1) * n] for i in range(m)])
        row[0].set_title(f"mask {kind}: shown cells are dark", fontsize=6)
        row[0].set(xticks=[], yticks=[], ylabel="row", xlabel="column")
        for ax, (name, head) in zip(row[1:], result["heads"].items(), strict=True):
            layer, number = (int(head[key]["values"][0]) - 1 for key in ("layer", "head"))
            seen = result["followed"][kind][last][name]["observed_by_masked"]["values"][0]
            chance = result["chance"][kind]["observed_by_masked"]
            title = f"{label(head)} ({name} head): hidden cells\ngive {seen:.2f} to shown cells (chance {chance:.2f})"
            show(ax, result["maps"]["grid"][kind][layer][number], result, title)
            ax.set(xlabel="key cell", ylabel="query cell")
    return fig
