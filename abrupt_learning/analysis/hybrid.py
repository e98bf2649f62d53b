"""Models put together from weights before the drop and weights after it (the authors' switch_models).

The authors' `att` is query, key and value only, and their `mlp` every parameter without "attention" in its name:
embeddings, feed-forward, its LayerNorm, read-out. Neither holds the output matrix of attention, so they do not add up.
"""

import common.process  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import functional_call

from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end, over
from abrupt_learning.analysis.ablation import loss_points
from abrupt_learning.data import Batch
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, predict
from abrupt_learning.model import component
from common import experiment, plotting
from common.claims import Claim, by_seed

# Weights moved from one model into the other, the authors' two and finer ones, by group.
PARTS = {
    "att": "qkv",
    "mlp": "all but attention",
    "att_full": "attention",
    "ff_only": "mlp",
    "embeddings": "embedding",
    "readout": "readout",
}


@dataclass
class Settings(Analysis):
    pre: str = "early"
    """Milestone of the weights before the drop; the paper's is step 4000."""
    post: str = "end"
    """Milestone of the weights after it; the paper's is step 50000."""
    matrices: Matrices = 512
    """Matrices of the test."""


def transplanted(host: nn.Module, donor: nn.Module, names: set[str]) -> Callable[[Tensor], Tensor]:
    """The host with the parameters so named from the donor, as a function of ids; both models stay as they are."""
    weights = {name: donor.get_parameter(name) for name in names}
    return lambda ids: functional_call(host, weights, ids)


def of_seed(trained: Trained, settings: Settings, batch: Batch, seed: int) -> dict:
    pre, post = (trained.model(seed, name) for name in (settings.pre, settings.post))

    def tested(model: Callable[[Tensor], Tensor]) -> dict[str, float]:
        return losses(predict(model, batch.ids), batch)

    def hybrids(names: set[str]) -> dict:
        ways = {"pre_to_post": transplanted(post, pre, names), "post_to_pre": transplanted(pre, post, names)}
        return {way: tested(model) for way, model in ways.items()}

    return {
        "parents": {"pre": tested(pre), "post": tested(post)},
        "hybrids": {part: hybrids(component(pre, group)) for part, group in PARTS.items()},
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: variance; steps -> milestone; parents -> pre, post, hybrids -> part -> pre_to_post, post_to_pre (from the donor to
    the host) -> losses: {values, mean, error} over seeds.
    """
    batch = trained.matrices(settings.matrices)
    rows = [of_seed(trained, settings, batch, seed) for seed in trained.seeds]
    steps = trained.milestones([settings.pre, settings.post])
    return {"variance": trained.data.variance, "steps": steps, **experiment.over_seeds(rows)}


def draw(result: dict):
    """L_mask and L_obs of both parents, and of the hybrids of either direction."""
    ways = {
        "pre_to_post": "a part from before the drop\nin the model after it",
        "post_to_pre": "a part from after the drop\nin the model before it",
    }
    parents = {"before": result["parents"]["pre"], "after": result["parents"]["post"]}
    fig, axs = plotting.axes(2, 2, height=3.6, sharey="row", sharex="col")
    for column, (way, title) in zip(axs.T, ways.items(), strict=True):
        loss_points(column, parents | {part: row[way] for part, row in result["hybrids"].items()}, result["variance"])
        column[0].set_title(title)
    axs[0, 0].set(ylabel="L_mask (dashed: Var)", ylim=(0, None))
    axs[1, 0].set_ylabel("L_obs")
    return fig


def finding(result: dict) -> str:
    hybrids = {f"{part} {way}": row for part, ways in result["hybrids"].items() for way, row in ways.items()}
    means = {name: row["loss_masked"]["mean"] for name, row in (result["parents"] | hybrids).items()}
    best = min(hybrids, key=means.get)
    return f"L_mask: before {means['pre']:.3f}, after {means['post']:.3f}, the best hybrid ({best}) {means[best]:.3f}"


def lowest(result: dict, *parts: str) -> list[float]:
    """Per seed the lowest L_mask / Var of the hybrids of some parts, both ways."""
    ways = (over(way["loss_masked"], result["variance"]) for part in parts for way in result["hybrids"][part].values())
    return [min(seed) for seed in by_seed(*ways)]


def authors_four(result: dict, loss: dict) -> str:
    return "of the authors' four: " + ", ".join(f"{value:.2f}" for value in lowest(result, "att", "mlp"))


LOWEST = "lowest L_mask / Var of a hybrid"
CLAIMS = [
    Claim("C19", "No hybrid of weights from before and after the drop completes, whichever part is moved.",
          source="authors' code", presets=ALL, needs=("hybrid", "loss"), above={LOWEST: 0.7}, below=COMPLETES,
          number=lambda result, loss: {LOWEST: lowest(result, *result["hybrids"])} | at_end(loss), note=authors_four),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
