"""Attention entropy in its modes, and the rank of what attention writes."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from layernorm_grok.estimators.entropy import attention_entropies, attention_output_rank, entropy, weights_on_embeddings
from layernorm_grok.estimators.trace import trace
from layernorm_grok.model import Transformer
from tests.layernorm_grok.models import random_model

ALL = torch.arange(25)


def entropies(model: Transformer) -> dict[str, list[float]]:
    return attention_entropies(model, trace(model, ALL))


def test_uniform_weights_have_ln_k_and_one_hot_none():
    assert entropy(torch.full((2, 3), 1 / 3, dtype=torch.float64)).tolist() == pytest.approx([math.log(3)] * 2)
    assert entropy(torch.eye(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_entropy_is_scipys(dtype, tolerance):
    scores = 4 * torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    weights = scores.softmax(-1)
    np.testing.assert_allclose(entropy(weights), scipy.stats.entropy(weights.double(), axis=-1), atol=tolerance)


def test_the_floor_acts_inside_the_logarithm_alone():
    weights = torch.tensor([0.99, 0.01, 0.0], dtype=torch.float64)
    expected = -0.99 * math.log(0.99) - 0.01 * math.log(0.1)
    assert entropy(weights, 0.1).item() == pytest.approx(expected)


@pytest.mark.parametrize("layers", [1, 2])
def test_all_modes_are_ln_3_where_queries_are_zero(layers):
    model = random_model("mlp-pre", layers=layers)
    with torch.no_grad():
        for block in model.layers:
            block.qkv[:8] = 0
    for values in entropies(model).values():
        assert values == pytest.approx([math.log(3)] * len(values))


@pytest.mark.parametrize("placement", ["off", "attn-pre", "attn-pre-qk", "attn-pre-v", "pre", "off+qk-norm"])
@pytest.mark.parametrize("layers", [1, 3])
def test_averaging_heads_first_never_lowers_the_entropy(placement, layers):
    for seed in range(5):
        found = entropies(random_model(placement, seed=seed, layers=layers, heads=4))
        assert all(len(found[mode]) == layers for mode in ("head_averaged", "per_head_all", "per_head_last"))
        assert len(found["paper"]) == 1
        for averaged, single in zip(found["head_averaged"], found["per_head_all"], strict=True):
            assert single + 1e-3 < averaged <= math.log(3) + 1e-12


def test_one_head_makes_no_difference():
    found = entropies(random_model(heads=1, layers=2))
    assert found["head_averaged"] == pytest.approx(found["per_head_all"])


def literal(weights: torch.Tensor, averaged: bool, rows: list[int]) -> float:
    """Loops over pairs, heads and queries."""
    weights = weights.detach().mean(1, keepdim=True) if averaged else weights.detach()
    pairs, heads = weights.shape[:2]
    values = [scipy.stats.entropy(weights[n, h, q]) for n in range(pairs) for h in range(heads) for q in rows]
    return sum(values) / len(values)


def test_modes_are_the_literal_loops_on_the_true_residual_stream():
    model = random_model("attn-pre-qk", layers=2)
    weights, found = [layer.weights for layer in trace(model, ALL).layers], entropies(model)
    assert found["head_averaged"] == pytest.approx([literal(w, True, [0, 1, 2]) for w in weights])
    assert found["per_head_all"] == pytest.approx([literal(w, False, [0, 1, 2]) for w in weights])
    assert found["per_head_last"] == pytest.approx([literal(w, False, [2]) for w in weights])


@pytest.mark.parametrize("placement", ["off", "attn-pre", "attn-pre-qk", "off+qk-norm", "post"])
def test_papers_mode_is_head_averaged_at_depth_one(placement):
    model = random_model(placement)
    found = entropies(model)
    assert found["paper"] == pytest.approx(found["head_averaged"], rel=1e-12)


@pytest.mark.parametrize("placement", ["off", "attn-pre", "attn-pre-q", "attn-pre-k", "pre+qk-norm"])
def test_papers_mode_at_depth_is_the_last_layer_on_the_embeddings(placement):
    """That is the first layer of a model whose first block is this one's last."""
    deep, shallow = random_model(placement, layers=3), random_model(placement)
    state = deep.state_dict()
    last = {n: state[n.replace("layers.0.", "layers.2.")] for n in shallow.state_dict()}
    shallow.load_state_dict(last)
    whole = trace(deep, ALL)
    expected = trace(shallow, ALL).layers[0].weights
    torch.testing.assert_close(weights_on_embeddings(deep, whole), expected, rtol=1e-11, atol=1e-12)
    assert entropies(deep)["paper"] == pytest.approx(entropies(shallow)["head_averaged"])
    assert entropies(deep)["paper"] != pytest.approx(entropies(deep)["head_averaged"][-1:], rel=1e-6)


def test_a_pruned_trace_is_refused():
    model = random_model()
    with pytest.raises(ValueError, match="found a pruned trace"):
        attention_entropies(model, trace(model, ALL, pruned=True))


@pytest.mark.parametrize("layers", [1, 2])
def test_output_rank_is_that_of_the_gram_over_pairs(layers):
    model = random_model("attn-pre-v", layers=layers)
    found = attention_output_rank(trace(model, ALL))
    for value, layer in zip(found, trace(model, ALL).layers, strict=True):
        output = layer.attention[:, -1].detach().numpy()
        eigenvalues = np.linalg.eigvalsh(output @ output.T)
        shares = eigenvalues[eigenvalues > 1e-12 * eigenvalues[-1]] / eigenvalues.sum()
        assert value == pytest.approx(math.exp(scipy.stats.entropy(shares)), rel=1e-7)
    assert len(found) == layers
    assert attention_output_rank(trace(model, ALL, pruned=True)) == pytest.approx(found)


def test_output_rank_is_one_where_attention_writes_one_direction():
    model = random_model()
    with torch.no_grad():
        model.layers[0].out.copy_(torch.outer(model.layers[0].out[:, 0], model.layers[0].out[0]))
    assert attention_output_rank(trace(model, ALL)) == pytest.approx([1], abs=1e-8)
