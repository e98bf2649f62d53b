"""What the blocks save: parameters, operations, and measured time of a training step (He & Hofmann Sec 4.2, Table 1).

Counts are of the paper's models, made without memory. Times are of this run's own size and machine, each block against
Pre-LN in turn; the ratio of operations stands beside, which is what a machine that only multiplied would give.
"""

import common.process  # noqa: F401

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

import torch
from accelerate import Accelerator

from common import bench, experiment, plotting
from common.claims import Claim, by_seed
from common.limits import Count, Distinct
from simplifying_blocks.analysis._compare import NAMES
from simplifying_blocks.analysis._presets import ALL, GPU
from simplifying_blocks.estimators.flops import forward_flops
from simplifying_blocks.evaluate import Analysis, Trained
from simplifying_blocks.model import Transformer
from simplifying_blocks.recipe import BLOCKS, PRELN, BlockName, Model
from simplifying_blocks.train import count_parameters, learner_of, step, team_of

THROUGHPUT = {"parallel": 1.05, "vskipinit": 0.95, "sas": 1.09, "sas_p": 1.16, "sas_p_nonorm": 1.20}
"""Table 1: training steps a day over those of Pre-LN; a BERT of 16 blocks on one RTX 2080 Ti."""


@dataclass
class Settings(Analysis):
    blocks: Annotated[list[BlockName], Distinct(1)] = field(default_factory=lambda: [*THROUGHPUT])
    """Blocks to time against Pre-LN."""
    rounds: Count = 5
    """Steps of each in one measurement, which is their median time."""
    repeats: Count = 3
    """Measurements."""


SHAPES = {
    "decoder": (Model(), 50_000),
    "bert": (Model(layers=16, mlp="glu", act="gelu", norm="layer", objective="mlm"), 32_768),
}
"""The paper's models, of 18 and 16 blocks, and their vocabularies; both with T = 128."""
LENGTH = 128


def as_block(model: Model, block: BlockName) -> Model:
    """The model with another block, every setting of which is its own."""
    return replace(model, block=block, **dict.fromkeys(PRELN))


def counted(model: Model, vocabulary: int, length: int) -> dict:
    """Keys: blocks -> parameters (trained) and flops (per token, forward), and how much less than Pre-LN, in percent: saved and
    flops_saved."""
    rows = {}
    for block in BLOCKS:
        config = as_block(model, block)
        with torch.device("meta"):
            parameters = count_parameters(Transformer(config, vocabulary, length))
        rows[block] = {"parameters": parameters, "flops": forward_flops(config, vocabulary, length)["total"]}
    preln = rows["preln"]
    less = lambda row, key: 100 * (1 - row[key] / preln[key])  # noqa: E731
    return {b: row | {"saved": less(row, "parameters"), "flops_saved": less(row, "flops")} for b, row in rows.items()}


def stepper(trained: Trained, block: BlockName, team: Accelerator) -> Callable:
    """A function that makes one training step of the run's size with that block. Time depends on neither seed nor step."""
    settings = replace(trained.config, model=as_block(trained.config.model, block))
    learner = learner_of(settings, trained.corpus, trained.seeds[0], trained.device, team)
    return partial(step, settings, learner, team, 1)


def timed(trained: Trained, settings: Settings) -> dict:
    """Keys: blocks -> seconds and preln_seconds (median, per measurement), ratio (median), ratios, flop_ratio; ratios are of
    Pre-LN over the block, above 1 where the block is faster."""
    team = team_of(trained.device)
    model, c = trained.config.model, trained.config.train
    flops = lambda block: forward_flops(as_block(model, block), trained.corpus.vocabulary, c.context)["total"]  # noqa: E731
    rows, preln = {}, stepper(trained, "preln", team)
    for block in settings.blocks:
        # Code compiled for one block counts towards a limit beyond which the next would not be compiled.
        torch.compiler.reset()
        ours = stepper(trained, block, team)
        # Only what is new has to warm up, or to compile.
        pairs = [
            bench.interleaved(ours, preln, settings.rounds, 0 if again else 3) for again in range(settings.repeats)
        ]
        ratios = [other / mine for mine, other in pairs]
        rows[block] = {
            "seconds": [float(mine) for mine, _ in pairs],
            "preln_seconds": [float(other) for _, other in pairs],
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "flop_ratio": flops("preln") / flops(block),
        }
    return rows


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: counts (decoder, bert -> `counted`), speed (`timed`), size (of the timed model: layers, d, heads, context, batch,
    vocabulary), device."""
    model, c = trained.config.model, trained.config.train
    size = {"layers": model.layers, "d": model.d, "heads": model.heads, "context": c.context, "batch": c.batch}
    return {
        "counts": {name: counted(model, vocabulary, LENGTH) for name, (model, vocabulary) in SHAPES.items()},
        "speed": timed(trained, settings),
        "size": size | {"vocabulary": trained.corpus.vocabulary},
        "device": trained.device.type,
    }


def draw(result: dict):
    """Left, parameters saved at the paper's sizes; right, steps per second over those of Pre-LN."""
    fig, (left, right) = plotting.axes(2, height=2.6, width_ratios=(0.8, 1), squeeze=True)
    for place, (shape, color) in enumerate((("decoder", plotting.BLUE), ("bert", plotting.SKY))):
        rows = {NAMES[block]: result["counts"][shape][block]["saved"] for block in THROUGHPUT}
        lines = [number + 0.36 * (place - 0.5) for number in range(len(rows))]
        label = {"decoder": "decoder, 18 blocks", "bert": "BERT, 16 blocks"}[shape]
        left.barh(lines, [*rows.values()], height=0.34, color=color, label=label)
    left.set(
        title="at the sizes of the paper",
        xlabel="parameters saved over Pre-LN, %",
        yticks=range(len(THROUGHPUT)),
        yticklabels=map(NAMES.get, THROUGHPUT),
    )
    left.invert_yaxis()
    left.grid(False, axis="y")
    left.legend(loc="upper right")
    draw_speed(right, result)
    return fig


