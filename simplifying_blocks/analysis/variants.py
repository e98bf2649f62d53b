"""One change at a time: depth, schedule, form of attention, gains and skips (paper Figs 6, 12, 13, 14, 23, 24, 25)."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from common import experiment
from common.claims import Claim, by_seed
from simplifying_blocks.analysis._compare import called, compare, draw_comparison, finals, gap, known, told
from simplifying_blocks.analysis._presets import SLOW
from simplifying_blocks.evaluate import Comparison, Trained

DEEP = ("preln", "sas", "sas_p", "sas_p_nonorm", "vskipinit")


@dataclass
class Settings(Comparison):
    """Which runs to compare with the analysed one."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: those of `_compare.compare`."""
    return compare(trained, settings.runs)


draw = draw_comparison
finding = told


def deeper(result: dict) -> dict[str, list[float]]:
    """C11: what four times the blocks cost each (below 0: they help)."""
    return {f"deep over shallow, {called(block)}": gap(result, f"deep_{block}", f"shallow_{block}") for block in DEEP}


def linear_ends_lower(result: dict) -> dict[str, list[float]]:
    """C15: cosine over linear, at the end and at three quarters of the way."""
    runs = {"main": "cosine_preln", "sas": "cosine_sas", "sas_p": "cosine_sas_p"}
    ends = {f"cosine over linear, {called(linear)}": gap(result, cosine, linear) for linear, cosine in runs.items()}
    return ends | {
        f"on the way, {called(linear)}": on_the_way(result, cosine, linear) for linear, cosine in runs.items()
    }


def on_the_way(result: dict, run: str, other: str, share: float = 0.75) -> list[float]:
    """Per seed the loss of a run over that of another at the evaluation next to that share of the steps."""
    a, b = (result["runs"][name] for name in (run, other))
    where = int(np.argmin(np.abs(np.asarray(a["evaluated"]) - share * a["steps"])))
    return [known(x)[where] - known(y)[where] for x, y in by_seed(a["curve"], b["curve"])]


def shaped_is_better(result: dict) -> dict[str, list[float]]:
    """C16."""
    return {f"alpha I + beta A over shaped, {called(run)}": gap(result, f"eq4_{run}", run) for run in ("sas", "sas_p")}


def u_shaped(result: dict) -> dict[str, list[float]]:
    """C17: the best start of beta_FF, None where a run diverged, and what the smallest and the largest cost."""
    betas = sorted(
        (float(name.removeprefix("beta_ff_")), name) for name in result["runs"] if name.startswith("beta_ff_")
    )
    rows = finals(result, *(name for _, name in betas))
    return {
        "best beta_FF": [betas[int(np.argmin(row))][0] if np.isfinite(row).all() else None for row in rows],
        "smallest over best": [row[0] - np.min(row) for row in rows],
        "largest over best": [row[-1] - np.min(row) for row in rows],
    }


def first_values(result: dict) -> dict[str, list[float]]:
    """C19."""
    return {
        f"identity in block 1 over trained, {called(run)}": gap(result, f"{run}_no_first", run)
        for run in ("sas", "sas_p")
    }


def without_mlp_skip(result: dict) -> dict[str, list[float]]:
    """C20."""
    over = {
        f"without MLP skip over SAS, slope {s}": gap(result, f"no_mlp_skip_{s}", "sas") for s in ("0", "0.2", "0.8")
    }
    return over | {"slope 0.8 over slope 0": gap(result, "no_mlp_skip_0.8", "no_mlp_skip_0")}


HELPED = DEEP[:-1]
CLAIMS = [
    Claim(
        "C11",
        "More blocks help all but V-SkipInit, which gets worse.",
        source="Fig 6",
        presets=SLOW,
        needs=("shallow_preln/depth",),
        number=deeper,
        below={f"deep over shallow, {called(block)}": 0.0 for block in HELPED},
        above={f"deep over shallow, {called('vskipinit')}": 0.0},
        paper="18 and 72 blocks",
    ),
    Claim(
        "C15",
        "A linear decay ends slightly lower than a cosine, which leads on the way.",
        source="Fig 12",
        presets=SLOW,
        needs=("schedules",),
        number=linear_ends_lower,
        above={f"cosine over linear, {called(run)}": 0.0 for run in ("main", "sas", "sas_p")},
        below={f"on the way, {called(run)}": 0.0 for run in ("main", "sas", "sas_p")},
    ),
    Claim(
        "C16",
        "Shaped attention is slightly better than alpha I + beta A.",
        source="Fig 13",
        presets=SLOW,
        needs=("attention_form",),
        number=shaped_is_better,
        above={f"alpha I + beta A over shaped, {called(run)}": 0.0 for run in ("sas", "sas_p")},
        below={f"alpha I + beta A over shaped, {called(run)}": 0.1 for run in ("sas", "sas_p")},
    ),
    Claim(
        "C17",
        "The final loss over the start of beta_FF is a U whose best is well below 1.",
        source="Fig 14",
        presets=SLOW,
        needs=("beta_ff",),
        number=u_shaped,
        below={"best beta_FF": 0.5},
        above={"smallest over best": 0.0, "largest over best": 0.0},
        paper="0.1 with 18 blocks",
    ),
    Claim(
        "C19",
        "A trained V in the first block gains very little.",
        source="Fig 24",
        presets=SLOW,
        needs=("first_values",),
        number=first_values,
        above={f"identity in block 1 over trained, {called(run)}": 0.0 for run in ("sas", "sas_p")},
        below={f"identity in block 1 over trained, {called(run)}": 0.03 for run in ("sas", "sas_p")},
    ),
    Claim(
        "C20",
        "Without the MLP skip SAS is far slower, whatever the activation's slope; a more linear one hurts.",
        source="Fig 25",
        presets=("paper",),
        needs=("mlp_skip",),
        number=without_mlp_skip,
        above={f"without MLP skip over SAS, slope {s}": 0.1 for s in ("0", "0.2", "0.8")}
        | {"slope 0.8 over slope 0": 0.0},
    ),
]

if __name__ == "__main__":
    experiment.main(__name__)
