"""The paper's claims C1 to C25, judged in a study: claims.json, claims.md, report.html, and the table printed.

    python layernorm_grok/claims.py --study runs/layernorm_grok/quick

Each claim stands, with its number and its bounds, in the experiment that makes the number (layernorm_grok/analysis).
"""

import common.process  # noqa: F401

from common import publish
from common.claims import Paper, collect

PAPER = Paper(
    name="layernorm_grok",
    title="LayerNorm position and grokking",
    citation="Singh, Misra, Orvieto: Explaining Grokking in Transformers through the Lens of Inductive Bias (arXiv 2602.06702)",
    target="make repro-grok",
    full_scale=("gpu", "paper", "paper_figures"),
    picture="ln_position",
    sentence="How long a transformer takes from memorising addition to generalising depends on where its LayerNorm sits: first "
    "M (the MLP's input), then M+A* (attention's too), A* (attention's alone), and last no norm at all.",
)

CLAIMS = collect(PAPER, 25)

if __name__ == "__main__":
    publish.main(PAPER, CLAIMS)
