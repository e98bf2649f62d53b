"""The figure of the analysis `embeddings`: a row of panels for tokens, one for positions, one per progress experiment."""

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from common import plotting

# Red is negative, darker is larger; none is so pale that it is lost on white.
BINS = ListedColormap(colormaps[plotting.SIGNED]([1.0, 0.85, 0.7, 0.3, 0.15, 0.0]))
ORDERS = {"identity": "none", "swap_rows": "2 rows", "swap_columns": "2 cols.", "transpose": "transp.", "random": "all"}


def _bins(result: dict) -> BoundaryNorm:
    """Six bins of one width over the range of values."""
    edge = max(abs(v) for v in result["values"])
    return BoundaryNorm(np.linspace(-edge, edge, 7), 6)


def _token_norm(ax, result: dict) -> None:
    plotting.seed_lines(ax, result["values"], result["token_norm"]["norms"], "mean", plotting.BLUE)
    ax.set(
        xlabel="value $v$", ylabel="norm $|e(v)|$", title=f"tokens: symmetry {_mean(result['token_norm']['symmetry'])}"
    )


def _mean(score: dict) -> str:
    return "undefined" if score["mean"] is None else f"{score['mean']:.2f}"


def _tokens(ax, result: dict, points: list) -> None:
    ax.scatter(*np.array(points).T, s=9, c=result["values"], cmap=BINS, norm=_bins(result), linewidths=0)


def _token_pca(ax, result: dict) -> None:
    pca = result["token_pca"]
    _tokens(ax, result, pca["map"])
    bar = ax.figure.colorbar(ScalarMappable(_bins(result), BINS), ax=ax, label="value $v$", format="%.2g", aspect=30)
    bar.ax.tick_params(labelsize=6)
    ax.set(xlabel="component 1", ylabel="component 2")
    ax.set_title(f"tokens: sign {_mean(pca['sign'])}, size {_mean(pca['magnitude'])}")


def _permute(ax, result: dict) -> None:
    rows = {label: result["permute"][order] for order, label in ORDERS.items() if order in result["permute"]}
    for kind in ("observed", "masked"):
        dots = {label: row[f"loss_{kind}"]["values"] for label, row in rows.items()}
        plotting.seed_dots(ax, dots, plotting.PALETTE[kind], kind)
    ax.axhline(result["variance"], color=plotting.GREY, ls="--", lw=0.8, label="predicting 0")
    ax.tick_params(axis="x", labelsize=6)
    ax.set(yscale="log", xlabel="positions permuted", ylabel="MSE")
    ax.legend(loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=3, fontsize=6, columnspacing=0.8, handlelength=0.8)


def _position_norm(ax, result: dict) -> None:
    norms = result["position_norm"]["norms"]
    plotting.seed_lines(ax, range(1, len(norms[0]) + 1), norms, "mean", plotting.BLUE)
    ax.set(xlabel="cell, row by row", ylabel="norm of position", title="positions")


def _positions(ax, result: dict, points: list, by: str) -> None:
    """The picture with each cell written as the number of its column or row."""
    rows, columns = result["grid"]
    colors = plotting.ordered(columns if by == "column" else rows)
    for cell, (x, y) in enumerate(points):
        number = cell % columns if by == "column" else cell // columns
        ax.text(x, y, number + 1, color=colors[number], fontsize=6.5, ha="center", va="center", weight="bold")
    ax.update_datalim(points)
    ax.autoscale_view()
    ax.margins(0.1)
    ax.set(xticks=[], yticks=[])


def _position_tsne(by: str):
    def panel(ax, result: dict) -> None:
        near = result["position_tsne"]
        _positions(ax, result, near["map"], by)
        ax.set(xlabel="t-SNE 1", ylabel="t-SNE 2")
        ax.set_title(f"by {by}: {near[by]['mean']:.0%} (chance {near['chance'][by]:.0%})")

    return panel


def _token_progress(ax, result: dict, name: str) -> None:
    scores = result["token_progress"]["scores"][name]["final_axes"]
    _tokens(ax, result, result["token_progress"]["maps"][name])
    ax.set_title(f"{name}\nsign {_mean(scores['sign'])}\nsize {_mean(scores['magnitude'])}")


def _clearer(result: dict) -> str:
    """Column or row, whichever the final positions cluster by."""
    end = result["position_progress"]["scores"]["end"]
    return max(("column", "row"), key=lambda by: end[by]["mean"])


def _position_progress(ax, result: dict, name: str) -> None:
    scores = result["position_progress"]["scores"][name]
    _positions(ax, result, result["position_progress"]["maps"][name], _clearer(result))
    ax.set_title(f"{name}\ncolumn {scores['column']['mean']:.0%}\nrow {scores['row']['mean']:.0%}")


def _single(part, result: dict, panels: list) -> None:
    for ax, panel in zip(np.atleast_1d(part.subplots(1, len(panels))), panels, strict=True):
        panel(ax, result)


def _progress(part, result: dict, panel, maps: dict, labels: tuple[str, str]) -> None:
    """One panel per checkpoint, all on the same axes."""
    axs = np.atleast_1d(part.subplots(1, len(maps), sharex=True, sharey=True))
    for ax, name in zip(axs, maps, strict=True):
        panel(ax, result, name)
    axs[0].set_ylabel(labels[1])
    part.supxlabel(labels[0], fontsize="medium")


TOKENS = {"token_norm": [_token_norm], "token_pca": [_token_pca], "permute": [_permute]}
POSITIONS = {"position_norm": [_position_norm], "position_tsne": [_position_tsne("column"), _position_tsne("row")]}
PROGRESS = {
    "token_progress": (_token_progress, "final component 1", lambda result: "final component 2"),
    "position_progress": (_position_progress, "t-SNE 1", lambda result: f"t-SNE 2, by {_clearer(result)}"),
}


def draw(result: dict) -> Figure:
    """The rows whose experiments were done; scatter pictures show one seed, numbers are means over seeds."""
    plotting.style()
    single = [[p for name in row if name in result for p in row[name]] for row in (TOKENS, POSITIONS)]
    single = [panels for panels in single if panels]
    progress = [name for name in PROGRESS if name in result]
    heights = [1.9] * len(single) + [1.7] * len(progress)
    figure = Figure(figsize=(plotting.FULL, sum(heights)), layout="constrained")
    parts = iter(np.atleast_1d(figure.subfigures(len(heights), height_ratios=heights)))
    for panels in single:
        _single(next(parts), result, panels)
    for name in progress:
        panel, x, y = PROGRESS[name]
        _progress(next(parts), result, panel, result[name]["maps"], (x, y(result)))
    return figure
