"""Two hops with chain of thought, beside without: which held-out questions are answered, and how often a fact is stored
(Johnston & Belrose, arXiv 2502.03490, sections on generalisation and on chain of thought)."""

import common.process  # noqa: F401

import math
from dataclasses import dataclass

import numpy as np

from capacity_reasoning.analysis._axes import ABOVE, DOTS, log_x
from capacity_reasoning.analysis._losses import (
    Scheme,
    capacity_constant,
    fitted,
    lag,
    needed,
    over_uniform,
    stored,
    tell,
)
from capacity_reasoning.analysis._presets import ALL, LONG
from capacity_reasoning.analysis._runs import siblings
from capacity_reasoning.capacity import TWO_HOP
from capacity_reasoning.evaluate import Analysis, Trained, two_hop_modes
from capacity_reasoning.examine import ONE_HOP
from capacity_reasoning.facts.questions import COPIED, KINDS
from common import experiment, plotting
from common.claims import Claim
from common.config import UserError
from common.limits import Name

HOME = "cot/chain_of_thought"
COLORS = {"cot": plotting.BLUE, "latent": plotting.VERMILION}


@dataclass
class Settings(Analysis):
    latent: Name = "latent"
    """The run that differs in the chain of thought alone."""
    prefix: Name = "cot"
    """Runs with chain of thought whose content is told: those of the study whose names begin so."""
    onehop: Name = "onehop_"
    """Runs of one-hop questions, beside main, that say how many bits a parameter holds."""
    scheme: Scheme = "corrected"
    """How the model knows which names exist, for its content."""


