"""Matrices of other ranks, row counts and column counts than trained on, beside nuclear-norm minimisation (Fig 19).

One of the three changes at a time. A cell's position is its row-major number, so a model knows no more cells than its
position table has rows: larger matrices are left out. Entries beyond the vocabulary are clamped, in the input and in
the target.
"""

import common.process  # noqa: F401

from dataclasses import dataclass, field, replace
from typing import Annotated

from abrupt_learning.analysis._beside_solver import beside_solver
from abrupt_learning.analysis._judging import ALL, COMPLETES, at_end, over
from abrupt_learning.data import Side, clamped
from abrupt_learning.evaluate import Analysis, Matrices, Trained
from common import experiment, plotting
from common.claims import Claim, Missing, by_seed
from common.config import UserError
from common.device import generator
from common.limits import Distinct


@dataclass
class Settings(Analysis):
    ranks: Annotated[list[Side], Distinct(1)] = field(default_factory=lambda: list(range(1, 6)))
    """Ranks, at the run's own size."""
    rows: Annotated[list[Side], Distinct(1)] = field(default_factory=lambda: list(range(2, 11)))
    """Row counts, at the run's own rank and columns."""
    columns: Annotated[list[Side], Distinct(1)] = field(default_factory=lambda: list(range(2, 11)))
    """Column counts, at the run's own rank and rows."""
    matrices: Matrices = 512
    """Matrices per shape."""


def point(trained: Trained, settings: Settings, rows: int, columns: int, rank: int) -> dict:
    """Every seed's model and nuclear-norm minimisation on the same matrices."""
    changes = {"sizes": [[rows, columns]], "rank": rank}
    batch = trained.matrices(settings.matrices, **changes)
    return beside_solver(trained.final, batch, [rows, columns], tolerance=1e-4) | {
        "copying": float((batch.target * ~batch.observed).square().mean()),
        "clamped_share": clamped(replace(trained.data, **changes), generator("cpu", 0, "clamped")),
    }


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: trained_on -> ranks, rows, columns; positions (rows of the table); skipped ((rows, columns, rank) left out);
    ranks, rows, columns -> points of value, bert -> losses and nuclear_norm: {values, mean, error} over seeds, solver -> the
    same, truth (nuclear norm), copying (L of predicting 0 at hidden cells), clamped_share.
    """
    (m, n), r = trained.data.sizes[0], trained.data.rank
    positions = len(trained.final[0].embeddings.position_embeddings.weight)
    asked = {
        "ranks": {rank: (m, n, rank) for rank in settings.ranks},
        "rows": {rows: (rows, n, r) for rows in settings.rows},
        "columns": {columns: (m, columns, r) for columns in settings.columns},
    }
    keys = {key for sweep in asked.values() for key in sweep.values()}
    skipped = sorted(key for key in keys if key[0] * key[1] > positions)
    if len(skipped) == len(keys):
        raise UserError(f"found no shape of at most {positions} cells, the run's positions; mend with: --rows '[{m}]'")
    points = {key: point(trained, settings, *key) for key in keys.difference(skipped)}
    sweeps = {
        name: [{"value": value, **points[key]} for value, key in sweep.items() if key in points]
        for name, sweep in asked.items()
    }
    own = {"ranks": r, "rows": m, "columns": n}
    return {"trained_on": own, "positions": positions, "skipped": skipped, **sweeps}


AXES = {"ranks": "rank $r$", "rows": "rows $m$", "columns": "columns $n$"}


def panel(ax, points: list[dict], metric: str, reference: str, color: str) -> None:
    """One metric of the model and of nuclear-norm minimisation over a sweep, and a reference line."""
    values = [point["value"] for point in points]
    seeds = by_seed(*(point["bert"][metric]["values"] for point in points))
    plotting.seed_lines(ax, values, seeds, "BERT", plotting.PALETTE["model"])
    solver = [point["solver"][metric] for point in points]
    ax.plot(values, solver, ".-", label="nuclear norm", color=plotting.PALETTE["baseline"])
    ax.plot(values, [point[reference] for point in points], "--", lw=0.9, label=reference, color=color)
    ax.set_xticks(values)


def draw(result: dict):
    """Error and nuclear norm over ranks, rows and columns, whichever have a point."""
    done = {name: result[name] for name in AXES if result[name]}
    fig, axs = plotting.axes(ncols=len(done), nrows=2, height=3.9, sharex="col", sharey="row", squeeze=False)
    for (name, points), (error, norm) in zip(done.items(), axs.T, strict=True):
        panel(error, points, "loss", "copying", plotting.GREY)
        panel(norm, points, "nuclear_norm", "truth", plotting.PALETTE["truth"])
        for ax in (error, norm):
            ax.axvline(result["trained_on"][name], color=plotting.GREY, lw=0.8, ls=":", label="trained on")
        error.set_yscale("log")
        norm.set_xlabel(AXES[name])
    axs[0, 0].set_ylabel("mean squared error")
    axs[1, 0].set_ylabel("mean nuclear norm")
    handles = {label: line for ax in axs[:, 0] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    return fig


def finding(result: dict) -> str:
    parts = []
    for name in AXES:
        others = [p for p in result[name] if p["value"] != result["trained_on"][name]]
        if ratios := [p["bert"]["loss"]["mean"] / p["solver"]["loss"] for p in others]:
            parts.append(f"other {name}: {min(ratios):.1f} to {max(ratios):.1f} times the solver's error")
    skipped, positions = len(result["skipped"]), result["positions"]
    return "; ".join(parts) + f"; {skipped} shapes have more than the {positions} cells with positions and are left out"


RANKS, ROWS, COLUMNS = (f"L / the solver's, {shapes}" for shapes in ("other ranks", "fewer rows", "fewer columns"))
GAP = "fewer columns / fewer rows"


def beside_the_solver(result: dict, loss: dict) -> dict[str, list]:
    """Per seed the mean over shapes of L(BERT) / L(solver). Larger shapes have cells whose positions were never trained."""
    own = result["trained_on"]

    def ratios(name: str, smaller: bool) -> list[float]:
        points = [p for p in result[name] if (p["value"] < own[name] if smaller else p["value"] != own[name])]
        if not points:
            kind = "fewer" if smaller else "other"
            raise Missing(f"found no {kind} {name} than {own[name]}, expected some in the config")
        return [sum(s) / len(s) for s in by_seed(*(over(p["bert"]["loss"], p["solver"]["loss"]) for p in points))]

    ranks, rows, columns = ratios("ranks", False), ratios("rows", True), ratios("columns", True)
    gap = [column / row for column, row in by_seed(columns, rows)]
    return {RANKS: ranks, ROWS: rows, COLUMNS: columns, GAP: gap, **at_end(loss)}


CLAIMS = [
    Claim("C26", "Beside nuclear-norm minimisation the model's L is near on other ranks and on fewer rows than trained on; "
          "on fewer columns it is not.", source="Fig 19", presets=ALL, needs=("ood_shapes", "loss"), number=beside_the_solver,
          below={RANKS: 2, ROWS: 2} | COMPLETES, above={COLUMNS: 2, GAP: 2},
          note=lambda result, loss: f"means over shapes of L(BERT) / L(solver); {finding(result)}"),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
