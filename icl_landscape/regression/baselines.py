"""What the best predictors in context would say, for all prefixes at once (Raventos et al., arXiv 2306.15063).

y_k is predicted from x_k and the examples before it. Both predictors work in double precision: with inputs a hundred times
larger the posteriors are too sharp for single.
"""

import torch
from torch import Tensor


def ridge(x: Tensor, y: Tensor, sigma2: float) -> Tensor:
    """w_k . x_k with w_k = (X^T X + sigma^2 I)^-1 X^T y of the examples before k: (..., K, D), (..., K) -> (..., K).

    The best predictor for tasks N(0, I). It is that of a Gaussian process with covariance x . x' and noise sigma^2, whose
    Gram matrix X X^T + sigma^2 I = L L^T tells all K of them from one Cholesky factor: y_k has the mean
    sum_{j < k} L_kj z_j given those before it, where L z = y. The first prediction is 0.
    """
    wide, target = x.double(), y.double()
    gram = wide @ wide.mT + sigma2 * torch.eye(x.shape[-2], dtype=wide.dtype, device=x.device)
    factor = torch.linalg.cholesky(gram)
    white = torch.linalg.solve_triangular(factor, target[..., None], upper=False)
    return (factor.tril(-1) @ white).squeeze(-1).to(y.dtype)


def dmmse(x: Tensor, y: Tensor, table: Tensor, sigma2: float, elements: int = 2**22) -> Tensor:
    """w_k . x_k with w_k the posterior mean of tasks uniform over the rows of table, the discrete MMSE estimator: -> (..., K).

    x (..., K, D), y (..., K), table (M, D) for any M. The posterior after the examples before k is the softmax over m of
    -sum_{j < k} (y_j - t_m . x_j)^2 / (2 sigma^2); w_1 is the mean task. The exponent is, but for what all tasks share,
    (t . X^T y - t^T X^T X t / 2) / sigma^2: a product of running sums with features of the tasks. elements: most scores
    to hold at a time.
    """
    wide, target = x.double(), y.double()[..., None]
    squares = -0.5 * (wide[..., :, None] * wide[..., None, :]).flatten(-2)
    examples = torch.cat([wide * target, squares], -1) / sigma2
    sums = torch.ones(x.shape[-2:-1] * 2, dtype=wide.dtype, device=x.device).tril(-1) @ examples
    parts = [_posterior(sums, part) for part in table.double().split(max(1, elements // y.numel()))]
    evidence, mean = (torch.stack(column) for column in zip(*parts, strict=True))
    return ((evidence.softmax(0) * mean).sum(0) * wide).sum(-1).to(y.dtype)


def _posterior(sums: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum of the likelihoods of some tasks (..., K, 1), but for a shared factor, and their mean (..., K, D)."""
    features = torch.cat([table, (table[:, :, None] * table[:, None]).flatten(1)], 1)
    scores = sums @ features.mT
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    return top + total.log(), weights @ table / total
