"""Three ways in which an LLC is known to fail, provoked on purpose: what the judges say of each, and of a sound setting
(paper appendix on calibration)."""

import common.process  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from common import experiment, plotting
from common.claims import Claim
from common.limits import Positive
from icl_landscape.analysis._grid import Grid, first_seeds, over_settings
from icl_landscape.analysis._llc import Measured, findings, told, with_sampling
from icl_landscape.analysis._presets import ALL
from icl_landscape.evaluate import Trained


@dataclass
class Settings(Grid):
    drift: Positive = 0.01
    """Gradient step of the chains without localisation, g = epsilon nbeta / 2: the paper's 3e-4 x 66.67 / 2."""
    quiet: Positive = 1e-5
    """Variance of their noise a step, epsilon."""
    still: Positive = 1e-8
    """Epsilon of the chains that are to go nowhere."""
    explosive: Positive = 40.0
    """Stability number epsilon (nbeta lambda_max + gamma) of the chains that are to explode."""


@dataclass
class Failure:
    """A way to fail."""

    kind: str
    """What the judges are to find."""
    step: int
    """0 for the first checkpoint, -1 for the last."""
    settings: Callable[[Settings], Settings]
    words: str


def non_minimum(settings: Settings) -> Settings:
    """No localisation, a large gradient step and next to no noise: descent."""
    nbeta = 2 * settings.drift / settings.quiet
    return replace(with_sampling(settings, epsilon=settings.quiet, nbeta=nbeta, gamma=0.0, burn_in=0), stability=0.0)


def no_exploration(settings: Settings) -> Settings:
    """A step so small that nothing moves."""
    return replace(with_sampling(settings, epsilon=settings.still), stability=0.0)


def explosion(settings: Settings) -> Settings:
    """A step far beyond what the sharpest direction bears."""
    return replace(with_sampling(settings, burn_in=0), stability=settings.explosive)


FAILURES = {
    "not a minimum": Failure("negative LLC", 0, non_minimum, "no localisation and tiny noise at the start"),
    "no exploration": Failure("hardly moves", -1, no_exploration, "a tiny step at the end"),
    "explosion": Failure("diverged", -1, explosion, "too large a step at the end"),
}
SOUND = "sound"


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: seeds (those looked at); cases -> name (three failures, and sound at the last checkpoint) -> expected (kind of
    finding, "" for sound), step, words, nbeta, gamma, and per seed (S): llc, llc_error, distance (over |w*|), epsilon,
    stability, findings (all kinds found), told (the expected finding in words, "" if it is not there), excess (loss of each
    draw less that of w*, mean over chains, (S, draws); a chain that diverged stays where it was then)."""
    trained = first_seeds(trained, settings.seeds)
    cases = {name: case(trained, settings, failure) for name, failure in FAILURES.items()}
    return {"seeds": trained.seeds, "cases": cases | {SOUND: case(trained, settings, None)}}


def case(trained: Trained, settings: Settings, failure: Failure | None) -> dict:
    """One of the cases of `analyse`."""
    steps = [trained.steps[-1 if failure is None else failure.step]]
    used = settings if failure is None else failure.settings(settings)
    expected = "" if failure is None else failure.kind
    (parts,) = over_settings(trained, [used], steps)
    rows = [told(parts[seed]) for seed in trained.seeds]
    found = [findings(seed, steps, parts[seed]) for seed in trained.seeds]
    words = [
        next((f"{row['words']}; {row['change']}" for row in seed if row["kind"] == expected), "") for seed in found
    ]
    return {
        "expected": expected,
        "step": steps[0],
        "words": "the settings as they are, at the end" if failure is None else failure.words,
        **{key: getattr(used.sampling, key) for key in ("nbeta", "gamma")},
        **{key: [row[key][0] for row in rows] for key in ("llc", "llc_error", "distance", "epsilon", "stability")},
        "findings": [[row["kind"] for row in seed] for seed in found],
        "told": words,
        "excess": [excess(parts[seed][0]) for seed in trained.seeds],
    }


def excess(part: Measured) -> list[float]:
    """Loss of each draw less that of w*, mean over chains: (draws)."""
    trace = part.trace
    losses = trace.losses.cpu().double().mean(2)
    base = part.estimate.reference if trace.reference is None else trace.reference.cpu().double().mean(2)
    return (losses - base).mean(1).tolist()


def flags(result: dict) -> dict[str, list]:
    """Per seed 1 where a failure's finding is there, else 0; and how many of the three a sound setting has."""
    kinds = {failure.kind for failure in FAILURES.values()}
    cases = result["cases"]
    named = {
        f"{name}: {f.kind}": [float(f.kind in seed) for seed in cases[name]["findings"]] for name, f in FAILURES.items()
    }
    return named | {"sound: any of them": [float(len(kinds & set(seed))) for seed in cases[SOUND]["findings"]]}


def draw(result: dict):
    """Loss of the draws above that of w*, a panel for each case."""
    fig, axes = plotting.axes(len(result["cases"]), height=2.0)
    for ax, (name, one) in zip(axes, result["cases"].items(), strict=True):
        rows = np.asarray(one["excess"], dtype=float)
        plotting.seed_lines(ax, np.arange(rows.shape[1]), rows, "", plotting.PALETTE["model"])
        ax.set(xlabel="draw", title=f"{name}\nstep {one['step']}")
        if (rows > 100).any():
            ax.set_yscale("log")
        else:
            ax.axhline(0, color=plotting.GREY, linewidth=0.8)
    axes[0].set_ylabel("loss less that of $w^*$")
    return fig


def finding(result: dict) -> str:
    lines = []
    for name, one in result["cases"].items():
        values = ", ".join("none" if v is None or v != v else f"{v:.3g}" for v in one["llc"])
        said = next((words for words in one["told"] if words), "")
        kinds = ", ".join(dict.fromkeys(kind for seed in one["findings"] for kind in seed)) or "nothing"
        lines.append(f"{name} ({one['words']}): LLC {values}; found {kinds}")
        lines += [f"  {one['expected']}: {said}"] if said else []
    return "\n  ".join(["the judges on three known failures and a sound setting", *lines])


CLAIMS = [
    Claim("C19", "The LLC fails in known ways, and each is told: chains leave what is no minimum, go nowhere, or explode.",
          source="appendix on calibration", paper="shown as loss traces", presets=ALL, number=flags,
          above={f"{name}: {f.kind}": 0.5 for name, f in FAILURES.items()}, below={"sound: any of them": 0.5}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
