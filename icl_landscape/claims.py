"""The paper's claims C1 to C19, judged in a study: claims.json, claims.md, report.html, and the table printed.

    python icl_landscape/claims.py --study runs/icl_landscape/quick

Each claim stands, with its number and its bounds, in the experiment that makes the number (icl_landscape/analysis).
"""

import common.process  # noqa: F401

from common import publish
from common.claims import Paper, collect

PAPER = Paper(
    name="icl_landscape",
    title="The developmental landscape of in-context learning",
    citation="Hoogland, Wang, Farrugia-Roberts, Carroll, Wei, Murfet: Loss Landscape Degeneracy and Stagewise Development in "
    "Transformers (arXiv 2402.02364, TMLR 2025)",
    target="make repro-icl",
    full_scale=("gpu", "paper"),
    picture="stages",
    sentence="A transformer that learns regression in context develops in stages: it learns the prior and predicts 0 (LR1), "
    "then it learns to use the context (LR2). At the published settings the local learning coefficient repeats the loss there; "
    "near the checkpoint it does not.",
)

CLAIMS = collect(PAPER, 19)

if __name__ == "__main__":
    publish.main(PAPER, CLAIMS)
