"""Entropy of attention in nats, in the authors' convention and in ours, and the rank of its output (paper Fig 3c)."""

import torch
from torch import Tensor

from layernorm_grok.estimators.compressibility import effective_rank, eigenvalues
from layernorm_grok.estimators.trace import Trace
from layernorm_grok.model import Transformer


def entropy(weights: Tensor, floor: float = 1e-12) -> Tensor:
    """-sum w ln max(w, floor) over the last axis: (..., K) -> (...), in nats and float64; at most ln K."""
    weights = weights.double()
    return -(weights * weights.clamp_min(floor).log()).sum(-1)


@torch.no_grad()
def attention_entropies(model: Transformer, trace: Trace) -> dict[str, list[float]]:
    """Mean entropy over the pairs of a whole (not pruned) trace of `model`, per mode; at most ln 3.

    paper: the last layer alone, weights averaged over heads before the entropy, all three queries, and the layer fed with
        the embeddings, as the authors do at every depth; at depth 1 it is head_averaged.
    head_averaged: the same for each layer on its own residual stream; by concavity at least per_head_all.
    per_head_all: each layer, entropy of every head, mean over heads and all three queries.
    per_head_last: each layer, every head, the last query: in the last layer the only one that reaches the logits.
    """
    weights = [layer.weights for layer in trace.layers]
    if weights[-1].shape[-2] != 3:
        raise ValueError("found a pruned trace, expected all three queries of every layer: trace(model, rows)")
    mean = lambda weights: entropy(weights).mean().item()  # noqa: E731
    return {
        "paper": [mean(weights_on_embeddings(model, trace).mean(1))],
        "head_averaged": [mean(w.mean(1)) for w in weights],
        "per_head_all": [mean(w) for w in weights],
        "per_head_last": [mean(w[..., -1, :]) for w in weights],
    }


def weights_on_embeddings(model: Transformer, trace: Trace) -> Tensor:
    """Attention weights (N, h, 3, 3) of the last layer, were its input the embeddings and not the layers before it."""
    q, k, _ = model.project(model.layers[-1], trace.layers[0].x, model.switches(None))
    scores = torch.einsum("nqhe,nkhe->nhqk", q, k) * q.shape[-1] ** -0.5
    return scores.softmax(-1)


@torch.no_grad()
def attention_output_rank(trace: Trace) -> list[float]:
    """Per layer the effective rank of the N x N Gram of attention outputs o (N, d) at the last position, after `out`.

    Taken from o^T o (d x d), which has the same eigenvalues apart from zeros; NaN where o is not finite or all 0.
    """
    return [effective_rank(eigenvalues(layer.attention[:, -1])) for layer in trace.layers]
