"""Before its drop the model copies: whatever token stands at a cell is what it predicts there (paper Table 1, sheet C3, C4).

The hidden entries of low-rank matrices, and of matrices of i.i.d. entries, are shown as MASK or as one constant value.
"""

from dataclasses import dataclass, field

import torch

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import Batch, from_values, tokens
from abrupt_learning.evaluate import Trained, losses, predict
from common import device, plotting


@dataclass
class CopyCheck(Analysis):
    milestones: list[str] = field(default_factory=lambda: ["first", "early", "before", "end"])
    """Where to look; the paper's Table 1 has steps 1000, 4000 and 14000."""
    replacements: list[float] = field(default_factory=lambda: [0.44, -0.24])
    """Values put in the place of hidden entries, beside the mask itself; rounded to the run's precision."""
    matrices: int = 2048
    """Matrices per cell of the table."""


def incoherent(trained: Trained, number: int) -> Batch:
    """Matrices of i.i.d. Unif[-1, 1] entries under the run's masks: nothing to complete, only to copy."""
    shape = trained.matrices(number, "incoherent")
    generator = device.generator(torch.device("cpu"), 0, "incoherent entries")
    values = torch.rand(shape.target.shape, generator=generator) * 2 - 1
    return from_values(values.to(trained.device), shape.observed, trained.data)


def replaced(batch: Batch, value: float | None, trained: Trained) -> tuple[Batch, float]:
    """The batch with hidden cells shown as `value` (None: as MASK), and the value that copying would predict there."""
    if value is None:
        return batch, 0.0
    k = round(value * 10**trained.data.precision)
    shown = tokens(torch.full_like(batch.ids, k), torch.ones_like(batch.observed), trained.data.half)
    return batch._replace(ids=torch.where(batch.observed, batch.ids, shown)), k / 10**trained.data.precision


def cell(model, batch: Batch, value: float | None, trained: Trained) -> dict:
    """One cell of the table: losses against the truth, and the distance from a copy at the hidden cells."""
    shown, copied = replaced(batch, value, trained)
    prediction = predict(model, shown.ids)
    return losses(prediction, shown) | {"copy_error": float((prediction - copied)[~batch.observed].square().mean())}


def analyse(trained: Trained, settings: CopyCheck) -> dict:
    batches = {"low_rank": trained.matrices(settings.matrices), "incoherent": incoherent(trained, settings.matrices)}
    names = {"mask": None} | {str(value): value for value in settings.replacements}
    rows = []
    for seed in trained.seeds:
        models = {name: trained.model(seed, name) for name in settings.milestones}
        rows.append(
            {
                kind: {at: {n: cell(m, batch, v, trained) for n, v in names.items()} for at, m in models.items()}
                for kind, batch in batches.items()
            }
        )
    steps = over_seeds(
        [{name: trained.milestone(seed, name) for name in settings.milestones} for seed in trained.seeds]
    )
    variance = {kind: float(batch.target.square().mean()) for kind, batch in batches.items()}
    hidden = {kind: float(batch.target[~batch.observed].square().mean()) for kind, batch in batches.items()}
    return {"steps": steps, "variance": variance, "zero": hidden, **over_seeds(rows)}


def draw(result: dict):
    fig, axs = plotting.axes(ncols=2, width=6.5, height=2.6, sharey=True)
    for ax, kind in zip(axs, ("low_rank", "incoherent"), strict=True):
        for shift, (name, label) in enumerate(
            {"loss_observed": "observed cells", "copy_error": "hidden cells, from a copy"}.items()
        ):
            groups = [(at, what, value) for at, row in result[kind].items() for what, value in row.items()]
            places = [i + 0.4 * shift for i in range(len(groups))]
            ax.bar(places, [v[name]["mean"] for *_, v in groups], 0.4, label=label, color=plotting.COLORS[shift])
            for place, (*_, v) in zip(places, groups, strict=True):
                ax.plot([place] * len(v[name]["values"]), v[name]["values"], "k.", ms=2)
        ax.set_xticks([i + 0.2 for i in range(len(groups))], [f"{at} {what}" for at, what, _ in groups], rotation=90)
        ax.set(yscale="log", title={"low_rank": "low-rank matrices", "incoherent": "i.i.d. entries"}[kind])
    axs[0].set_ylabel("mean squared error")
    axs[0].legend()
    return fig


def finding(result: dict) -> str:
    early = result["low_rank"][result["settings"]["milestones"][1]]
    worst = max(value["copy_error"]["mean"] for value in early.values())
    return f"well before the drop hidden cells are within {worst:.1e} (MSE) of a copy of what stands there"


if __name__ == "__main__":
    perform("copy_check", CopyCheck, analyse, draw, finding)
