"""A mixture of sizes is learned size by size (paper Fig 16, sheet C24)."""

from dataclasses import replace

from abrupt_learning.analysis._driver import Analysis, over_seeds, perform
from abrupt_learning.data import plateau_levels
from abrupt_learning.evaluate import Trained
from common import plotting
from common.config import UserError


def analyse(trained: Trained, settings: Analysis) -> dict:
    """Per size the test loss over p Var, and the first step at which it is below one half."""
    rows, data = trained.run.metrics(), trained.data
    sizes = {}
    for m, n in data.sizes:
        level = plateau_levels(replace(data, sizes=[[m, n]]))[0]
        column = f"loss_{m}x{n}"
        if column not in rows:
            raise UserError(
                f"found no {column} in {trained.run.path}, expected a mixture's tests; train with --train.evaluate_every 100"
            )
        tests = [rows[(rows["seed"] == s) & rows[column].notna()] for s in trained.seeds]
        relative = [(t[column] / level).rolling(5, min_periods=1).mean() for t in tests]
        halves = [t["step"][r < 0.5] for t, r in zip(tests, relative, strict=True)]
        sizes[f"{m}x{n}"] = {
            "steps": tests[0]["step"].astype(int).tolist(),
            "curves": [r.round(5).tolist() for r in relative],
            "half": over_seeds([int(h.iloc[0]) if len(h) else None for h in halves]),
            "final": over_seeds([float(r.iloc[-1]) for r in relative]),
        }
    return {"sizes": sizes}


def draw(result: dict):
    fig, ax = plotting.axes(width=4.5, height=2.8)
    for color, (name, size) in zip(plotting.COLORS, result["sizes"].items(), strict=False):
        plotting.seed_lines(ax, size["steps"], size["curves"], label=name, color=color)
    ax.axhline(1, color="0.5", ls="--", lw=0.8)
    ax.set(xlabel="step", ylabel="test loss / (p Var)", ylim=(0, 1.5))
    ax.legend(title="size")
    return fig


def finding(result: dict) -> str:
    def half(size: dict) -> str:
        return "/".join("none" if v is None else f"{v:.0f}" for v in size["half"]["values"])

    return "first below half of the plateau: " + ", ".join(
        f"{name} at {half(s)}" for name, s in result["sizes"].items()
    )


if __name__ == "__main__":
    perform("mixture", Analysis, analyse, draw, finding)
