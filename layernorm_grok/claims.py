"""The paper's claims C1 to C25, each with the function that measures it and its threshold.

    python layernorm_grok/claims.py --study runs/layernorm_grok/quick

A claim holds only if every seed of at least three is on the right side of its threshold (see common.claims).
"""

from dataclasses import dataclass

from common import claims, config
from common.claims import Claim, Study
from layernorm_grok import measures

LARGE = ("medium", "gpu", "paper", "paper_figures")
ALL = ("quick", *LARGE)
HERE = "layernorm_grok"


def analysis(name: str, run: str = "main") -> str:
    """The command that makes a result."""
    return f"python {HERE}/analysis/{name}.py --config {HERE}/configs/{name}.yaml --run {{study}}/{run}"


def claim(
    number: int, source: str, presets: tuple, statement: str, expected: str, measure, name: str, run="main"
) -> Claim:
    return Claim(f"C{number}", statement, source, expected, presets, measure, analysis(name, run))


def plateau(study: Study):
    return measures.plateau(study, study.run("main").config()["data"]["train_fraction"])


CLAIMS = [
    claim(1, "Figs 1, 2a", ALL, "Placement orders the speed of grokking: M < M+A* < A* < No LN.",
          "in each seed; paper, step of mean test loss 0.01: 1425, 3525, 7157, 7807", measures.placement_order, "ln_position"),
    claim(2, "Fig 1, section 2.3", ALL, "Speed of fitting train does not predict speed of fitting test.",
          "Kendall's tau of T_train and T over placements < 0.7; paper 0 (148, 214, 231, 317 for A*, M+A*, M, No LN)",
          measures.fitting_does_not_predict, "ln_position"),
    claim(3, "Figs 2b, 2c", ALL, "C_Fourier rises in the order in which the placements generalise.",
          "same order (tau > 0.99) of the step of 30 times the start; paper, C_F at 1: 1800, 2600, 5400, 6200",
          measures.fourier_order, "fourier"),
    claim(4, "Fig 2b, section 2.3", ALL, "Every placement ends in a periodic solution.",
          "C_F > 30 times its start; paper, at the end: No LN 3.35, M+A* 2.27, M 1.65, A* 0.45 (start 0.0089)",
          measures.ends_periodic, "fourier"),
    claim(5, "Fig 3a", ALL, "No LN relies on the scale of the MLP's input: without it the train loss is high, "
          "rises while memorising and falls while grokking.",
          "> 10 x train loss, up by 20%, down by 20%; paper 3.36 at 200, 6.10 at 4000, 3.28 at the end",
          measures.scale_is_read, "sr_train", "wd_sweep --cells [weight_decay=1]"),
    claim(6, "Fig 3a", ALL, "M lowers the scale-removed loss, A^v keeps it flat.",
          "A^v, same path: falls by < 25% from its peak; paper (all norms dropped): 4.48 to 5.04", measures.paths_of_scale,
          "sr_train"),
    claim(7, "Fig 3b", ALL, "LN on the values alone speeds grokking strongly, and less than M.",
          "T(M) <= T(A^v) <= T(No LN) / 2; paper 1425, 1891, 7807", measures.value_path, "attn_paths"),
    claim(8, "Fig 3b", ALL, "LN on queries and keys alone hurts.",
          "T(A^qk) >= T(No LN), of two nevers by the test accuracy at the end; paper: never",
          measures.query_key_path, "attn_paths"),
    claim(9, "Fig 3c", ALL, "A^qk has lower attention entropy than No LN; M's is nearly uniform.",
          "head-averaged: mean from step 200 on lower; M at its end > 0.95 ln 3; paper .770, .964, 1.0986 at the end",
          measures.entropy_order, "attention_entropy"),
    claim(10, "Fig 4a", ALL, "A higher learning rate at constant effective decay groks faster.",
          "extremes in order; paper 7807, 7740, 6582, 4470 for 1, 3, 5, 10e-3", measures.learning_rate, "lr_sweep", "lr_sweep"),
    claim(11, "Fig 4c", ALL, "A higher weight decay groks faster.",
          "extremes in order; paper: never to .5, then 9787, 7807, 6395", measures.weight_decay, "wd_sweep", "wd_sweep"),
    claim(12, "Fig 5a", ALL, "With eta_0 / alpha^2 a larger readout scale groks slower.",
          "extremes in order; paper 2021, 5531, 7807, never, never", measures.scaled_readout, "readout_scaled_lr",
          "readout_scaled_lr"),
    claim(13, "Fig 5c", ALL, "At a fixed learning rate a larger readout scale groks faster.",
          "extremes in order in each seed; paper, mean curve: never, never, 7807, 8221, 8309; fastest seed: 9155 to 4328",
          measures.fixed_readout, "readout_fixed_lr", "readout_fixed_lr"),
    claim(14, "Figs 5b, 5d", ALL, "Update norms are comparable across alpha at fixed eta, and not under eta_0 / alpha^2.",
          "at step 1, largest over least < 1.1 and > 5; paper 1.018 and 8.8", measures.update_norms, "readout_fixed_lr",
          "readout_fixed_lr"),
    claim(15, "Eqs 7 to 13", ALL, "Under AdamW with epsilon 0 the readout scale cancels in the update.",
          "logits of the twin runs agree to 1e-9", measures.readout_identity, "readout_identity"),
    claim(16, "Fig 6", ALL, "Placements become compressible in the order in which they grok.",
          "tau > 0.6; paper, rank within 10% of its minimum: 4400, 5200, 8000, 8600; exponent 1000, 2400, 6800, 8200",
          measures.compressed_in_order, "compressibility"),
    claim(17, "section 4.2", ALL, "A* does not reach a lower effective rank than No LN.",
          "least effective rank, A* >= No LN; paper 12.61, 8.34", measures.attention_norm_is_less_compressible,
          "compressibility"),
    claim(18, "Fig 9", ALL, "A larger weight decay ends more compressible.",
          "Spearman's rho of lambda and effective rank < 0; paper 42.1 at .1, 8.3 at 1, 7.0 at 1.5",
          measures.decay_compresses, "wd_sweep", "wd_sweep"),
    claim(19, "Fig 7", LARGE, "RMSNorm gives the same picture.", "the order of C1; paper (read off) 900, 2500, 6000, 7800",
          lambda study: measures.placement_order(study, "rmsnorm", "rmsnorm"), "rmsnorm", "rmsnorm"),
    claim(20, "Fig 8", LARGE, "Three layers of half the width: the same order.",
          "the order of C1; paper (read off) 1000, 1800, 5000, 6000 to 8000",
          lambda study: measures.placement_order(study, "depth3", "depth3"), "depth3", "depth3"),
    claim(21, "section 4.1", ALL, "Features change from the start: there is no lazy phase.",
          "NTK drift at T_train > 5; paper (notebook, sum kernel, step 200) 267", measures.no_lazy_phase, "ntk"),
    claim(22, "authors' scripts", LARGE, "Subtracting the initial output changes little.",
          "T within a factor 1.5 at alpha = 1 and fixed eta; no number in the paper", measures.subtraction_changes_little,
          "readout_fixed_lr_subtract", "readout_fixed_lr_subtract"),
    claim(23, "authors' notebooks", LARGE, "C12 and C13 hold with kaiming weights and epsilon 0.",
          "as C12 and C13; paper 1736 to never, and 7933, 8131, 6617, 5177, 5168", measures.also_without_epsilon,
          "readout_scaled_lr_eps0", "readout_scaled_lr_eps0"),
    claim(24, "authors' notebooks", ALL, "M+A^v is faster still than M.", "T(M+A^v) <= T(M); paper 964, 1425",
          measures.both_norms, "attn_paths"),
    claim(25, "authors' notebooks", ALL, "Before grokking, test accuracy rests near the train fraction.",
          "A*: within a quarter of it; paper (fraction .3) A* .26 to .28, M+A* .305, M .30, No LN .21", plateau, "ln_position"),
]  # fmt: skip

