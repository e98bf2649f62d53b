"""BERT and nuclear-norm minimisation on the same matrices; for compare_nuclear_norm and ood_shapes."""

import torch
from torch import Tensor, nn

from abrupt_learning.data import Batch
from abrupt_learning.estimators.nuclear_norm import complete
from abrupt_learning.evaluate import losses, predict
from common.experiment import over_seeds


def nuclear_norm(values: Tensor, size: list[int]) -> float:
    """Mean nuclear norm of (B, N) as matrices."""
    return float(torch.linalg.svdvals(values.double().unflatten(1, size)).sum(1).mean())


def measure(output: Tensor, solved: Tensor, batch: Batch, size: list[int]) -> dict[str, float]:
    """Losses and nuclear norm of an output (B, N), and its mean squared distance to the solver's at hidden cells."""
    distance = float((output - solved)[~batch.observed].square().mean())
    return losses(output, batch) | {"nuclear_norm": nuclear_norm(output, size), "to_solver": distance}


def beside_solver(
    models: list[nn.Module], batch: Batch, size: list[int], tolerance: float = 1e-5, solver: str = "interior_point"
) -> dict:
    """Keys: bert -> `measure`: {values, mean, error} over models, a seed each; solver -> `measure`, largest_gap; truth
    (nuclear norm).
    """
    outputs = [predict(model, batch.ids) for model in models]
    if batch.ids.is_mps:  # no float64 there
        outputs, batch = [output.cpu() for output in outputs], Batch(*(part.cpu() for part in batch))
    A, mask = (part.unflatten(1, size) for part in (batch.target, batch.observed))
    solution = complete(A, mask, tolerance, solver)
    solved = solution.X.flatten(1)
    return {
        "bert": over_seeds([measure(output, solved, batch, size) for output in outputs]),
        "solver": measure(solved, solved, batch, size) | {"largest_gap": float(solution.gap.max())},
        "truth": nuclear_norm(batch.target, size),
    }
