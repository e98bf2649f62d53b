"""Weight decays at one learning rate: times, and how compressible the end is (paper Figs 4c, 4d, 9; sheet C11, C18)."""

from common import plotting
from layernorm_grok.analysis._driver import Analysis, colors, over_seeds, perform
from layernorm_grok.analysis._grokking import cell_result, draw_curves, draw_times, finding
from layernorm_grok.analysis.compressibility import measure_of
from layernorm_grok.evaluate import Trained

SHOWN = {
    "test_effective_rank": "effective rank", "test_numerical_rank": "numerical rank",
    "test_alpha_pl": "power-law exponent", "weight_norm": "norm of all weights",
}  # fmt: skip


def analyse(trained: Trained, settings: Analysis) -> dict:
    """Cells by lambda, T eta lambda, and the spectrum of the prelogits at each replica's end."""
    cells, measure = {}, measure_of(trained)
    for name in settings.cells or trained.cells:
        cell = cell_result(trained, name)
        setting = trained.cell(name)
        cell |= {"weight_decay": setting.weight_decay, "lr": setting.lr}
        firsts = cell["times"]["first"]
        cell["decayed"] = [None if t is None else t * setting.lr * setting.weight_decay for t in firsts]
        ends = [measure(trained.model(name, s, trained.last_step(name, s)), name, s) for s in trained.seeds]
        cell["end_spectrum"] = over_seeds(ends)
        cells[name] = cell
    return {"cells": cells}


def draw(result: dict):
    """Test loss, times, norms of updates; four measures of the end against lambda."""
    cells = result["cells"]
    palette = colors(list(cells))
    fig, axes = plotting.axes(2, 2, height=4.6)
    draw_curves(axes[0, 0], cells, "test_loss", palette)
    axes[0, 0].set(xlabel="step", ylabel="test loss (nats)", yscale="symlog", xscale="log")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend()
    draw_times(axes[0, 1], cells, palette)
    draw_curves(axes[1, 0], cells, "update_norm", palette)
    axes[1, 0].set(xlabel="step", ylabel="norm of the update", xscale="log", yscale="log")
    decays = [cell["weight_decay"] for cell in cells.values()]
    for color, (key, text) in zip(plotting.COLORS, SHOWN.items(), strict=False):
        rows = list(zip(*(cell["end_spectrum"][key]["values"] for cell in cells.values()), strict=True))
        plotting.seed_lines(axes[1, 1], decays, rows, label=text, color=color)
    axes[1, 1].set(xlabel="weight decay", ylabel="prelogits at the end (test)", yscale="log")
    axes[1, 1].legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return fig


if __name__ == "__main__":
    perform("wd_sweep", Analysis, analyse, draw, finding)