def draw_speed(ax, result: dict) -> None:
    """Measured ratios, those of operations, and the paper's, a row per block."""
    rows = [*enumerate(result["speed"].items())]
    measured = [(ratio, place) for place, (_, row) in rows for ratio in row["ratios"]]
    operations = [(row["flop_ratio"], place) for place, (_, row) in rows]
    paper = [(THROUGHPUT[block], place) for place, (block, _) in rows if block in THROUGHPUT]
    ax.plot(*zip(*measured, strict=True), "o", color=plotting.BLUE, ms=3.5, alpha=0.75, label="measured here")
    ax.plot(*zip(*operations, strict=True), "|", color=plotting.VERMILION, ms=14, mew=1.7, label="operations")
    if paper:
        ax.plot(*zip(*paper, strict=True), "D", color=plotting.INK, ms=4, mfc="none", label="paper, BERT")
    size, names = result["size"], [NAMES[block] for block in result["speed"]]
    ax.axvline(1, color=plotting.GREY, linewidth=0.8)
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    ax.set(xlabel="steps per second over Pre-LN", title=f"{size['layers']} blocks, d = {size['d']}, {result['device']}")
    ax.grid(False, axis="y")
    ax.legend(loc="lower left", markerscale=0.6, fontsize=6)


def finding(result: dict) -> str:
    counts = {shape: cell["sas_p"]["saved"] for shape, cell in result["counts"].items()}
    speeds = ", ".join(
        f"{block} {row['ratio']:.2f} ({row['flop_ratio']:.2f})" for block, row in result["speed"].items()
    )
    return (
        f"SAS-P has {counts['decoder']:.1f}% fewer parameters than Pre-LN, {counts['bert']:.1f}% in BERT; "
        f"steps per second over Pre-LN (by operations): {speeds}"
    )


def savings(result: dict) -> dict[str, list[float]]:
    """C13: parameters of SAS-P, percent fewer than in Pre-LN."""
    names = {"decoder": "% fewer, 18 blocks", "bert": "% fewer, BERT"}
    return {text: [result["counts"][shape]["sas_p"]["saved"]] for shape, text in names.items()}


def ratios(result: dict) -> dict[str, list[float]]:
    """C14, per measurement: steps per second of the blocks over each other's, in the order of Table 1."""
    speed = result["speed"]

    def over(ours: str, other: str) -> list[float]:
        return [a / b for a, b in by_seed(speed[ours]["ratios"], speed[other]["ratios"])]

    return {
        "SAS over Pre-LN": speed["sas"]["ratios"],
        "SAS-P over SAS": over("sas_p", "sas"),
        "no norm over SAS-P": over("sas_p_nonorm", "sas_p"),
        "V-SkipInit over Pre-LN": speed["vskipinit"]["ratios"],
        "Parallel over Pre-LN": speed["parallel"]["ratios"],
    }


def ratios_note(result: dict) -> str:
    operations = ", ".join(f"{NAMES[block]} {row['flop_ratio']:.2f}" for block, row in result["speed"].items())
    return f"by operations: {operations}"


CLAIMS = [
    Claim(
        "C13",
        "SAS-P has 13% fewer parameters than Pre-LN in the decoder of 18 blocks, 16% in BERT.",
        source="Sec 4.2, Table 1",
        presets=ALL,
        paper="13 (146M of 167M), 16 (101M of 120M)",
        number=savings,
        min_seeds=1,
        within={"% fewer, 18 blocks": (12, 14), "% fewer, BERT": (15, 17)},
    ),
    Claim(
        "C14",
        "Training is fastest with SAS-P without norms, then SAS-P, then SAS, then Pre-LN; "
        "Parallel is faster than Pre-LN, V-SkipInit slower.",
        source="Table 1",
        presets=GPU,
        paper="of Pre-LN's steps in a day: Parallel 1.05, V-SkipInit 0.95, SAS 1.09, SAS-P 1.16, without norms 1.20 "
        "(a BERT, RTX 2080 Ti)",
        number=ratios,
        above={"SAS over Pre-LN": 1, "SAS-P over SAS": 1, "no norm over SAS-P": 1, "Parallel over Pre-LN": 1},
        below={"V-SkipInit over Pre-LN": 1},
        note=ratios_note,
    ),
]

if __name__ == "__main__":
    experiment.main(__name__)
