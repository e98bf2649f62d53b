"""One look for every figure: the page's text width, one colour per concept, each seed thin under the bold mean.

Figures are made without pyplot, so none stays open, and saved without dates, so the same data gives the same bytes.
"""

import io
from pathlib import Path

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D
from PIL import Image

from common.experiment import interval
from common.plain import write_atomic, write_json

# Inches: the text width of a page, and of one of two columns on it.
FULL, HALF = 6.5, 3.2
DPI = 150
# Points of a band: more than a panel has pixels to tell apart, and seaborn takes half a millisecond for each.
BAND_POINTS = 200

# Okabe and Ito's colours, which stay apart with every common kind of colour blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK = COLORS
GREY = "#6E737B"

# A concept keeps its colour in every figure of every paper.
PALETTE = {
    "all": INK, "observed": BLUE, "masked": VERMILION,
    "train": BLUE, "test": VERMILION,
    "model": BLUE, "baseline": ORANGE, "truth": INK, "chance": GREY,
    "before": SKY, "after": VERMILION,
}  # fmt: skip
SEQUENTIAL, SIGNED = "Blues", "RdBu_r"

STYLE = {
    "font.family": ["DejaVu Sans"],  # Ships with matplotlib: the same letters on every machine.
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLORS),
    "legend.handlelength": 1.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,  # Letters stay letters when the figure is edited.
}


def style() -> None:
    """Make the house style the default for what is drawn from here on, whatever a matplotlibrc says."""
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(STYLE)


def axes(ncols: int = 1, nrows: int = 1, width: float = FULL, height: float | None = None, **subplots):
    """(figure, axes) in the house style; axes is an array unless there is only one.

    width, height: inches, of the whole figure; by default each panel is 0.62 as high as wide.
    subplots: as for Figure.subplots (sharey, width_ratios, ...).
    """
    style()
    height = height or 0.62 * width / ncols * nrows
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(nrows, ncols, **subplots)


def seed_lines(ax, x, ys, label: str, color: str):
    """Every seed thin under the bold mean, which carries the label, with the 95% t-interval over seeds as a band.

    x: (points,). ys: (seeds, points). Returns the mean's line. The mean has a gap where any seed has one: no seed leaves it
    unseen. The band does not widen the axes: seeds that fall at different steps have one far beyond all of them. Set
    logarithmic scales afterwards: seaborn would average logarithms.
    """
    import seaborn

    x, ys = np.asarray(x), np.atleast_2d(np.asarray(ys, dtype=float))
    ys = np.where(np.isfinite(ys), ys, np.nan)
    gaps = np.isnan(ys)
    # seaborn joins over gaps, so each stretch between two is a unit of its own.
    stretches = gaps.cumsum(1) + ys.size * np.arange(len(ys))[:, None]
    thin = {"units": stretches.ravel(), "estimator": None, "sort": False, "linewidth": 0.6, "alpha": 0.45}
    if not gaps.all():
        seaborn.lineplot(x=np.tile(x, len(ys)), y=ys.ravel(), color=color, legend=False, ax=ax, **thin)
    mean = ax.plot(x, ys.mean(0), color=color, linewidth=1.7, label=label)[0]
    shown = np.flatnonzero(~gaps.any(0))[:: -(-len(x) // BAND_POINTS)]
    if len(ys) > 1 and len(shown):
        limits = ax.dataLim.frozen()
        band = {"errorbar": _band, "linewidth": 0, "err_kws": {"alpha": 0.13, "linewidth": 0}}
        seaborn.lineplot(x=np.tile(x[shown], len(ys)), y=ys[:, shown].ravel(), color=color, legend=False, ax=ax, **band)
        ax.dataLim.set(limits)
        ax.autoscale_view()
    return mean


def _band(values) -> tuple[float, float]:
    mean, error = interval(values)
    return mean - error, mean + error


def each_seed(ax, x, ys, label: str, color: str) -> None:
    """Every seed as a line of its own: where seeds fall at different steps, their mean falls as none of them does.

    x: (points,). ys: (seeds, points). The first carries the label.
    """
    for number, row in enumerate(np.atleast_2d(np.asarray(ys, dtype=float))):
        ax.plot(x, row, color=color, linewidth=1.2, alpha=0.85, label=label if number == 0 else None)


def seed_dots(ax, groups: dict[str, list], color: str = INK, label: str | None = None):
    """A dot per seed for each group, side by side, over a dash at their mean, which carries the label.

    groups: name -> a value per seed; None and what is not finite is left out. Groups drawn twice on one axis share places.
    """
    import seaborn

    known = {
        name: [value for value in values if value is not None and np.isfinite(value)] for name, values in groups.items()
    }
    # Without jitter, which seaborn draws at random: the same data must give the same bytes.
    seaborn.stripplot(
        known, color=color, size=3.5, alpha=0.75, linewidth=0, jitter=False, zorder=3, legend=False, ax=ax
    )
    means = [(place, np.mean(values)) for place, values in enumerate(known.values()) if values]
    for place, mean in means:
        ax.hlines(mean, place - 0.35, place + 0.35, color=color, linewidth=1.7, label=label)
        label = None
    ax.grid(False, axis="x")
    return ax


def ordered(count: int) -> list[str]:
    """`count` colours from dark to light, for things that have an order (layers, steps, widths)."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, count))
    return [matplotlib.colors.to_hex(shade) for shade in shades]


def heatmap(ax, values, signed: bool = False, limit: float | None = None):
    """Map of values (rows, columns), white at zero. signed: red above, blue below. limit: value of full colour.

    Cell (row, column) is centred at y = row, x = column; NaN is left blank. Returns what a colour bar needs.
    """
    import seaborn

    values = np.atleast_2d(np.asarray(values, dtype=float))
    limit = limit or float(np.nanmax(np.abs(values))) or 1.0
    colors = {"cmap": SIGNED if signed else SEQUENTIAL, "vmin": -limit if signed else 0, "vmax": limit}
    ax.grid(False)
    bare = {"cbar": False, "xticklabels": False, "yticklabels": False, "square": True, "rasterized": True}
    # seaborn puts a cell's corner where its index is.
    centred = Affine2D().translate(-0.5, -0.5) + ax.transData
    seaborn.heatmap(values, ax=ax, transform=centred, **colors, **bare)
    rows, columns = values.shape
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    return ax.collections[-1]


def save(fig: Figure, stem: str | Path, data: dict) -> Path:
    """Write <stem>.png, <stem>.pdf, and <stem>.json with the data drawn (NaN as null); returns the PNG's path."""
    write_atomic(f"{stem}.png", _png(fig))
    write_atomic(f"{stem}.pdf", _pdf(fig))
    write_json(f"{stem}.json", data)
    return Path(f"{stem}.png")


def _png(fig: Figure) -> bytes:
    """PNG with a palette of 256 colours, a third of the size and no difference to the eye."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI)
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True, dpi=(DPI, DPI))
    return packed.getvalue()


def _pdf(fig: Figure) -> bytes:
    """PDF without date and program."""
    drawn = io.BytesIO()
    fig.savefig(drawn, format="pdf", dpi=2 * DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return drawn.getvalue()