def loads(run: Trained, hops: str, settings: Settings) -> dict:
    """Content of one run under each storage that fits, and what two copies of every relation would need."""
    storages = stored(run, run.losses(hops, settings.most), hops, settings.scheme, settings.most)
    two_copies = {"two_copies": needed(run, "double", settings.scheme)} if hops == TWO_HOP else {}
    return {"N": run.N, "P": run.P, "storages": storages, **two_copies}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: modes -> cot, latent -> every class of two-hop questions -> per seed questions, loss, uniform, value and bridge
    {loss, uniform}, by_subject, by_kind (nats per question); runs -> cot, latent, onehop -> name -> N, P, storages ->
    storage -> {content, error, dataset} per seed in bits per parameter; for two hops two_copies, the dataset of double."""
    if not trained.config.data.cot:
        raise UserError(
            f"found no chain of thought in {trained.run.path}, expected a run with it; give another --run, or train one: "
            "--data.cot true"
        )
    latent, main = trained.sibling(settings.latent), trained.sibling("main")
    runs = {
        "cot": [run for run in siblings(trained, settings.prefix, own=True) if run.config.data.cot],
        "latent": [latent],
        "onehop": siblings(main, settings.onehop, own=True),
    }
    compared = {"cot": trained, "latent": latent}
    return {
        "modes": {k: {m: tell(run, m, settings.most) for m in two_hop_modes(run)} for k, run in compared.items()},
        "runs": {
            kind: {run.run.path.name: loads(run, ONE_HOP if kind == "onehop" else TWO_HOP, settings) for run in each}
            for kind, each in runs.items()
        },
    }


def generalises(result: dict) -> dict[str, list]:
    """Per seed the largest lag of a held-out class behind training questions: of whole answers, the bridge, the final value.

    None where the training questions are not learnt.
    """
    cot = result["modes"]["cot"]
    held_out = [cell for mode, cell in cot.items() if mode != TWO_HOP]
    lags = {
        "whole answer": [lag(cell, cot[TWO_HOP]) for cell in held_out],
        "bridge": [lag(cell["bridge"], cot[TWO_HOP]["bridge"]) for cell in held_out],
        "final value": [lag(cell["value"], cot[TWO_HOP]["value"]) for cell in held_out],
    }
    columns = {what: zip(*rows, strict=True) for what, rows in lags.items()}
    return {
        f"largest lag, {what}": [None if None in column else max(column) for column in each]
        for what, each in columns.items()
    }


def one_copy(result: dict) -> list[float | None]:
    """Per seed the content as one copy over min(all there is, what one-hop models hold), farthest from 1 over runs.

    Only runs whose parameters do not hold two copies of relations can tell; None without one, or without saturated one-hop
    runs.
    """
    constants, found = _constants(result), []
    for seed, constant in enumerate(constants):
        each = [_fit(run, seed, constant) for run in result["runs"]["cot"].values() if constant is not None]
        told = [value for value in each if value is not None]
        found.append(max(told, key=lambda value: abs(math.log(max(value, 1e-9)))) if told else None)
    return found


def _fit(run: dict, seed: int, constant: float) -> float | None:
    single = run["storages"]["one_hop"]
    telling = run["two_copies"][seed] > constant
    return fitted(single["content"][seed], single["dataset"][seed], constant) if telling else None


def _constants(result: dict) -> list[float | None]:
    return capacity_constant([run["storages"]["one_hop"] for run in result["runs"]["onehop"].values()])


def beside_latent(result: dict) -> str:
    """What the latent run holds under each storage, of what that storage allows."""
    (latent,), constants = result["runs"]["latent"].values(), _constants(result)
    if None in constants:
        return "No one-hop run is saturated: it has under 2 bits per parameter to store."
    told = []
    for storage, row in latent["storages"].items():
        columns = zip(row["content"], row["dataset"], constants, strict=True)
        told.append(f"{storage} {np.mean([fitted(*column) for column in columns]):.2f}")
    return f"Without chain of thought, content over what a storage allows: {', '.join(told)}."


def draw(result: dict):
    """Loss over uniform of every class, with chain of thought and without; its parts; content against what there is."""
    fig, axes = plotting.axes(3, height=2.8, width_ratios=(1, 1.2, 1.3))
    classes = list(result["modes"]["cot"])
    for kind, color in COLORS.items():
        for place, mode in enumerate(classes):
            values = over_uniform(result["modes"][kind][mode]) if mode in result["modes"][kind] else []
            axes[0].plot(values, [place] * len(values), color=color, label=None if place else kind, **DOTS)
    axes[0].axvline(1, color=plotting.GREY, linestyle="--", linewidth=0.8)
    axes[0].set(xlabel="loss / uniform loss", xlim=(0, None), yticks=range(len(classes)))
    axes[0].set_yticklabels([mode.replace("_", " ") for mode in classes])
    axes[0].invert_yaxis()
    axes[0].legend(ncols=2, **ABOVE)
    _parts(axes[1], result["modes"]["cot"])
    _contents(axes[2], result)
    return fig


def _parts(ax, modes: dict) -> None:
    """Mean nats of copied text, bridge and final value, class by class."""
    left = np.zeros(len(modes))
    groups = {"final value": KINDS[:COPIED], "bridge": KINDS[COPIED + 1 :], "copied text": KINDS[COPIED : COPIED + 1]}
    for (label, kinds), color in zip(groups.items(), (plotting.BLUE, plotting.SKY, plotting.GREY), strict=True):
        nats = np.array([sum(np.mean(cell["by_kind"].get(kind, 0)) for kind in kinds) for cell in modes.values()])
        ax.barh(range(len(modes)), nats, left=left, color=color, label=label, height=0.6)
        left += nats
    ax.set(xlabel="nats / question (cot)", yticks=range(len(modes)), yticklabels=[])
    ax.invert_yaxis()
    ax.legend(**ABOVE)


def _contents(ax, result: dict) -> None:
    """Content against what there is to store, both in bits per parameter, a dot per run and seed; line: all of it, up to 2."""
    rows = [("one hop", "onehop", "one_hop", plotting.GREY), ("cot, once", "cot", "one_hop", COLORS["cot"])]
    shades = (plotting.ORANGE, plotting.GREEN, COLORS["latent"])
    names = {"one_hop": "once", "double": "twice", "big_hash": "hash"}
    rows += [(f"latent, {text}", "latent", name, c) for (name, text), c in zip(names.items(), shades, strict=True)]
    for label, kind, storage, color in rows:
        cells = [run["storages"][storage] for run in result["runs"][kind].values()]
        x, y = (np.concatenate([cell[name] for cell in cells]) for name in ("dataset", "content"))
        ax.plot(x, y, color=color, label=label, **DOTS)
    log_x(ax, "bits to store / parameter")
    ends, line = ax.get_xlim(), np.geomspace(*ax.get_xlim(), 100)
    ax.plot(line, np.minimum(line, 2), color=plotting.INK, linewidth=0.7, label="min(load, 2)")
    ax.set(ylabel="content, bits / parameter", xlim=ends)
    ax.legend(fontsize=6, ncols=2, **ABOVE)


def finding(result: dict) -> str:
    told = []
    for kind, modes in result["modes"].items():
        held_out = [over_uniform(cell).mean() for mode, cell in modes.items() if mode != TWO_HOP]
        told.append(f"{kind} {over_uniform(modes[TWO_HOP]).mean():.2f} and {max(held_out, default=math.nan):.2f}")
    return f"loss / uniform, of training questions and of the worst held-out class: {'; '.join(told)}"


CLAIMS = [
    Claim("C6", "With chain of thought two-hop questions need every fact once.", source="abstract, chain of thought",
          paper="scales as single storage; no number found", presets=LONG, number=one_copy, needs=(HOME,),
          unit="content as one copy / what one-hop models hold", within=(0.8, 1.25), note=beside_latent),
    Claim("C8", "With chain of thought questions with held-out people, relations and attributes are answered as well.",
          source="abstract, section on generalisation", paper="all classes as training", presets=ALL, number=generalises,
          needs=(HOME,), below={f"largest lag, {part}": 0.25 for part in ("whole answer", "bridge", "final value")}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
