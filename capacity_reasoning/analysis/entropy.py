"""Bits in the people of a run: of each subject's answers and of the whole database, under every scheme and storage, and what
relations cost that keep laws (Johnston & Belrose, arXiv 2502.03490, measure_entropy). Exact, without a model."""

import common.process  # noqa: F401

from dataclasses import dataclass

import numpy as np

from capacity_reasoning.analysis._scaling_figure import COLORS
from capacity_reasoning.data import Questions
from capacity_reasoning.estimators.entropy import (
    SCHEMES,
    STORAGES,
    Support,
    copies_of,
    dataset_bits,
    selection_bits,
    subject_entropies,
)
from capacity_reasoning.estimators.structure import bipartite_classic_bits, structured_bits
from capacity_reasoning.evaluate import Analysis, Trained
from capacity_reasoning.facts.lists import RELATIONS
from capacity_reasoning.facts.people import INVERSE, NOBODY, People
from common import experiment, plotting
from common.experiment import over_seeds


@dataclass
class Settings(Analysis):
    pass


def of_scheme(support: Support, questions: Questions, scheme: str) -> dict:
    """One scheme of one seed. Two-hop answers that the run never trains on are left out by `corrected` alone."""
    selection = selection_bits(support, scheme)
    classes = questions.classes if scheme == "corrected" else None
    storages = {name: dataset_bits(support, scheme, name, copies_of(support, name, classes)) for name in STORAGES}
    return {"subjects": subject_entropies(support, scheme).tolist(), **selection,
            "baseline": sum(selection.values()), "dataset": storages}  # fmt: skip


def keeps(people: People, relation: str) -> bool:
    """Whether a relation names no one oneself and is undone by its inverse, or could be where that is not among them."""
    everyone, column = np.arange(people.N), people.relations[:, RELATIONS.index(relation)]
    other = INVERSE[relation]
    if other in people.subjects:
        undone = people.relations[column, RELATIONS.index(other)]
    else:
        undone = np.sort(column)
    return bool((column != everyone).all() and (undone == everyone).all())


def laws(people: People) -> dict[str, str]:
    """The part of facts.people.INVERSE that these people keep, whoever made them."""
    return {name: INVERSE[name] for name in RELATIONS[: people.R] if name in INVERSE and keeps(people, name)}


def structure(people: People) -> dict[str, float] | None:
    """Bits of all relations: structured, by the laws they keep; naive, as if each were anyone. None where they keep no law."""
    if (people.relations == NOBODY).any():
        naive = float((people.relations != NOBODY).sum() * np.log2(people.N))
        return {"structured": bipartite_classic_bits(people.N), "naive": naive}
    kept = laws(people)
    return structured_bits(people.N, RELATIONS[: people.R], kept) if kept else None


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: N, R, P, subjects (names, S of them); schemes -> name -> over seeds: subjects (S, bits of an answer), names and
    dates (bits of knowing which exist), baseline (their sum), dataset -> storage -> bits; structure: None, or over seeds
    structured and naive bits of all relations."""
    pairs = list(zip(trained.support, trained.questions, strict=True))
    kept = [structure(questions.people) for _, questions in pairs]
    return {
        "N": trained.N, "R": trained.R, "P": trained.P, "subjects": list(trained.support[0].subjects),
        "schemes": {name: over_seeds([of_scheme(*pair, name) for pair in pairs]) for name in SCHEMES},
        "structure": None if None in kept else over_seeds(kept),
    }  # fmt: skip


def bars(ax, groups: list[str], columns: dict[str, list[float]]) -> None:
    """Bars side by side in every group, a colour per column."""
    width = 0.8 / len(columns)
    for number, (name, values) in enumerate(columns.items()):
        places = np.arange(len(groups)) + (number - (len(columns) - 1) / 2) * width
        ax.bar(places, values, width, color=COLORS[name], label=name.replace("_", " "))
    ax.set_xticks(range(len(groups)), [group.replace("_", " ") for group in groups])
    ax.grid(False, axis="x")


def draw(result: dict):
    """Top: bits of an answer by subject, a colour per scheme. Below: of the database by storage, the baseline as a line in each
    bar, the capacity of 2 bits per parameter dashed; bits of the relations by their laws and without."""
    fig, axes = plotting.axes(1, 2, height=5.0)
    schemes, subjects = result["schemes"], result["subjects"]
    bars(axes[0], subjects, {name: [found["mean"] for found in row["subjects"]] for name, row in schemes.items()})
    if len(subjects) > 10:
        axes[0].set_xticks(
            axes[0].get_xticks(), axes[0].get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor"
        )
    axes[0].set(ylabel="entropy (bits per answer)", title=f"Answers, N = {result['N']:,}")
    axes[0].set_ylim(0, 1.35 * axes[0].get_ylim()[1])
    axes[0].legend(ncols=3, loc="upper left")
    totals = {name: [row["dataset"][storage]["mean"] for storage in STORAGES] for name, row in schemes.items()}
    bars(axes[1], ["stored once", "relations twice", "every two-hop answer"], totals)
    draw_marks(axes[1], result)
    return fig


def draw_marks(ax, result: dict) -> None:
    """Baselines, the capacity of the run's model, and what the relations cost by their laws."""
    width, schemes = 0.8 / len(SCHEMES), list(result["schemes"].values())
    for group in range(len(STORAGES)):
        for number, row in enumerate(schemes):
            place, baseline = group + (number - (len(schemes) - 1) / 2) * width, row["baseline"]["mean"]
            if baseline:
                told = "baseline: which names and dates there are" if not group and not number else None
                ax.hlines(baseline, place - width / 2, place + width / 2, color=plotting.INK, linewidth=1, label=told)
    ax.axhline(2 * result["P"], color=plotting.GREY, linestyle="--", linewidth=1, label="2 bits per parameter")
    if result["structure"]:
        for (name, found), style in zip(result["structure"].items(), (":", "-."), strict=True):
            ax.axhline(found["mean"], color=plotting.PURPLE, linestyle=style, linewidth=1, label=f"relations, {name}")
    ax.set(ylabel="database (bits)", title="All answers and the names", yscale="log")
    ax.set_ylim(top=4 * ax.get_ylim()[1])
    handles, labels = ax.get_legend_handles_labels()
    lines = [place for place, label in enumerate(labels) if label.replace(" ", "_") not in SCHEMES]
    ax.legend([handles[place] for place in lines], [labels[place] for place in lines], ncols=2, loc="upper left")


def finding(result: dict) -> str:
    bits = {name: result["schemes"]["corrected"]["dataset"][name]["mean"] for name in STORAGES}
    told = [
        f"{N:,.0f} bits {how}"
        for N, how in zip(bits.values(), ("once", "relations twice", "every two-hop answer"), strict=True)
    ]
    laws_told = ""
    if result["structure"]:
        structured, naive = (result["structure"][name]["mean"] for name in ("structured", "naive"))
        laws_told = f"; relations {structured:,.0f} bits by their laws, {naive:,.0f} without"
    relations, P = result["R"], result["P"]
    return f"N = {result['N']:,}, R = {relations}: {', '.join(told)} (corrected), {2 * P:,} at 2 bits per parameter{laws_told}"


if __name__ == "__main__":
    experiment.main(__name__)
