"""Axes that several figures have."""

from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "columnspacing": 1, "handletextpad": 0.4}
"""Where a legend stands clear of the data: over the panel."""
DOTS = {"marker": "o", "linestyle": "", "ms": 3.5, "alpha": 0.7}
"""A dot per run and seed."""
PARAMETERS = "parameters P"


def log_x(ax, xlabel: str) -> None:
    """A logarithmic axis, labelled at 1, 2 and 5 of every decade: 0.5, 20, 50k, 1M."""
    ax.set(xscale="log", xlabel=xlabel)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter(sep="") if xlabel == PARAMETERS else "{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
