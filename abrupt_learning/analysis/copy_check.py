"""Before its drop the model copies: whatever token stands at a cell is what it predicts there (paper Table 1).

The hidden entries of low-rank matrices, and of matrices of i.i.d. entries, are shown as MASK or as one constant value.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field

import torch

from abrupt_learning.analysis._judging import ALL, over
from abrupt_learning.data import Batch, from_values
from abrupt_learning.evaluate import Analysis, Matrices, Trained, losses, predict
from common import experiment, plotting
from common.claims import Claim, by_seed
from common.device import generator
from common.limits import Number


@dataclass
class Settings(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["first", "early", "before", "end"])
    """Where to look; the paper's Table 1 has steps 1000, 4000 and 14000."""
    replacements: list[Number] = field(default_factory=lambda: [0.44, -0.24])
    """Values put in the place of hidden entries, beside the mask itself; rounded to the run's precision."""
    matrices: Matrices = 2048
    """Matrices per cell of the table."""


def incoherent(trained: Trained, number: int) -> Batch:
    """Matrices of i.i.d. Unif[-1, 1] entries under the run's masks: nothing to complete, only to copy."""
    observed = trained.matrices(number, "incoherent").observed
    values = torch.rand(observed.shape, generator=generator("cpu", 0, "incoherent entries")) * 2 - 1
    return from_values(values.to(trained.device), observed, trained.data)


def table_entry(trained: Trained, model, batch: Batch, value: float | None) -> dict:
    """Losses with hidden cells shown as `value` (None: as MASK), and the distance there from a copy of what is shown."""
    ids, copied = batch.ids, 0.0
    if value is not None:
        shown = from_values(torch.full_like(batch.target, value), torch.ones_like(batch.observed), trained.data)
        ids, copied = torch.where(batch.observed, ids, shown.ids), shown.target
    prediction = predict(model, ids)
    return losses(prediction, batch) | {"copy_error": float((prediction - copied)[~batch.observed].square().mean())}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps -> milestone; low_rank and incoherent -> milestone -> what is shown (mask, or a value) -> losses and
    copy_error: {values, mean, error} over seeds; variance, and zero (of predicting 0 at hidden cells) -> kind of matrices.
    """
    batches = {"low_rank": trained.matrices(settings.matrices), "incoherent": incoherent(trained, settings.matrices)}
    shown = {"mask": None} | {str(value): value for value in settings.replacements}

    def table(models: dict, batch: Batch) -> dict:
        return {
            at: {name: table_entry(trained, model, batch, value) for name, value in shown.items()}
            for at, model in models.items()
        }

    rows = []
    for seed in trained.seeds:
        models = {name: trained.model(seed, name) for name in settings.milestones}
        rows.append({kind: table(models, batch) for kind, batch in batches.items()})
    return {
        "steps": trained.milestones(settings.milestones),
        "variance": {kind: float(batch.target.square().mean()) for kind, batch in batches.items()},
        "zero": {kind: float(batch.target[~batch.observed].square().mean()) for kind, batch in batches.items()},
        **experiment.over_seeds(rows),
    }


def draw(result: dict):
    """Errors at observed cells, and from a copy at hidden ones, by milestone and by what is shown."""
    fig, axs = plotting.axes(ncols=2, height=2.6, sharey=True)
    kinds = {"low_rank": "low-rank matrices", "incoherent": "i.i.d. entries"}
    errors = ("loss_observed", "observed", "observed cells"), ("copy_error", "masked", "hidden cells, from a copy")
    for ax, (kind, title) in zip(axs, kinds.items(), strict=True):
        entries = {f"{at} {shown}": entry for at, row in result[kind].items() for shown, entry in row.items()}
        for error, part, label in errors:
            dots = {name: entry[error]["values"] for name, entry in entries.items()}
            plotting.seed_dots(ax, dots, plotting.PALETTE[part], label)
        ax.tick_params(axis="x", rotation=90)
        ax.set(yscale="log", title=title)
    axs[0].set_ylabel("mean squared error")
    axs[0].legend()
    return fig


def finding(result: dict) -> str:
    early = result["low_rank"][result["settings"]["milestones"][1]]
    error = max(value["copy_error"]["mean"] for value in early.values())
    return f"well before the drop hidden cells are within {error:.1e} (MSE) of a copy of what stands there"


def worst(entries: dict, error: str, unit: float) -> list[float]:
    """Per seed the largest error of a kind over what is shown at hidden cells, in a unit."""
    return [max(seed) for seed in by_seed(*(over(entry[error], unit) for entry in entries.values()))]


COPY, OBSERVED, HIDDEN = "MSE to the shown value / Var", "L_obs / Var", "L_mask / that of predicting 0"


def copies_what_stands_there(result: dict) -> dict[str, list]:
    """At 4/15 t_drop, the worst of the mask and the values shown."""
    entries, variance = result["low_rank"]["early"], result["variance"]["low_rank"]
    return {COPY: worst(entries, "copy_error", variance), OBSERVED: worst(entries, "loss_observed", variance)}


def copies_incoherent(result: dict) -> dict[str, list]:
    """At 4/15 t_drop, hidden cells shown as the mask."""
    entry, level = result["incoherent"]["early"]["mask"], result["zero"]["incoherent"]
    return {"L_obs": entry["loss_observed"]["values"], HIDDEN: over(entry["loss_masked"], level)}


def other_moments(result: dict) -> str:
    """The paper's other two steps, which lie nearer to the beginning and to the end of our drop."""
    rows, variance = result["low_rank"], result["variance"]["low_rank"]
    first, before = (max(worst(rows[at], "copy_error", variance)) for at in ("first", "before"))
    return f"MSE to the shown value at 1/15 and 14/15 of t_drop, the worst seed: {first:.3f} and {before:.3f} Var"


CLAIMS = [
    Claim("C3", "At 4/15 of t_drop (or of a run without one) the model copies whatever token stands at a hidden place: the "
          "mask, or another value.", source="Table 1", presets=ALL, number=copies_what_stands_there,
          below={COPY: 0.05, OBSERVED: 0.05}, note=other_moments),
    Claim("C4", "At 4/15 of t_drop (or of a run without one) copying holds on matrices that are not low rank.",
          source="appendix, copy table", presets=ALL, number=copies_incoherent, below={"L_obs": 0.02},
          within={HIDDEN: (0.95, 1.05)}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
