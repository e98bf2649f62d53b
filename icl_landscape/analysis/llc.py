"""Local learning coefficient along training, at two settings: the paper's, and ours (paper section 3.2, Fig 1b; claim C15).

An LLC is told with the settings that made it, with the sampled loss beside that of the prediction 0, and with what its
judges found.
"""

import common.process  # noqa: F401

from collections import Counter
from dataclasses import dataclass

import numpy as np

from common import experiment, plotting
from common.claims import Claim
from common.experiment import over_seeds
from icl_landscape.analysis._curves import draw_curve, over_training
from icl_landscape.analysis._llc import Landscape, findings, over_checkpoints, told
from icl_landscape.analysis._presets import ALL
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.judges import SATURATED


@dataclass
class Settings(Landscape):
    pass


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: steps (T); per seed and checkpoint (S, T): llc, llc_error (standard error over chains), loss_sampled,
    loss_reference, saturation, distance, stability, acceptance, trend, epsilon, lambda_max (see sgmcmc.judges.Health);
    llc_chains (S, T, chains), tokens and tokens_error (S, T, K); findings (of the judges, in words); trivial (loss of the
    prediction 0); loss_correlation (per seed, of LLC and -loss of w* over checkpoints)."""
    steps = settings.steps(trained)
    parts = over_checkpoints(trained, settings, steps)
    seeds = [told(parts[seed]) for seed in trained.seeds]
    curves = {key: [seed[key] for seed in seeds] for key in seeds[0]}
    found = [row for seed in trained.seeds for row in findings(seed, steps, parts[seed])]
    likeness = [correlation(seed["llc"], seed["loss_reference"]) for seed in seeds]
    return {"steps": steps, **curves, "findings": found, "trivial": trained.trivial, "loss_correlation": likeness}


def correlation(llc, losses) -> float | None:
    """Of the LLC and -loss over checkpoints: 1 where the LLC tells nothing that the loss does not. None where undefined."""
    both = np.array([llc, losses], dtype=float)
    both = both[:, np.isfinite(both).all(0)]
    if both.shape[1] < 3 or not both.std(1).all():
        return None
    return float(np.corrcoef(both[0], -both[1])[0, 1])


def rises_with_context(published: dict, local: dict) -> dict[str, list]:
    """Per seed at the last checkpoint: the least step up of lambda_k from one k to the next, over its mean; shares of all K.

    Judged at the paper's settings; what ours give stands beside it.
    """
    names = "least rise from k to k + 1 / mean", "last k / first k"
    rows = {name: [] for name in (*names, *(f"{name}, gamma {gamma_of(local)}" for name in names))}
    for prefix, result in (("", published), (f", gamma {gamma_of(local)}", local)):
        for seed in result["tokens"]:
            row = np.asarray(seed[-1], dtype=float)
            rows[names[0] + prefix].append(float(np.diff(row).min() / row.mean()))
            rows[names[1] + prefix].append(float(row[-1] / row[0]))
    return rows


def gamma_of(result: dict) -> str:
    """Localisation that a result was sampled with."""
    return f"{result['settings']['sampling']['gamma']:g}"


def saturated(result: dict) -> str:
    """How far sampled losses go on the way to the prediction 0, in words."""
    ratios = np.asarray(result["saturation"], dtype=float)
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return "no checkpoint is better than the prediction 0, which could tell saturation"
    return (
        f"where w* is better than the prediction 0, sampled losses lie {ratios.min():.0%} to {ratios.max():.0%} of "
        f"the way to it ({(ratios > SATURATED).mean():.0%} above {SATURATED:.0%}, saturated)"
    )


def beside(published: dict, local: dict) -> str:
    """What both settings' judges found, in words."""
    texts = []
    for result in (published, local):
        likeness = [r for r in result["loss_correlation"] if r is not None]
        told = f"gamma {gamma_of(result)}: {saturated(result)}"
        told += f"; correlation of LLC and -loss {min(likeness):.5f} or more" if likeness else ""
        texts.append("; ".join([told, *(line.strip() for line in first_of_each(result))]))
    return ". ".join(texts)


def draw(result: dict):
    """LLC; sampled loss between that of w* and that of the prediction 0; LLC by token at the last checkpoint."""
    fig, axes = plotting.axes(3, height=2.3)
    draw_curve(axes[0], result, "llc", "LLC", plotting.PALETTE["model"])
    over_training(axes[0], r"$\hat\lambda$")
    draw_curve(axes[1], result, "loss_reference", "at $w^*$", plotting.PALETTE["model"])
    draw_curve(axes[1], result, "loss_sampled", "sampled", plotting.PALETTE["after"])
    axes[1].axhline(result["trivial"], color=plotting.GREY, linewidth=0.8, label="prediction 0")
    over_training(axes[1], "loss")
    axes[1].legend(fontsize=6)
    tokens = np.asarray([seed[-1] for seed in result["tokens"]], dtype=float)
    plotting.seed_lines(axes[2], np.arange(1, tokens.shape[1] + 1), tokens, "", plotting.PALETTE["model"])
    axes[2].set(xlabel="token k", ylabel=r"$\hat\lambda_k$ at the end")
    sampling = result["settings"]["sampling"]
    fig.suptitle(
        f"$n\\beta$ {sampling['nbeta']:g}, $\\gamma$ {sampling['gamma']:g}, batch {sampling['batch']}", fontsize=8
    )
    return fig


def finding(result: dict) -> str:
    ends = over_seeds([seed[-1] for seed in result["llc"]])
    error = "" if ends["error"] is None else f" +- {ends['error']:.2g}"
    kinds = Counter(row["kind"] for row in result["findings"])
    told = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()) or "nothing wrong found"
    at = result["settings"]["sampling"]
    where = f"nbeta {at['nbeta']:g}, gamma {at['gamma']:g}"
    end = "none" if ends["mean"] is None else f"{ends['mean']:.3g}{error}"
    return f"LLC at the end {end} ({where}); {saturated(result)}; {told}\n" + "\n".join(first_of_each(result))


def first_of_each(result: dict) -> list[str]:
    """One finding of every kind, in words."""
    kinds = {row["kind"]: row for row in reversed(result["findings"])}
    return [f"  seed {r['seed']}, step {r['step']}: {kind}: {r['words']}; {r['change']}" for kind, r in kinds.items()]


CLAIMS = [
    Claim("C15", "The LLC of a token rises with its place in the context.", source="appendix, per-token LLC",
          paper="13, 81, 139, 182, 211, 231, 244, 253 for k = 1 to 8 at the end of LR2", presets=ALL,
          needs=("llc_paper", "llc_local"), number=rises_with_context, note=beside,
          above={"least rise from k to k + 1 / mean": 0.0, "last k / first k": 3.0}),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
