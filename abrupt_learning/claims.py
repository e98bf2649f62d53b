"""The paper's claims C1 to C31, each with the function that measures it and its threshold.

    python abrupt_learning/claims.py --study runs/abrupt_learning/quick

A claim holds only if every seed of at least three is on the right side of its threshold (see common.claims).
"""

from dataclasses import dataclass

from abrupt_learning import measures
from common import claims, config
from common.claims import Claim

SMALL, LARGE = ("quick", "medium", "gpu", "paper"), ("medium", "paper")
HERE = "abrupt_learning"


def analysis(name: str, run: str = "main") -> str:
    """The command that makes a result."""
    return f"python {HERE}/analysis/{name}.py --config {HERE}/configs/{name}.yaml --run {{study}}/{run}"


def claim(
    number: int, source: str, presets: tuple, statement: str, expected: str, measure, name: str, run="main"
) -> Claim:
    return Claim(f"C{number}", statement, source, expected, presets, measure, analysis(name, run))


CLAIMS = [
    claim(1, "Figs 1B, 2", SMALL, "The loss has a long plateau and then a sharp drop, with no change of procedure.",
          "drop width / t_drop: paper 0.13; < 0.5, after a plateau within 3% of p Var", measures.abrupt, "loss"),
    claim(2, "section 3.1", SMALL, "On the plateau the model copies: observed cells right, hidden ones predicted near 0.",
          "at 4/15 t_drop: L_obs < 0.02 Var, L_mask within 3% of predicting 0, mean |prediction| < 0.1",
          measures.copying_plateau, "loss"),
    claim(3, "Table 1", SMALL, "Before the drop it copies whatever token stands at a hidden place.",
          "at 4/15 t_drop: MSE to the shown value and L_obs both < 0.05 Var", measures.copies_anything, "copy_check"),
    claim(4, "appendix, copy table", SMALL, "Copying holds on matrices that are not low rank.",
          "at 4/15 t_drop: L_obs < 0.02, L_mask within 5% of predicting 0", measures.copies_incoherent, "copy_check"),
    claim(5, "section 3.2", SMALL, "After the drop hidden entries are computed.",
          "L_mask / Var: paper 0.06; < 0.25", measures.completes, "loss"),
    claim(6, "Fig 3", SMALL, "BERT beats nuclear-norm minimisation and is not implementing it.",
          "L(BERT) / L(solver): paper 0.36; < 1, and BERT's nuclear norm nearer the truth",
          measures.beats_nuclear_norm, "compare_nuclear_norm"),
    claim(7, "Fig 4", SMALL, "After the drop heads attend to the query's row and to its column.",
          "best row and column scores > 2 x chance; < 1.5 x on the plateau", measures.structured_heads, "attention_maps"),
    claim(8, "Fig 22", SMALL, "Attention turns structured across the drop.",
          "score just after the drop > 1.25 x the plateau's", measures.attention_evolves, "attention_maps"),
    claim(9, "Figs 5, 23", SMALL, "Under structured masks heads look for observed cells.",
          "at least half of the mass beyond chance", measures.observed_mass, "attention_maps"),
    claim(10, "ablation table", SMALL, "Ablating row or column heads damages completion more than copying.",
          "L_mask up by > 0.25 Var and > 3 x L_obs's rise", measures.selective_ablation, "ablation"),
    claim(11, "section 3.2, patching", SMALL, "Last-layer attention of X in a run on -X moves hidden cells most.",
          "difference of the ways moved > 0.1", measures.patching, "patch"),
    claim(12, "Fig 6", SMALL, "Hidden states encode the shown row (or column), best at an inner layer.",
          "lowest MSE strictly inside, below what the own token gives; paper: layers 3, 4 of 12", measures.row_probe, "probe"),
    claim(13, "Fig 21", SMALL, "The top singular vector can be read out linearly.",
          "|cos| > chance + 0.1, and more than on the plateau", measures.other_probes, "probe"),
    claim(14, "Fig 7a", SMALL, "Token-embedding norms are symmetric about 0.", "correlation of |e(v)| and |e(-v)| > 0.9",
          measures.norm_symmetry, "embeddings"),
    claim(15, "Fig 7b", SMALL, "The top two components of the token embeddings are sign and magnitude.", "both |r| > 0.7",
          measures.sign_and_magnitude, "embeddings"),
    claim(16, "Fig 7c", SMALL, "Positional embeddings cluster by column (or by row, its mirror image).",
          "1-NN purity > 2 x chance",
          measures.position_clusters, "embeddings"),
    claim(17, "Figs 9, 10", SMALL, "Both structures appear with the drop.", "more than half of each rise falls across the drop",
          measures.formed_together, "embeddings"),
    claim(18, "section 4, text", SMALL, "Permuting the positions breaks completion and hardly touches copying.",
          "L_mask > 0.7 Var, L_obs < 0.1 Var", measures.permuted_positions, "embeddings"),
    claim(19, "authors' code", SMALL, "No hybrid of weights from before and after the drop completes.",
          "L_mask of the best of the authors' four > 0.7 Var", measures.hybrids_fail, "hybrid"),
    claim(20, "Fig 8", ("quick", *LARGE), "Alone, tokens and MLPs have no plateau; attention drops early, positions last.",
          "t(token), t(MLP) < t(attention) < t(all) < t(position)", measures.component_order, "components", "components"),
    claim(21, "Fig 13", ("quick", *LARGE), "Narrow models do not solve it, wider ones do better.",
          "narrowest > 0.9 Var, widest < 0.25, none worse than a narrower one",
          lambda study: measures.ordered_runs(study, "width", measures.wider_is_better), "width"),
    claim(22, "Fig 14", LARGE, "Deeper models drop earlier.", "deepest before shallowest",
          lambda study: measures.ordered_runs(study, "depth", measures.deeper_is_earlier), "depth"),
    claim(23, "appendix I", LARGE, "Larger matrices are learned too.", "a drop in every run",
          lambda study: measures.ordered_runs(study, "size", measures.all_drop), "size"),
    claim(24, "Fig 16", LARGE, "A mixture of sizes is learned size by size.", "a drop per size, at different steps",
          measures.mixture_drops, "mixture", "mixture"),
    claim(25, "Fig 18", LARGE, "Gaussian factors drop as well.", "a drop in every run; paper's last L 5.6e-3 at 7x7",
          lambda study: measures.ordered_runs(study, "gaussian", measures.all_drop), "gaussian"),
    claim(26, "Fig 19", SMALL, "Other row counts come out near the solver's error, other column counts fail.",
          "MSE over the solver's: rows < 2, columns > 2 x rows", measures.other_shapes, "ood_shapes"),
    claim(27, "appendix J.2", SMALL, "The model completes matrices of other factor laws.",
          "L_mask < 0.9 of predicting 0 for each law",
          measures.other_laws, "ood"),
    claim(28, "Fig 11", SMALL, "GPT drops when it learns to copy observed entries; hidden ones stay unsolved.",
          "plateau at the first level; observed accuracy > 0.95, hidden < 0.6; loss < 1.1 x the second",
          measures.gpt_copies, "gpt", "gpt"),
    claim(29, "Fig 12", SMALL, "After GPT's drop a head attends to the same cell of the input.",
          "> 0.5, and twice the score before",
          measures.gpt_attends, "gpt_attention", "gpt"),
    claim(30, "regularisation table", SMALL, "No weight of a nuclear-norm penalty reaches BERT's error.",
          "L(BERT) / min over lambda < 1",
          measures.regularised_loses, "regularised_nuclear_norm"),
    claim(31, "ours", ("quick", *LARGE), "The plateau comes from the sign symmetry of centred factors.",
          "t_drop with factors on [0, 1] < half",
          measures.plateau_needs_symmetry, "control", "control"),
]  # fmt: skip

