"""One look for every figure: the page's text width, one colour per concept, each seed thin under the bold mean.

Figures are made without pyplot, so none stays open, and saved without dates, so the same data gives the same bytes.
"""

import io
from pathlib import Path

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

from common.plain import write_atomic, write_json

# Inches: the text width of a page, and of one of two columns on it.
FULL, HALF = 6.5, 3.2
DPI = 150

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
    """Make the house style the default for what is drawn from here on."""
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
    """Every seed thin under the bold mean, which carries the label; returns the mean's line.

    x: (points,). ys: (seeds, points). The mean has a gap where any seed has one: no seed leaves it unseen.
    """
    ys = np.atleast_2d(np.asarray(ys, dtype=float))
    ax.plot(x, ys.T, color=color, linewidth=0.6, alpha=0.45)
    return ax.plot(x, ys.mean(0), color=color, linewidth=1.7, label=label)[0]


def ordered(count: int) -> list[str]:
    """`count` colours from dark to light, for things that have an order (layers, steps, widths)."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, count))
    return [matplotlib.colors.to_hex(shade) for shade in shades]


def heatmap(ax, values, signed: bool = False, limit: float | None = None):
    """Image of values (rows, columns), white at zero. signed: red above, blue below. limit: value of full colour."""
    values = np.asarray(values, dtype=float)
    limit = limit or float(np.nanmax(np.abs(values))) or 1.0
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax.imshow(values, cmap=SIGNED if signed else SEQUENTIAL, vmin=-limit if signed else 0, vmax=limit)


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
    fig.savefig(drawn, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return drawn.getvalue()
