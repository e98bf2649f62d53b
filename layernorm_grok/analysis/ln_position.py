"""Where the norm sits decides how fast it groks (paper Figs 1 and 2a; sheet C1, C2, C25, and instability after grokking)."""

from common import plotting
from layernorm_grok import times
from layernorm_grok.analysis._driver import colors, label, perform
from layernorm_grok.analysis._grokking import Sweep, draw_curves, draw_times, finding, plain_ticks
from layernorm_grok.analysis._grokking import analyse as cell_results
from layernorm_grok.evaluate import Trained


def analyse(trained: Trained, settings: Sweep) -> dict:
    """The cells in the claimed order, fastest first, and Kendall's tau of fitting and generalising by seed."""
    result = cell_results(trained, settings)
    cells = result["cells"]
    firsts = [cell["times"]["first"] for cell in cells.values()]
    fitted = [cell["times"]["t_train"] for cell in cells.values()]
    by_seed = zip(zip(*fitted, strict=True), zip(*firsts, strict=True), strict=True)
    result["tau"] = [tau(fits, comes, trained.config.train.steps) for fits, comes in by_seed]
    return result


def tau(fitted: tuple, firsts: tuple, budget: int) -> float | None:
    """Kendall's tau of one seed over placements, T_train against the first crossing (C2).

    What did not generalise ranks last; a placement that stopped before its train loss came to 0.01 is left out, and with
    fewer than three there is none.
    """
    known = [(a, budget + 1 if b is None else b) for a, b in zip(fitted, firsts, strict=True) if a is not None]
    return times.kendall_tau(*zip(*known, strict=True)) if len(known) > 2 else None


def draw(result: dict):
    """Losses, accuracy, the times, and the one against the other."""
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(2, 2, height=4.8)
    draw_curves(axes[0, 0], cells, "test_loss", palette)
    axes[0, 0].set(ylabel="test loss (nats)", yscale="symlog", xscale="log", xlabel="step")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend()
    draw_curves(axes[0, 1], cells, "test_accuracy", palette)
    axes[0, 1].set(ylabel="test accuracy", xscale="log", xlabel="step")
    draw_times(axes[1, 0], cells, palette)
    for name, cell in cells.items():
        for fits, comes in zip(cell["times"]["t_train"], cell["times"]["first"], strict=True):
            if fits is not None:
                style = {"marker": "o", "mfc": palette[name]} if comes is not None else {"marker": "^", "mfc": "white"}
                axes[1, 1].plot(fits, comes or cell["budget"], color=palette[name], ls="", ms=5, **style)
        axes[1, 1].plot([], [], "o", color=palette[name], label=label(name))
    axes[1, 1].set(xlabel="step: train loss at 0.01", ylabel="step: test at 0.99 (triangle: never)")
    if any(t is not None for cell in cells.values() for t in cell["times"]["t_train"]):
        axes[1, 1].set(xscale="log", yscale="log")
        plain_ticks(axes[1, 1].xaxis)
        plain_ticks(axes[1, 1].yaxis)
    return fig


if __name__ == "__main__":
    perform("ln_position", Sweep, analyse, draw, finding)
