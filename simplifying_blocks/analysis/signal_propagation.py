"""Do tokens stay apart through many blocks, before any training (He & Hofmann Sec 4.1)?

The mean cosine between the tokens of a sequence after each block: 1 is rank collapse, all tokens one direction. Models are
drawn here, from the seeds of the run; nothing of the run is read but these.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from common import experiment, plotting
from common.claims import Claim
from common.device import generator
from common.experiment import over_seeds
from common.limits import Count, Distinct, Range
from simplifying_blocks.analysis._compare import COLORS, NAMES
from simplifying_blocks.analysis._presets import ALL
from simplifying_blocks.estimators.correlations import cosine, kurtosis
from simplifying_blocks.evaluate import Analysis, Trained
from simplifying_blocks.model import Transformer
from simplifying_blocks.recipe import Model

HEADS = 4


@dataclass
class Settings(Analysis):
    depths: Annotated[list[Annotated[int, Range(1, 1000)]], Distinct(1)] = field(default_factory=lambda: [18, 72])
    """Blocks L; the claim is about the deepest."""
    d: Annotated[int, Range(1, 10**5)] = 128
    """Width; 4 heads, so a multiple of 4."""
    context: Annotated[int, Range(2, 10**6)] = 128
    """Tokens T of a sequence."""
    windows: Count = 2
    """Sequences of random tokens."""
    vocabulary: Annotated[int, Range(2, 10**6)] = 1024
    """Tokens to draw from."""

    def __post_init__(self):
        if self.d % HEADS:
            raise ValueError(f"d is {self.d}; expected a multiple of {HEADS}, the number of heads")


GAUSSIAN = {"block": "skipless", "init_V": "normal", "init_P": "normal"}
CASES = {
    "naive": {"block": "naive"},
    "preln": {"block": "preln"},
    "parallel": {"block": "parallel"},
    "postln": {"block": "postln"},
    "sas_full_mlp": {"block": "sas", "beta_FF": 1.0},
    "gaussian": GAUSSIAN,
    "op": {"block": "op"},
    "vskipinit": {"block": "vskipinit"},
    "sas": {"block": "sas"},
    "sas_p": {"block": "sas_p"},
    "sas_p_nonorm": {"block": "sas_p_nonorm"},
}
"""Name -> settings of a model, those whose tokens become most alike first. gaussian: shaped, V and P drawn from N(0, 1/d)."""
KEEP = ("vskipinit", "sas", "sas_p", "sas_p_nonorm")


@torch.no_grad()
def propagate(settings: Settings, case: str, depth: int, seed: int, device: torch.device) -> dict:
    """Keys: cosine, between the tokens after each block; kurtosis, of the last output (1 where features are of one size)."""
    config = Model(layers=depth, d=settings.d, heads=HEADS, **CASES[case])
    model = Transformer(config, settings.vocabulary, settings.context, generator("cpu", seed, "init")).to(device)
    shape = (settings.windows, settings.context)
    ids = torch.randint(settings.vocabulary, shape, generator=generator("cpu", seed, "tokens"))
    cosines, outputs = [], []

    def look(site: str, layer: int, x: Tensor) -> None:
        if site == "output":
            cosines.append(cosine(x))
            outputs[:] = [x]

    model.hidden(ids.to(device), look)
    return {"cosine": torch.stack(cosines).tolist(), "kurtosis": float(kurtosis(outputs[0]))}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: depths -> L -> block -> over seeds: cosine, along blocks; kurtosis, at the last one; last, the last cosine."""
    depths = {}
    for depth in settings.depths:
        cells = depths[str(depth)] = {}
        for case in CASES:
            rows = [propagate(settings, case, depth, seed, trained.device) for seed in trained.seeds]
            cells[case] = over_seeds([row | {"last": row["cosine"][-1]} for row in rows])
    return {"depths": depths}


EXTRA = {"sas_full_mlp": "SAS, beta_FF = 1", "gaussian": "shaped, Gaussian V, P"}
DRAWN = {"postln": "preln", "sas_full_mlp": "sas", "gaussian": "skipless", "op": "parallel"}
"""Blocks without a colour of their own: dashed, in that of another."""


def draw(result: dict):
    """Cosine against block, a panel per depth; seeds lie on each other, so their mean is drawn."""
    depths = result["depths"]
    fig, axes = plotting.axes(len(depths), height=2.6, sharey=True, squeeze=False)
    for ax, (depth, cells) in zip(axes[0], depths.items(), strict=True):
        for case, cell in cells.items():
            means = [node["mean"] for node in cell["cosine"]]
            line = {"color": COLORS[DRAWN.get(case, case)], "linestyle": "--" if case in DRAWN else "-"}
            ax.plot(range(1, len(means) + 1), means, label=(EXTRA | NAMES)[case], **line)
        ax.set(title=f"{depth} blocks, untrained", xlabel="after block")
        # Orthogonal on average, tokens of a Gaussian map have cosines on both sides of 0.
        ax.set_yscale("symlog", linthresh=1e-3, linscale=0.5)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0, 0].set_ylabel("mean cosine between tokens")
    fig.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside right center")
    return fig


def finding(result: dict) -> str:
    depth, cells = deepest(result)
    shown = [f"{(EXTRA | NAMES)[case]} {cells[case]['last']['mean']:.2g}" for case in ("naive", "preln", *KEEP)]
    return f"mean cosine between tokens after {depth} blocks: {', '.join(shown)}"


def deepest(result: dict) -> tuple[int, dict]:
    """The largest depth and its blocks."""
    depth = max(map(int, result["depths"]))
    return depth, result["depths"][str(depth)]


def likeness(result: dict) -> dict[str, list]:
    """C22, of the deepest models: the cosine of naive attention after all blocks and its growth since the first, and
    the largest of the shaped blocks and V-SkipInit."""
    _, cells = deepest(result)
    first, last = (cells["naive"]["cosine"][layer]["values"] for layer in (0, -1))
    return {
        "naive": last,
        "naive, growth": [b - a for a, b in zip(first, last, strict=True)],
        "most of the shaped": [max(row) for row in zip(*(cells[case]["last"]["values"] for case in KEEP), strict=True)],
    }


def note(result: dict) -> str:
    depth, cells = deepest(result)
    others = (case for case in cells if case not in ("naive", *KEEP))
    return f"{depth} blocks; " + ", ".join(
        f"{(EXTRA | NAMES)[case]} {cells[case]['last']['mean']:.2g}" for case in others
    )


CLAIMS = [
    Claim("C22", "Naive skipless attention rank-collapses at depth; shaped and V-SkipInit attention do not.", source="Sec 4.1",
          presets=ALL, paper="cosine to 1", number=likeness, unit="cosine", note=note,
          above={"naive": 0.99, "naive, growth": 0.1}, below={"most of the shaped": 0.1}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
