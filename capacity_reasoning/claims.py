"""The paper's claims C1 to C16, judged in a study: claims.json, claims.md, report.html, and the table printed.

    python capacity_reasoning/claims.py --study runs/capacity_reasoning/quick

Each claim stands, with its number and its bounds, in the experiment that makes the number (capacity_reasoning/analysis).
"""

import common.process  # noqa: F401

from common import publish
from common.claims import Paper, collect

PAPER = Paper(
    name="capacity_reasoning",
    title="How many bits a small transformer stores",
    citation="Johnston, Belrose: Examining Two Hop Reasoning Through Information Content Scaling (arXiv 2502.03490, 2025); "
    "anchor: Allen-Zhu, Li: Physics of Language Models, Part 3.3 (arXiv 2404.05405, 2024)",
    target="make repro-capacity",
    full_scale=("paper",),
    picture="scaling",
    sentence="What a small transformer knows of made-up people can be counted in bits: it grows with the number of parameters "
    "until all there is to know is known. Which questions it spends its bits on follows from how many it saves by each.",
)

CLAIMS = collect(PAPER, 16)

if __name__ == "__main__":
    publish.main(PAPER, CLAIMS)
