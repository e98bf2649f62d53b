"""Heavy tails of the weight matrices: spectra of W^T W for every linear map of the blocks (Martin and Mahoney 2021).

Embedding and unembedding are left out, as in the original, which splits the packed queries, keys and values of the first
layer alone; here those of every layer are.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from layernorm_grok.estimators import compressibility

LINEAR = ("out", "fc1", "fc2", "gate")


def matrices(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(name, W) of every linear map in the state dict of a Transformer: layers.0.q, .k, .v, .out, .fc1, .fc2, .gate."""
    for name, weight in state.items():
        layer, _, part = name.rpartition(".")
        if part == "qkv":
            yield from ((f"{layer}.{which}", W) for which, W in zip("qkv", weight.chunk(3), strict=True))
        elif part in LINEAR:
            yield name, weight


def measure(W: Tensor) -> dict[str, float]:
    """alpha_pl and effective_rank of the eigenvalues of W^T W; of W itself numerical_rank (float32 default tolerance),
    stable_rank_original = ||W||_F / ||W||_2 and stable_rank, its square.
    """
    spectrum = compressibility.eigenvalues(W)
    stable = compressibility.stable_rank(spectrum)
    return {
        "alpha_pl": compressibility.alpha_pl(spectrum),
        "effective_rank": compressibility.effective_rank(spectrum),
        "numerical_rank": compressibility.numerical_rank(np.sqrt(spectrum), max(W.shape)),
        "stable_rank_original": float(np.sqrt(stable)),
        "stable_rank": stable,
    }


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each measure over the matrices, what the original logs."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
