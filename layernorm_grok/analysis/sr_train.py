"""Does the model read the scale of the MLP's input? Loss with it removed, in three modes (paper Fig 3a; sheet C5, C6)."""

import torch

from common import plotting
from layernorm_grok.analysis._driver import Probe, along, draw_lives, perform
from layernorm_grok.evaluate import Trained
from layernorm_grok.losses import cross_entropy
from layernorm_grok.scale_removed import MODES, norm_variation, scale_removed


def measure_of(trained: Trained):
    """Loss and accuracy on train and test pairs under every mode, and how the norm of the MLP's input varies."""
    sides = {seed: trained.pairs(seed) for seed in trained.seeds}

    @torch.no_grad()
    def measure(model, name: str, seed: int) -> dict:
        alpha, found = trained.cell(name).alpha, {}
        for side, rows in zip(("train", "test"), sides[seed], strict=True):
            offset = trained.offset(name, seed, rows)
            logits = alpha * (model(rows).logits - offset)
            found[f"{side}_loss"] = float(cross_entropy(logits, trained.targets[rows]).double().mean())
            for mode in MODES:
                values = scale_removed(model, rows, trained.targets[rows], alpha, mode, offset)
                found |= {f"{side}_{mode}_{key}": float(value) for key, value in values.items()}
        norms = norm_variation(model, sides[seed][0])
        return found | {"norm": norms["mean"][-1], "variation": norms["variation"][-1]}

    return measure


def analyse(trained: Trained, settings: Probe) -> dict:
    """Curves per cell and seed, with the loss itself beside them."""
    cells = along(trained, settings, measure_of(trained), "the development of the scale-removed loss")
    for name, cell in cells.items():
        cell["times"] = {key: trained.times(name)[key] for key in ("t_train", "first")}
    return {"cells": cells}


def draw(result: dict):
    """The three modes on the train pairs, and the mean norm of the MLP's input."""
    cells = result["cells"]
    fig, axes = plotting.axes(2, 2, height=4.4)
    titles = {
        "code": "y / ||y||, all norms dropped (as the authors ran it)",
        "unit": "y / ||y||, same path",
        "mean_norm": "y mean||y|| / ||y||, same path",
    }
    for ax, (mode, title) in zip(axes.flat, titles.items(), strict=False):
        draw_lives(ax, cells, f"train_{mode}_loss")
        ax.set(title=title, ylabel="scale-removed train loss", xlabel="step", yscale="symlog")
        ax.set_ylim(bottom=0)
    draw_lives(axes[1, 1], cells, "norm")
    axes[1, 1].set(title="scale that is removed", ylabel="mean ||y||", xlabel="step", yscale="log")
    axes[0, 0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    peaks = ((n, [max(c["train_unit_loss"]) for c in cell["seeds"]]) for n, cell in result["cells"].items())
    return "largest scale-removed train loss, same path: " + "; ".join(
        f"{name} {'/'.join(f'{v:.1f}' for v in values)}" for name, values in peaks
    )


if __name__ == "__main__":
    perform("sr_train", Probe, analyse, draw, finding)
