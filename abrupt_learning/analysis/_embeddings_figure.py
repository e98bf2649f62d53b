"""The figure of `embeddings`: rows of panels for tokens and for positions, and a row of checkpoints for each."""

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from common import plotting

# Six bins: red is negative, darker is larger; none is so pale that it is lost on white.
BINS = ListedColormap(colormaps[plotting.SIGNED]([1.0, 0.85, 0.7, 0.3, 0.15, 0.0]))
ORDERS = {"identity": "none", "swap_rows": "2 rows", "swap_columns": "2 cols.", "transpose": "transp.", "random": "all"}


def _score(score: dict) -> str:
    return "undefined" if score["mean"] is None else f"{score['mean']:.2f}"


def _tokens(ax, result: dict, points: list) -> BoundaryNorm:
    """A dot per value; returns the bins of one width that colour it."""
    edge = max(abs(v) for v in result["values"])
    bins = BoundaryNorm(np.linspace(-edge, edge, 7), 6)
    ax.scatter(*np.transpose(points), s=9, c=result["values"], cmap=BINS, norm=bins, linewidths=0)
    return bins


def _positions(ax, result: dict, points: list, by: str) -> None:
    """Each cell written as the number of its column or row."""
    rows, columns = result["grid"]
    colors = plotting.ordered(columns if by == "column" else rows)
    for cell, (x, y) in enumerate(points):
        number = cell % columns if by == "column" else cell // columns
        ax.text(x, y, number + 1, color=colors[number], fontsize=6.5, ha="center", va="center", weight="bold")
    ax.update_datalim(points)
    ax.autoscale_view()
    ax.margins(0.1)
    ax.set(xticks=[], yticks=[])


def _permute(ax, result: dict) -> None:
    rows = {label: result["permute"][order] for order, label in ORDERS.items() if order in result["permute"]}
    for kind in ("observed", "masked"):
        dots = {label: row[f"loss_{kind}"]["values"] for label, row in rows.items()}
        plotting.seed_dots(ax, dots, plotting.PALETTE[kind], kind)
    ax.axhline(result["variance"], color=plotting.GREY, ls="--", lw=0.8, label="predicting 0")
    ax.tick_params(axis="x", labelsize=6, rotation=30)
    ax.set(yscale="log", xlabel="positions permuted", ylabel="MSE")
    ax.legend(loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=3, fontsize=6, columnspacing=0.8, handlelength=0.8)


def _token_row(part, result: dict) -> None:
    norm, pca, permute = part.subplots(1, 3)
    scores = result["tokens"]["end"]
    plotting.seed_lines(norm, result["values"], result["norms"]["tokens"], "mean", plotting.BLUE)
    norm.set(xlabel="value $v$", ylabel="norm $|e(v)|$", title=f"tokens: symmetry {_score(scores['symmetry'])}")
    bins = _tokens(pca, result, result["maps"]["tokens"]["end"])
    bar = part.colorbar(ScalarMappable(bins, BINS), ax=pca, label="value $v$", format="%.2g", aspect=30)
    bar.ax.tick_params(labelsize=6)
    sign, size = (_score(scores["own_axes"][name]) for name in ("sign", "magnitude"))
    pca.set(xlabel="component 1", ylabel="component 2", title=f"tokens: sign {sign}, size {size}")
    _permute(permute, result)


def _position_row(part, result: dict) -> None:
    norm, *axs = part.subplots(1, 3)
    norms = result["norms"]["positions"]
    plotting.seed_lines(norm, range(1, len(norms[0]) + 1), norms, "mean", plotting.BLUE)
    norm.set(xlabel="cell, row by row", ylabel="norm of position", title="positions")
    for ax, by in zip(axs, ("column", "row"), strict=True):
        _positions(ax, result, result["maps"]["positions"]["end"], by)
        near, chance = result["positions"]["end"][by]["mean"], result["chance"][by]
        ax.set(xlabel="t-SNE 1", ylabel="t-SNE 2", title=f"by {by}: {near:.0%} (chance {chance:.0%})")


def _token_progress(axs, result: dict) -> None:
    for ax, (name, points) in zip(axs, result["maps"]["tokens"].items(), strict=True):
        _tokens(ax, result, points)
        sign, size = (_score(result["tokens"][name]["final_axes"][key]) for key in ("sign", "magnitude"))
        ax.set_title(f"{name}\nsign {sign}\nsize {size}")
    axs[0].set_ylabel("final component 2")


def _position_progress(axs, result: dict) -> None:
    """By column or by row, whichever the final positions cluster by."""
    scores = result["positions"]
    clearer = max(("column", "row"), key=lambda by: scores["end"][by]["mean"])
    for ax, (name, points) in zip(axs, result["maps"]["positions"].items(), strict=True):
        _positions(ax, result, points, clearer)
        ax.set_title(f"{name}\ncolumn {scores[name]['column']['mean']:.0%}\nrow {scores[name]['row']['mean']:.0%}")
    axs[0].set_ylabel(f"t-SNE 2, by {clearer}")


def draw(result: dict) -> Figure:
    """Scatter pictures show one seed, numbers are means over seeds."""
    plotting.style()
    heights = (1.9, 1.9, 1.7, 1.7)
    figure = Figure(figsize=(plotting.FULL, sum(heights)), layout="constrained")
    tokens, positions, *progress = figure.subfigures(4, height_ratios=heights)
    _token_row(tokens, result)
    _position_row(positions, result)
    panels = (_token_progress, "final component 1"), (_position_progress, "t-SNE 1")
    for part, (panel, label) in zip(progress, panels, strict=True):
        panel(part.subplots(1, len(result["steps"]), sharex=True, sharey=True, squeeze=False)[0], result)
        part.supxlabel(label, fontsize="medium")
    return figure
