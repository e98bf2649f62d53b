"""Blocks side by side, at one length of training and at another, causal and masked (paper Figs 2, 5, 7, 8, 26)."""

import common.process  # noqa: F401

from dataclasses import dataclass

from common import experiment, plotting
from common.claims import Claim, by_seed
from simplifying_blocks.analysis._compare import called, compare, draw_curves, draw_finals, finals, gap, known, told
from simplifying_blocks.analysis._presets import ALL, SLOW
from simplifying_blocks.evaluate import Comparison, Trained


@dataclass
class Settings(Comparison):
    """Which runs to compare."""


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: those of `_compare.compare`."""
    return compare(trained, settings.runs)


def draw(result: dict):
    """Curves by step and by second, and final losses."""
    fig, axes = plotting.axes(3, height=2.9)
    draw_curves(axes[0], result["runs"])
    draw_curves(axes[1], result["runs"], seconds=True)
    draw_finals(axes[2], result["runs"])
    axes[0].set_ylabel("held-out loss (nats per token)")
    axes[0].legend(fontsize=6, loc="center right", bbox_to_anchor=(1.0, 0.68))
    return fig


finding = told


def far_from_preln(blocks: dict) -> dict[str, list[float]]:
    """C1. Slower is slower on what is trained on too: the gap in train loss, of that in held-out loss."""
    held, trained = gap(blocks, "vskipinit", "main"), gap(blocks, "vskipinit", "main", "train")
    return {
        "V-SkipInit over Pre-LN": held,
        "fall of naive over Pre-LN's": [a / b for a, b in by_seed(*(fall(blocks, run) for run in ("naive", "main")))],
        "share of it in train loss": [t / h for t, h in by_seed(trained, held)],
    }


def rates(blocks: dict) -> str:
    """Learning rates of the two."""
    lr = {name: blocks["runs"][name]["lr"] for name in ("main", "vskipinit")}
    return f"learning rates: Pre-LN {lr['main']:g}, V-SkipInit {lr['vskipinit']:g}"


def fall(blocks: dict, run: str) -> list[float]:
    """Per seed how far the held-out loss of a run has fallen from its start, near ln V."""
    return [known(curve)[0] - known(curve)[-1] for curve in blocks["runs"][run]["curve"]]


GAP = 0.05
"""Nats that V-SkipInit must be behind for its distance to be a measure."""


def of_the_way(blocks: dict) -> list[float | None]:
    """C4: per seed how far SAS is behind Pre-LN (below 0: ahead) over how far V-SkipInit is; None where that one is not."""
    rows = finals(blocks, "sas", "main", "vskipinit")
    return [(sas - preln) / (far - preln) if far - preln > GAP else None for sas, preln, far in rows]


def alike(blocks: dict) -> dict[str, list[float]]:
    """C9: losses by step, and what SAS-P has fewer parameters than Parallel, in blocks and embeddings of this size."""
    small, large = (blocks["runs"][name]["parameters"] for name in ("sas_p", "parallel"))
    return {
        "SAS over Pre-LN": gap(blocks, "sas", "main"),
        "SAS-P over Parallel": gap(blocks, "sas_p", "parallel"),
        "parameters SAS-P saves, %": [100 * (1 - small / large)] * len(blocks["seeds"]),
    }


def seconds(blocks: dict) -> str:
    """Time of a step over that of Pre-LN, where both were timed."""
    runs = blocks["runs"]
    return "; ".join(f"a step of {called(name)} takes {runs[name]['seconds'] / runs['main']['seconds']:.2f} of Pre-LN's"
                     for name in ("parallel", "sas", "sas_p")
                     if runs[name]["seconds"] and runs["main"]["seconds"])  # fmt: skip


def without_norms(blocks: dict) -> dict[str, list[float]]:
    """C10."""
    return {
        "without norms over SAS-P": gap(blocks, "sas_p_nonorm", "sas_p"),
        "V-SkipInit over without norms": gap(blocks, "vskipinit", "sas_p_nonorm"),
    }


def still_alike(longer: dict) -> dict[str, list[float]]:
    """C12."""
    return {
        f"{name} over Pre-LN": gap(longer, f"long_{run}", "long_preln")
        for name, run in (("SAS", "sas"), ("SAS-P", "sas_p"))
    }


def masked(mlm: dict) -> dict[str, list[float]]:
    """C23."""
    runs = (("SAS", "sas"), ("SAS-P", "sas_p"), ("V-SkipInit", "vskipinit"))
    return {f"{name} over Pre-LN": gap(mlm, f"mlm_{run}", "mlm_preln") for name, run in runs}


CLAIMS = [
    Claim(
        "C1",
        "Without the attention skip, V-SkipInit trains slower per step than Pre-LN, "
        "and not because it generalises worse; without shaped attention nothing is left to train.",
        source="Fig 2",
        presets=ALL,
        number=far_from_preln,
        paper="1.50 (read off), 1.155 nats at 40K steps",
        above={"V-SkipInit over Pre-LN": 0.05},
        below={"fall of naive over Pre-LN's": 0.5},
        within={"share of it in train loss": (0.7, 2.0)},
        note=rates,
    ),
    Claim(
        "C4",
        "SAS, whose V and P are the identity but for the first block's V, is not behind Pre-LN per step.",
        source="Fig 3, Sec 4.2",
        presets=ALL,
        number=of_the_way,
        unit="(SAS - Pre-LN) / (V-SkipInit - Pre-LN)",
        below=0.25,
        paper="0.07: 1.178, 1.155, 1.50 nats",
    ),
    Claim(
        "C9",
        "SAS matches Pre-LN per step, and SAS-P the parallel block with 13% fewer parameters (for speed see C14).",
        source="Figs 5, 26",
        presets=ALL,
        number=alike,
        within={"SAS over Pre-LN": (-0.03, 0.03), "SAS-P over Parallel": (-0.03, 0.03)},
        above={"parameters SAS-P saves, %": 10.0},
        paper="parity; 13%",
        note=seconds,
    ),
    Claim(
        "C10",
        "Without norms SAS-P loses a little per step, and stays ahead of V-SkipInit.",
        source="Figs 5, 26",
        presets=ALL,
        number=without_norms,
        above={"without norms over SAS-P": 0.0, "V-SkipInit over without norms": 0.0},
        below={"without norms over SAS-P": 0.15},
        paper="1.245 beside Pre-LN's 1.155 at 40K steps",
    ),
    Claim(
        "C12",
        "Parity persists over three times the training.",
        source="Fig 8",
        presets=SLOW,
        needs=("long_preln/longer",),
        number=still_alike,
        below={"SAS over Pre-LN": 0.02, "SAS-P over Pre-LN": 0.02},
        paper="SAS, SAS-P at or below Pre-LN",
    ),
    Claim(
        "C23",
        "In a masked language model SAS and SAS-P match Pre-LN, and V-SkipInit does not.",
        source="Figs 7, 27",
        presets=SLOW,
        needs=("mlm_preln/mlm",),
        number=masked,
        within={"SAS over Pre-LN": (-0.05, 0.05), "SAS-P over Pre-LN": (-0.05, 0.05)},
        above={"V-SkipInit over Pre-LN": 0.05},
        paper="parity after 24 hours",
        note=lambda r: "on the local Python files, not on the Pile",
    ),
    Claim(
        "C24",
        "Fine-tuned on GLUE, SAS (78.4) and SAS-P (78.3) match Pre-LN (78.9).",
        source="Tables 1, 2",
        paper="78.9, 78.5, 78.0, 78.4, 78.3 for Pre-LN, Parallel, V-SkipInit, SAS, SAS-P",
        not_run="GLUE and a BERT of 24 GPU hours are not to be had without a network; no set of this size replaces them",
    ),
    Claim(
        "C25",
        "On books with windows of 512 tokens SAS matches Parallel with 15% fewer parameters.",
        source="Fig 28, App C",
        paper="perplexity 22.37 and 22.39 after 19K steps",
        not_run="the Languini books are withdrawn",
    ),
]

if __name__ == "__main__":
    experiment.main(__name__)