FIGURES = [
    ("The plateau and the drop", "Mean squared error on fresh matrices; every seed thin, their mean bold.", "main", "loss"),
    ("What heads attend to", "Attention averaged over 256 matrices, first seed, at the end.", "main", "attention_maps"),
    ("Copying", "Errors at observed cells and, from a copy of what is shown, at hidden cells.", "main", "copy_check"),
    ("Beside nuclear-norm minimisation", "Error and nuclear norm against the hidden share.", "main", "compare_nuclear_norm"),
    ("Embeddings", "Norms, components, positions.", "main", "embeddings"),
    ("Ablation", "Losses with groups of heads made uninformative.", "main", "ablation"),
    ("Patching", "How far the output moves to X.", "main", "patch"),
    ("Hybrids", "Losses of models mixed from before and after the drop.", "main", "hybrid"),
    ("Probes", "What a linear map reads from each layer.", "main", "probe"),
    ("Components", "One part trained afresh, the rest at its final weights.", "components", "components"),
    ("No symmetry, no plateau", "Factors on [-1, 1] and on [0, 1].", "control", "control"),
    ("GPT", "Loss between its entropy levels; greedy accuracy.", "gpt", "gpt"),
    ("GPT's attention", "Maps before and after the drop, first seed.", "gpt", "gpt_attention"),
]  # fmt: skip


@dataclass
class Judge:
    study: str = "runs/abrupt_learning/quick"
    """Folder of the study."""
    save: str | None = None
    """Also write the rows, with the manifest of the main run, to this JSON file (results/abrupt_learning/quick.json)."""


def main(settings: Judge) -> None:
    """Measure every claim in a study; write claims.json, claims.md and report.html; print the table."""
    intro = "Gopalani, Lubana, Hu: Abrupt Learning in Transformers (NeurIPS 2024, arXiv 2410.22244), claim by claim."
    claims.publish(settings, CLAIMS, FIGURES, "Abrupt learning in matrix completion", intro, "make repro-abrupt")


if __name__ == "__main__":
    config.main(main, Judge)
