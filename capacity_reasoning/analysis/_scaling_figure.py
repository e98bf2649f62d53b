"""The figure of `scaling`: content against parameters and people, bits per parameter, what is known by subject."""

import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from common import plotting

MARKERS = "osD^v"
SHOWN = ("optimal", "enumerate", "corrected")
COLORS = {
    "optimal": plotting.BLUE, "enumerate": plotting.VERMILION, "independent": plotting.GREEN,
    "independent_as_published": plotting.SKY, "corrected": plotting.ORANGE,
}  # fmt: skip
"""Of the selection schemes, in every figure."""
COLUMNS = 3


def draw(result: dict, variation: dict[str, dict[str, list]], extremes: tuple[dict, dict] | None):
    """variation: of bits per parameter by scheme; extremes: the runs of least and of largest load."""
    depths = sorted({run["layers"] for run in result["runs"].values()})
    marks = {layers: MARKERS[number % len(MARKERS)] for number, layers in enumerate(depths)}
    runs = [run | {"mark": marks[run["layers"]]} for run in result["runs"].values()]
    people, models = grouped(runs, ("N", "R")), grouped(runs, ("P", "R"))
    several = [key for key, group in people.items() if len({run["P"] for run in group}) > 1]
    # A single one is told by its colour in the panels above.
    several = several if len(several) > 1 else []
    rows = 3 + -(-len(several) // COLUMNS)
    fig, axes = plotting.axes(COLUMNS, rows, height=2.1 * rows + 0.5, squeeze=False)
    colors = dict(zip(people, plotting.ordered(len(people)), strict=True))
    cells = iter(axes.ravel())
    for scheme in SHOWN:
        against_parameters(next(cells), people, colors, scheme, scheme)
    for layers, mark in marks.items() if len(marks) > 1 else ():
        axes[0][0].plot([], [], mark, color=plotting.GREY, markersize=3.5, label=f"{layers} layer{'s'[: layers - 1]}")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    for key in several:
        ax = next(cells)
        against_parameters(ax, {key: people[key]}, colors, "corrected", label_of(key, people))
        ax.set_ylabel("content, corrected (bits)")
    for ax in list(cells)[: -2 * COLUMNS]:
        ax.remove()
    against_people(axes[-2][0], models)
    per_parameter(axes[-2][1], runs)
    part_known(axes[-2][2], people, colors)
    against_norm(axes[-1][0], people, colors)
    flatness(axes[-1][1], variation)
    by_subject(axes[-1][2], extremes)
    return fig


def grouped(runs: list[dict], keys: tuple[str, str]) -> dict[tuple, list[dict]]:
    """Runs by the values of two keys, in their order."""
    values = sorted({tuple(run[key] for key in keys) for run in runs})
    return {value: [run for run in runs if tuple(run[key] for key in keys) == value] for value in values}


def label_of(key: tuple, groups: dict, name: str = "N") -> str:
    """N = 10,000, P = 1.17M, and R where that differs between groups."""
    number = f"{key[0]:,}" if name == "N" else f"{key[0] / 1e6:.3g}M" if key[0] >= 1e6 else f"{key[0] / 1e3:.3g}k"
    return f"{name} = {number}" + (f", R = {key[1]}" if len({R for _, R in groups}) > 1 else "")


def mean(run: dict, scheme: str, key: str) -> float:
    return float(np.mean(run["schemes"][scheme][key]))


def curve(ax, runs: list[dict], x: str, scheme: str, color: str, label: str) -> None:
    """Content against a key of the runs: seeds as faint dots, their mean as a mark, a line through those of a depth."""
    for mark in sorted({run["mark"] for run in runs}):
        mine = sorted((run for run in runs if run["mark"] == mark), key=lambda run: run[x])
        ax.plot(
            [run[x] for run in mine],
            [run["schemes"][scheme]["bits"] for run in mine],
            ".",
            color=color,
            markersize=3,
            alpha=0.5,
        )
        ax.plot([run[x] for run in mine], [mean(run, scheme, "bits") for run in mine], color=color, marker=mark,
                markersize=3.5, linewidth=1.1, label=label)  # fmt: skip
        label = "_"


def limits(ax, runs: list[dict], x: str, color: str, scheme: str) -> None:
    """Entropy of the dataset and baseline of the first run as horizontal lines."""
    ends = [min(run[x] for run in runs) / 1.25, max(run[x] for run in runs) * 1.25]
    for key, style in (("dataset", ":"), ("baseline", "-.")):
        ax.plot(ends, [mean(runs[0], scheme, key)] * 2, color=color, linestyle=style, linewidth=0.9)


def against_parameters(ax, groups: dict, colors: dict, scheme: str, title: str) -> None:
    """Content against P, a colour per N; dotted: entropy of the dataset; dash-dotted: baseline; dashed: 2 P."""
    for key, runs in groups.items():
        curve(ax, runs, "P", scheme, colors[key], label_of(key, colors))
        limits(ax, runs, "P", colors[key], scheme)
    P = np.array(sorted(run["P"] for runs in groups.values() for run in runs))[[0, -1]] * [1 / 1.25, 1.25]
    ax.plot(P, 2 * P, "--", color=plotting.GREY, linewidth=1, label="2 bits/param", zorder=1)
    ax.plot([], [], ":", color=plotting.GREY, linewidth=0.9, label="dataset")
    ax.plot([], [], "-.", color=plotting.GREY, linewidth=0.9, label="baseline")
    logarithmic(ax, "parameters, P", "content (bits)", title)


def logarithmic(ax, x: str, y: str, title: str) -> None:
    """Both scales logarithmic, with ticks inside a decade where there are few."""
    ax.set(xlabel=x, ylabel=y, title=title, xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(
            LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high < 4 * low else (1, 2, 5) if high < 100 * low else (1,))
        )
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())


