"""Is there a lazy phase? Drift of the empirical NTK from its start (paper section 4.1, authors' notebooks; sheet C21)."""

from dataclasses import dataclass, field
from typing import Literal

from common import plotting
from layernorm_grok.analysis._drift import with_drift
from layernorm_grok.analysis._driver import Probe, draw_lives, over_seeds, perform
from layernorm_grok.evaluate import Trained
from layernorm_grok.measures import from_on


@dataclass
class Ntk(Probe):
    pairs: int = 512
    """Train pairs in the kernel, the same at every checkpoint."""
    kinds: list[Literal["projected", "sum", "full"]] = field(default_factory=lambda: ["projected", "sum"])
    """Output directions: probes orthogonal to all-ones, all-ones (the authors' default), full (all, slow)."""
    probes: int = 8
    """Probes of `projected`."""

    def __post_init__(self):
        super().__post_init__()
        if "projected" not in self.kinds or self.probes < 1:
            raise ValueError(
                f"kinds is {self.kinds}, probes {self.probes}; expected projected among them, and 1 probe or more"
            )


def analyse(trained: Trained, settings: Ntk) -> dict:
    """Curves of the drift; its value at the first checkpoint after T_train, and at the end."""
    cells = with_drift(trained, settings, settings.pairs, kinds=settings.kinds, probes=settings.probes)
    for name, cell in cells.items():
        fitted = trained.times(name)["t_train"]
        cell["t_train"] = fitted
        cell["at_fit"] = over_seeds(
            [from_on(curve, "projected", t) for curve, t in zip(cell["seeds"], fitted, strict=True)]
        )
    return {"cells": cells}


def draw(result: dict):
    """Drift in the directions cross-entropy sees, and of the sum of logits, to which it is blind."""
    titles = {
        "projected": "orthogonal to the sum of logits",
        "sum": "of the sum of logits (as in the code)",
        "full": "of all logits",
    }
    kinds = [kind for kind in titles if kind in result["settings"]["kinds"]]
    fig, axes = plotting.axes(len(kinds), height=2.6, squeeze=False)
    for ax, kind in zip(axes.flat, kinds, strict=True):
        title = titles[kind]
        draw_lives(ax, result["cells"], kind)
        ax.set(title=title, xlabel="step", ylabel="||K_t - K_0|| / ||K_0||", xscale="symlog", yscale="symlog")
        ax.set_ylim(bottom=0)
    axes.flat[0].legend(fontsize=6)
    return fig


def finding(result: dict) -> str:
    return "drift at the first checkpoint after the train loss came to 0.01: " + "; ".join(
        f"{name} {'/'.join('-' if v is None else f'{v:.1f}' for v in cell['at_fit']['values'])}"
        for name, cell in result["cells"].items()
    )


if __name__ == "__main__":
    perform("ntk", Ntk, analyse, draw, finding)
