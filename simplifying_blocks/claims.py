"""The paper's claims C1 to C25, judged in a study: claims.json, claims.md, report.html, and the table printed.

    python simplifying_blocks/claims.py --study runs/simplifying_blocks/quick

Each claim stands, with its number and its bounds, in the experiment that makes the number (simplifying_blocks/analysis).
"""

import common.process  # noqa: F401

from common import publish
from common.claims import Paper, collect

PAPER = Paper(
    name="simplifying_blocks",
    title="Simplified transformer blocks",
    citation="He, Hofmann: Simplifying Transformer Blocks (arXiv 2311.01906, ICLR 2024)",
    target="make repro-blocks",
    full_scale=("gpu", "paper"),
    picture="blocks",
    sentence="A transformer whose attention has no skip, no values and no projections (SAS, SAS-P) learns as fast per step as "
    "Pre-LN, if its attention starts as the identity; with V and P trained at full rate (V-SkipInit) it is slower, and without "
    "shaping it learns nothing.",
)

CLAIMS = collect(PAPER, 25)

if __name__ == "__main__":
    publish.main(PAPER, CLAIMS)
