"""The paper's claims C1 to C31, collected from the experiments that judge them, in a study.

    python abrupt_learning/claims.py --study runs/abrupt_learning/quick

Sentences, numbers and bounds stand in analysis/<experiment>.py.
"""

import common.process  # noqa: F401

from common import publish
from common.claims import Paper, collect

PAPER = Paper(
    name="abrupt_learning",
    title="Abrupt learning in matrix completion",
    citation="Gopalani, Lubana, Hu: Abrupt Learning in Transformers: A Case Study on Matrix Completion "
    "(NeurIPS 2024, arXiv 2410.22244)",
    target="make repro-abrupt",
    full_scale=("gpu", "paper"),
    picture="main/loss",
    sentence="For long the model copies and predicts hidden entries as 0; then, with nothing changed, it computes them.",
)
CLAIMS = collect(PAPER, 31)

if __name__ == "__main__":
    publish.main(PAPER, CLAIMS)
