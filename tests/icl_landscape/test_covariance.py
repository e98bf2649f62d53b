"""Covariance of draws against known Gaussians, numpy, and layouts made by hand; chains without a loss against their law."""

import numpy as np
import pytest
import torch

from common.config import UserError
from icl_landscape.analysis import weight_covariance
from icl_landscape.analysis.weight_covariance import Settings, chains_of, collect, spectra
from icl_landscape.evaluate import Trained
from icl_landscape.regression.model import Attention, Model
from icl_landscape.sgmcmc.covariance import Factor, Running, eigenpairs, head_weights, singular_pairs, tensor_weights
from icl_landscape.sgmcmc.settings import Sampling


def draws(count: int, chains: int, root: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """(count, chains, n) of N(1000 times the chain, root root^T): chains far apart, and far from 0."""
    noise = torch.randn(count, chains, len(root), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise @ root.mT + 1000 * torch.arange(chains)[:, None]


def running(x: torch.Tensor, rows: list[int], columns: list[int] | None = None) -> Running:
    one = Running(x[0], torch.tensor(rows), None if columns is None else torch.tensor(columns))
    for draw in x:
        one.update(draw)
    return one


ROOT = torch.tensor([[2.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 3, 0], [0.5, 0, -1, 1]], dtype=torch.float64)


def test_the_running_covariance_is_numpys_within_each_chain():
    x = draws(40, 3, ROOT)
    one = running(x, [0, 2, 3])
    each = [np.cov(x[:, c, [0, 2, 3]].numpy().T) for c in range(3)]
    np.testing.assert_allclose(one.covariance(), np.mean(each, 0), rtol=1e-9)
    np.testing.assert_allclose(one.mean, x[..., [0, 2, 3]].mean(0), rtol=1e-12)
    only = one.covariance(torch.tensor([False, True, False]))
    np.testing.assert_allclose(only, each[1], rtol=1e-9)


def test_a_cross_covariance_is_the_block_of_the_whole():
    x = draws(40, 2, ROOT)
    whole = running(x, [0, 1, 2, 3]).covariance()
    torch.testing.assert_close(running(x, [0, 3], [1, 2, 3]).covariance(), whole[[0, 3]][:, [1, 2, 3]])


def test_a_gaussians_covariance_is_found():
    told, known = running(draws(20000, 2, ROOT), [0, 1, 2, 3]).covariance(), ROOT @ ROOT.mT
    torch.testing.assert_close(told, known, rtol=0, atol=0.25)
    pairs, (values, vectors) = eigenpairs(told, 2), torch.linalg.eigh(known)
    torch.testing.assert_close(pairs.values, values.flip(0)[:2], rtol=0.03, atol=0)
    assert abs(float(pairs.left[:, 0] @ vectors[:, -1])) > 0.999


def test_singular_pairs_of_a_known_rectangle():
    left, right = torch.eye(3).double()[:, :2], torch.eye(5).double()[:, 3:]
    pairs = singular_pairs(left @ torch.tensor([[7.0, 0], [0, 2]]).double() @ right.mT, 2)
    torch.testing.assert_close(pairs.values, torch.tensor([7.0, 2]).double())
    torch.testing.assert_close(pairs.left.abs(), left)
    torch.testing.assert_close(pairs.right.abs(), right)


@pytest.mark.parametrize("count", [4, 30])
def test_a_factor_has_the_spectrum_and_vectors_of_the_matrix(count):
    """With fewer draws than weights, and with more."""
    x = draws(count, 2, torch.randn(12, 12, generator=torch.Generator().manual_seed(1)).double())
    a, b = Factor.of(x[..., :7]), Factor.of(x[..., 7:])
    block, cross = running(x, list(range(7))).covariance(), running(x, list(range(7)), list(range(7, 12))).covariance()
    told, known = a.eigenpairs(3), eigenpairs(block, 3)
    torch.testing.assert_close(told.values, known.values)
    torch.testing.assert_close(block @ told.left, told.left * told.values)
    told, known = a.singular_pairs(b, 2), singular_pairs(cross, 2)
    torch.testing.assert_close(told.values, known.values)
    torch.testing.assert_close(cross @ told.right, told.left * told.values)
    torch.testing.assert_close(a.trace, block.trace())
    torch.testing.assert_close(a.norm(b), known.values[0])
    torch.testing.assert_close(a.norm(a), eigenpairs(block, 1).values[0])


def test_a_heads_places_are_those_that_the_forward_pass_reads():
    attention = Attention(Model(d=6, heads=3))
    shapes = {"before": torch.Size([2, 5])} | {
        f"blocks.1.attention.{name}": parameter.shape for name, parameter in attention.named_parameters()
    }
    flat = torch.cat([torch.zeros(10), *(p.detach().flatten() for p in attention.parameters())])
    places = head_weights(shapes, 3, 1, 2, ("query", "key", "value", "output"))
    query, key, value = attention.parts()
    for name, matrix in (("query", query), ("key", key), ("value", value)):
        torch.testing.assert_close(flat[places[name]].view(2, 6), matrix[4:])
    torch.testing.assert_close(flat[places["output"]].view(6, 2), attention.output.weight[:, 4:])
    assert torch.equal(tensor_weights(shapes, "before"), torch.arange(10))


def test_packed_rows_of_two_heads_by_hand():
    """d = 2, H = 2: rows are q, k, v of head 0, then of head 1, each of 2 weights."""
    shapes = {"blocks.0.attention.qkv.weight": torch.Size([6, 2])}
    told = {part: places.tolist() for part, places in head_weights(shapes, 2, 0, 1).items()}
    assert told == {"query": [6, 7], "key": [8, 9], "value": [10, 11]}


def test_heads_and_parts_that_are_not_there():
    shapes = {"blocks.0.attention.qkv.weight": torch.Size([6, 2])}
    for head, parts, message in ((2, ["key"], "head 2"), (0, ["keys"], "part keys"), (0, ["output"], "output.weight")):
        with pytest.raises(ValueError, match=message):
            head_weights(shapes, 2, 0, head, parts)


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def sampled(**changes) -> Settings:
    return Settings(sharpness=0, sampling=Sampling(**{"chains": 2, "draws": 4, "batch": 4} | changes))


def test_chains_without_a_loss_have_the_variance_of_their_localisation(trained):
    """Of the recursion w <- (1 - a) w + sqrt(epsilon) noise with a = epsilon gamma / 2: epsilon / (1 - (1 - a)^2)."""
    epsilon, gamma = 1e-3, 1000.0
    settings = sampled(gamma=gamma, burn_in=20, draws=60, every=8)
    chains = chains_of(trained, settings, 0, trained.steps[-1], epsilon, loss=False)
    told = collect(chains, torch.arange(2000), {"unembedding.bias": torch.arange(5)})
    variance = told.kept.double().var(0).mean()
    assert float(variance) == pytest.approx(epsilon / (1 - (1 - epsilon * gamma / 2) ** 2), rel=0.03)
    assert told.kept.shape == (60, 2, 2000) and told.chains == 2
    literal = np.mean([np.cov(told.kept[:, chain, :5].double().numpy().T) for chain in range(2)], 0)
    np.testing.assert_allclose(told.tensors["unembedding.bias"], literal, rtol=1e-4, atol=1e-9)


def test_the_loss_moves_the_draws_and_nothing_else_differs(trained):
    settings, step = sampled(), trained.steps[-1]
    kept = [collect(chains_of(trained, settings, 0, step, 1e-5, loss), torch.arange(500), {}).kept for loss in (1, 0)]
    assert not torch.equal(*kept)
    torch.testing.assert_close(*kept, rtol=0, atol=0.01)


def test_heads_that_move_together_show_between_blocks():
    """One weight of head 1:2 is also one of head 2:1: singular value 4 there, next to nothing elsewhere."""
    x = torch.randn(4000, 1, 4, 3, generator=torch.Generator().manual_seed(0))
    x[:, :, 1, 0] *= 2
    x[:, :, 2, 1] = x[:, :, 1, 0]
    told = spectra(weight_covariance.Draws(x.flatten(2), {}, 1), Settings(top=2), layers=2, heads=2)
    assert told["between"][1][0] == pytest.approx(4, rel=0.1)
    assert max(told["between"][0] + told["between"][1][1:]) < 0.3
    assert told["within"][1][0] == pytest.approx(4, rel=0.1) and told["within"][0][0] == pytest.approx(1, rel=0.1)
    assert told["layers"][0][1] == pytest.approx(4, rel=0.1) and told["trace"][1] == pytest.approx(6, rel=0.1)


def test_heads_that_stay_are_told(trained):
    with pytest.raises(UserError, match="that do not move"):
        weight_covariance.measure(trained, sampled(include=["unembedding.*"]), 0, trained.steps[-1])


def test_one_draw_has_no_covariance():
    with pytest.raises(ValueError, match="found 1 sampling.draws"):
        sampled(draws=1)


def test_the_ratio_to_chains_without_a_loss_is_told():
    cell = {
        kind: {"within": [[v, 0.1], [1.0, 0.1]], "between": [[v]], "trace": [v, v]}
        for kind, v in (("loss", 3.0), ("none", 1.5))
    }
    result = {"steps": [5], "heads": ["1:1", "2:1"], "cells": [[cell]]}
    told = weight_covariance.finding(result)
    assert "2.0000 for head 1:1, 1.0000 for 2:1" in told and "at most 2.0000" in told
    assert weight_covariance.draw(result)