def against_people(ax, models: dict) -> None:
    """Content against N, a colour per P; dotted: entropy of the dataset."""
    for (key, runs), color in zip(models.items(), plotting.ordered(len(models)), strict=True):
        curve(ax, runs, "N", "corrected", color, label_of(key, models, "P"))
    runs = sorted((run for group in models.values() for run in group), key=lambda run: run["N"])
    for R in sorted({run["R"] for run in runs}):
        mine = [run for run in runs if run["R"] == R]
        for key, style in (("dataset", ":"), ("baseline", "-.")):
            ax.plot(
                [run["N"] for run in mine], [mean(run, "corrected", key) for run in mine], style, color=plotting.GREY
            )
    logarithmic(ax, "people, N", "content (bits)", "content, corrected")
    low, high = ax.get_ylim()
    ax.set_ylim(top=high * (high / low) ** (0.06 * len(models) + 0.1))
    legend = ax.legend(fontsize=5, loc="upper left", ncols=2, columnspacing=0.8, borderpad=0, labelspacing=0.3)
    legend.set_in_layout(False)


def per_parameter(ax, runs: list[dict]) -> None:
    """Bits per parameter against load, schemes in the colours of the panel below."""
    for scheme, color in COLORS.items():
        points = [(mean(run, "corrected", "load"), mean(run, scheme, "per_parameter")) for run in runs]
        ax.plot(*zip(*sorted(points), strict=True), "o", color=color, markersize=3)
    ax.axhline(2, color=plotting.GREY, linestyle="--", linewidth=1)
    ax.axvline(2, color=plotting.GREY, linewidth=0.6)
    ax.set(
        xlabel="load (dataset bits / P, corrected)",
        ylabel="content (bits / param)",
        title="all schemes, colours as below",
    )


def part_known(ax, groups: dict, colors: dict) -> None:
    """Content over entropy against load; dashed: what 2 bits per parameter would hold."""
    loads = []
    for key, runs in groups.items():
        for run in runs:
            found = run["schemes"]["corrected"]
            loads += found["load"]
            ax.plot(found["load"], np.divide(found["bits"], found["dataset"]), ".", color=colors[key], markersize=5)
    load = np.linspace(min(loads), max(*loads, 2.5), 200)
    ax.plot(load, np.minimum(1, 2 / load), "--", color=plotting.GREY, linewidth=1)
    ax.set(xlabel="load (dataset bits / P)", ylabel="content / dataset entropy", title="part stored, corrected")


def flatness(ax, variation: dict[str, dict[str, list]]) -> None:
    """Coefficient of variation of bits per parameter by scheme: a dot per seed, bars of its jackknife error."""
    for place, (scheme, found) in enumerate(variation.items()):
        for number, (value, error) in enumerate(zip(found["values"], found["jackknife"], strict=True)):
            if value is not None:
                x = place + 0.15 * (number - (len(found["values"]) - 1) / 2)
                ax.errorbar(x, value, error, fmt="o", color=COLORS[scheme], markersize=3, linewidth=0.8)
    names = [name.replace("independent_as_", "as ") for name in variation]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=6)
    for label, scheme in zip(ax.get_xticklabels(), variation, strict=True):
        label.set_color(COLORS[scheme])
    ax.set(ylabel="coefficient of variation", title="bits/param, saturated runs", xlim=(-0.6, len(names) - 0.4))
    if not any(value is not None for found in variation.values() for value in found["values"]):
        ax.text(0.5, 0.5, "fewer than three\nsaturated runs", ha="center", va="center", transform=ax.transAxes)


def by_subject(ax, extremes: tuple[dict, dict] | None) -> None:
    """Part of every subject's bits that is known, at the least and the largest load: a dot per seed, bars of the mean."""
    ax.set(ylabel="1 - loss / entropy", title="known, by subject")
    if extremes is None:
        ax.text(
            0.5,
            0.5,
            "no run below and\none above 2 bits\nper parameter",
            ha="center",
            va="center",
            transform=ax.transAxes,
        )
        return
    for run, color, shift in zip(extremes, (plotting.SKY, plotting.VERMILION), (-0.2, 0.2), strict=True):
        values, places = np.array(run["known"]), np.arange(len(run["subjects"])) + shift
        ax.bar(places, values.mean(0), 0.38, color=color, label=f"load {mean(run, 'corrected', 'load'):.1f}")
        ax.plot(places, values.T, ".", color=plotting.INK, markersize=2)
    names = [name.replace("_", " ") for name in max(extremes, key=lambda run: len(run["subjects"]))["subjects"]]
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=5.5)
    ax.set_ylim(top=1.35)
    ax.legend(ncols=2, loc="upper center", fontsize=5.5, handlelength=1, columnspacing=0.8)
    ax.grid(False, axis="x")


def against_norm(ax, groups: dict, colors: dict) -> None:
    """Content against the norm of all weights."""
    for key, runs in groups.items():
        for run in runs:
            ax.plot(run["norm"], run["schemes"]["corrected"]["bits"], ".", color=colors[key], markersize=5)
    ax.set(xlabel="norm of all weights", ylabel="content (bits)", title="content, corrected")
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