FIGURES = [
    ("Where the norm sits", "Test loss and accuracy, every seed; the seed with the median time bold.", "main", "ln_position"),
    ("The three paths", "Norms on queries and keys, on values, on the MLP.", "main", "attn_paths"),
    ("Fourier concentration", "C_F of the embedding; dotted: first seed's step at 0.99.", "main", "fourier"),
    ("Fourier concentration without LN", "The sweep's runs, which see more pairs.", "wd_sweep", "fourier"),
    ("Scale-removed loss", "Train loss when the MLP's input loses its scale, in three modes.", "main", "sr_train"),
    ("Scale-removed loss without LN", "The sweep's runs, which see more pairs.", "wd_sweep", "sr_train"),
    ("Attention entropy", "In three ways of counting, and the rank of what attention writes.", "main", "attention_entropy"),
    ("Compressibility", "Spectrum of the prelogits along training.", "main", "compressibility"),
    ("Learning rate at constant effective decay", "Without LN.", "lr_sweep", "lr_sweep"),
    ("Weight decay", "Without LN.", "wd_sweep", "wd_sweep"),
    ("Readout scale, eta_0 / alpha^2", "Without LN.", "readout_scaled_lr", "readout_scaled_lr"),
    ("Readout scale, fixed learning rate", "Without LN.", "readout_fixed_lr", "readout_fixed_lr"),
    ("What the readout scale is", "Twin runs: alpha, and a larger U with a larger learning rate.", "main", "readout_identity"),
    ("NTK drift", "How far the kernel is from its start.", "main", "ntk"),
    ("Sharpness", "Top eigenvalues of the Hessian.", "main", "hessian"),
    ("Weight spectra", "Means over the weight matrices.", "main", "htsr"),
    ("alpha, learning rate and decay crossed", "Without LN.", "readout_factorial", "readout_factorial"),
    ("A real lazy limit", "SGD on squared error beside AdamW on cross-entropy.", "lazy_sgd", "lazy_limit"),
    ("RMSNorm", "As the first figure.", "rmsnorm", "rmsnorm"),
    ("Three layers", "As the first figure.", "depth3", "depth3"),
    ("Epsilon 0, eta_0 / alpha^2", "", "readout_scaled_lr_eps0", "readout_scaled_lr_eps0"),
    ("Epsilon 0, fixed learning rate", "", "readout_fixed_lr_eps0", "readout_fixed_lr_eps0"),
    ("Initial output subtracted, eta_0 / alpha^2", "", "readout_scaled_lr_subtract", "readout_scaled_lr_subtract"),
    ("Initial output subtracted, fixed", "", "readout_fixed_lr_subtract", "readout_fixed_lr_subtract"),
    ("Effective-rank loss", "", "er_loss", "er_loss"),
    ("Scale of the initial weights", "", "init_scale", "init_scale"),
    ("Ablations", "", "main", "ablations"),
]  # fmt: skip


@dataclass
class Judge:
    study: str = "runs/layernorm_grok/quick"
    """Folder of the study."""
    save: str | None = None
    """Also write the rows, with the manifest of the main run, to this JSON file (results/layernorm_grok/quick.json)."""


def main(settings: Judge) -> None:
    """Measure every claim in a study; write claims.json, claims.md and report.html; print the table."""
    intro = (
        "Singh, Misra, Orvieto: Explaining Grokking in Transformers through the Lens of Inductive Bias "
        "(arXiv 2602.06702), claim by claim."
    )
    claims.publish(settings, CLAIMS, FIGURES, "LayerNorm position and grokking", intro, "make repro-grok")


if __name__ == "__main__":
    config.main(main, Judge)
