"""What the shaped blocks are before training: the identity, and SAS and SAS-P one function (He & Hofmann Sec 4.3).

W^Q = 0 makes every softmax uniform, A = C, so that (alpha I + beta A - gamma C) V P = I at alpha = beta = gamma = 1 and
V = P = I. Then the MLP of SAS reads N2 N1 X where that of SAS-P reads N1 X: the same but for the norms' epsilon. Models are
drawn here, in double precision, from the seeds of the run; nothing of the run is read but these.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from common import experiment, plotting
from common.claims import Claim
from common.device import generator
from common.experiment import over_seeds
from common.limits import Count, Distinct, Positive, Range
from simplifying_blocks.analysis._presets import ALL
from simplifying_blocks.evaluate import Analysis, Trained
from simplifying_blocks.model import Transformer
from simplifying_blocks.recipe import Model

HEADS = 4


@dataclass
class Settings(Analysis):
    depths: Annotated[list[Annotated[int, Range(1, 1000)]], Distinct(1)] = field(default_factory=lambda: [2, 6, 18])
    """Blocks L."""
    d: Annotated[int, Range(1, 10**5)] = 64
    """Width; 4 heads, so a multiple of 4."""
    context: Annotated[int, Range(2, 10**6)] = 64
    """Tokens T of a sequence."""
    windows: Count = 2
    """Sequences of random tokens."""
    vocabulary: Annotated[int, Range(2, 10**6)] = 1024
    """Tokens to draw from."""
    tiny_eps: Positive = 1e-25
    """Epsilon of the norms that is as good as none in double precision."""

    def __post_init__(self):
        if self.d % HEADS:
            raise ValueError(f"d is {self.d}; expected a multiple of {HEADS}, the number of heads")


SUB_BLOCKS = ("sas", "sas_p", "vskipinit", "preln")


def build(settings: Settings, block: str, depth: int, seed: int, **changes) -> Transformer:
    """A fresh model in double precision; SAS and SAS-P draw the same weights from a seed."""
    config = Model(block=block, layers=depth, d=settings.d, heads=HEADS, **changes)
    return Transformer(config, settings.vocabulary, settings.context, generator("cpu", seed, "init")).double()


def moved(model: Transformer, ids: Tensor) -> dict[str, float]:
    """Attn(N1 X) against N1 X where they pass, the most over the blocks.

    difference: |Attn - N1 X|_F / |N1 X|_F. turned: relative change of the inner products of tokens, 0 where every token is
    turned by one orthogonal map.
    """
    seen = []

    def look(module, args, out: Tensor) -> None:
        x = args[0]
        products, before = out @ out.mT, x @ x.mT
        seen.append([(a - b).norm() / b.norm() for a, b in ((out, x), (products, before))])

    hooks = [block.attention.register_forward_hook(look) for block in model.blocks]
    model.hidden(ids)
    for hook in hooks:
        hook.remove()
    return dict(zip(("difference", "turned"), torch.tensor(seen).amax(0).tolist(), strict=True))


def apart(settings: Settings, depth: int, seed: int, ids: Tensor, **changes) -> float:
    """Largest difference between the logits of SAS and SAS-P with the same weights, over their largest value."""
    sas, sas_p = (build(settings, block, depth, seed, **changes)(ids) for block in ("sas", "sas_p"))
    return float((sas - sas_p).abs().max() / sas.abs().max())


@torch.no_grad()
def compare(settings: Settings, depth: int, seed: int) -> dict:
    """One depth and seed of `analyse`."""
    shape = (settings.windows, settings.context)
    ids = torch.randint(settings.vocabulary, shape, generator=generator("cpu", seed, "tokens"))
    return {
        "attention": {block: moved(build(settings, block, depth, seed), ids) for block in SUB_BLOCKS},
        "apart": apart(settings, depth, seed, ids),
        "apart_tiny_eps": apart(settings, depth, seed, ids, norm_eps=settings.tiny_eps),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: depths -> L -> over seeds: attention (block -> `moved`), apart (SAS and SAS-P, the norms' epsilon as in the paper)
    and apart_tiny_eps (next to none). On the CPU: not every GPU has double precision."""
    each = {depth: [compare(settings, depth, seed) for seed in trained.seeds] for depth in settings.depths}
    return {"depths": {str(depth): over_seeds(rows) for depth, rows in each.items()}}


def draw(result: dict):
    """Every number, a dot per seed and a colour per depth, on a logarithmic axis."""
    fig, ax = plotting.axes(height=2.4)
    depths = result["depths"]
    for color, (depth, cell) in zip(plotting.ordered(len(depths)), depths.items(), strict=True):
        # What is nothing at all has a place on a logarithmic axis too.
        shown = {name: [max(value, FLOOR) for value in node["values"]] for name, node in numbers_of(cell).items()}
        plotting.seed_dots(ax, shown, color, f"{depth} blocks")
    ax.set(ylabel="relative difference", yscale="log")
    ax.legend()
    return fig


FLOOR = 1e-18


def numbers_of(cell: dict) -> dict[str, dict]:
    """Text -> node of one depth, as drawn."""
    of = cell["attention"]
    return {
        "Pre-LN\nfrom identity": of["preln"]["difference"],
        "V-SkipInit\nfrom identity": of["vskipinit"]["difference"],
        "V-SkipInit\nfrom a rotation": of["vskipinit"]["turned"],
        "SAS from\nSAS-P": cell["apart"],
        "SAS from SAS-P,\nno epsilon": cell["apart_tiny_eps"],
        "SAS\nfrom identity": of["sas"]["difference"],
    }


def finding(result: dict) -> str:
    numbers = at_start(result)
    return "; ".join(f"{name}: {max(values):.1g}" for name, values in numbers.items())


def at_start(result: dict) -> dict[str, list[float]]:
    """C21, per seed, the most over depths (the least for the controls that should be far): SAS from the identity; SAS from
    SAS-P with the paper's epsilon and without; V-SkipInit from an orthogonal map; V-SkipInit and Pre-LN from the identity."""
    cells = result["depths"].values()

    def over_depths(choose, *path: str) -> list[float]:
        nodes = list(cells)
        for key in path:
            nodes = [node[key] for node in nodes]
        return [choose(row) for row in zip(*(node["values"] for node in nodes), strict=True)]

    return {
        "SAS from identity": over_depths(max, "attention", "sas", "difference"),
        "SAS from SAS-P": over_depths(max, "apart"),
        "the same without epsilon": over_depths(max, "apart_tiny_eps"),
        "V-SkipInit from a rotation": over_depths(max, "attention", "vskipinit", "turned"),
        "V-SkipInit from identity": over_depths(min, "attention", "vskipinit", "difference"),
        "Pre-LN from identity": over_depths(min, "attention", "preln", "difference"),
    }


CLAIMS = [
    Claim("C21", "At the start the shaped attention sub-block is exactly the identity, and SAS and SAS-P are one function.",
          source="Sec 4.3", presets=ALL, paper="exact", number=at_start,
          below={"SAS from identity": 1e-12, "SAS from SAS-P": 1e-6, "the same without epsilon": 1e-12,
                 "V-SkipInit from a rotation": 1e-5},
          above={"V-SkipInit from identity": 0.5, "Pre-LN from identity": 0.5}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
