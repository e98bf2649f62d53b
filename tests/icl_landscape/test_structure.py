"""Spectra, projections, the effective unembedding and LayerNorm statistics against closed forms and the model itself; the
experiments on a smoke run; the numbers of C7 to C10 on made-up results."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config import UserError
from common.replicas import Replicas
from icl_landscape.analysis import embeddings, layer_norms, unembedding
from icl_landscape.estimators import structure
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import Data
from icl_landscape.regression.model import Model, Transformer

STATISTICS = ("norm", "abs_std", "std", "mean", "max", "min")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def claim(module, name: str):
    return next(claim for claim in module.CLAIMS if claim.id == name)


def met(module, name: str, result: dict) -> list:
    """Per seed, whether a made-up result meets all bounds of a claim."""
    chosen = claim(module, name)
    values = chosen.values(result)
    columns = [values[bound["name"]] for bound in chosen.bounds]
    return [chosen.met(list(row)) for row in zip(*columns, strict=True)]


@pytest.fixture(scope="module")
def smoke(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu")


# --- spectra -------------------------------------------------------------------------------------------------------------


def test_normalised_squares_of_a_known_spectrum():
    left, right = (torch.linalg.qr(random(n, n, seed=n)).Q for n in (6, 3))
    made = left[:, :3] @ torch.diag(torch.tensor([1.0, 3.0, 2.0], dtype=torch.double)) @ right
    assert torch.allclose(structure.normalised_squares(made), torch.tensor([9.0, 4.0, 1.0]).double() / 14)


def test_normalised_squares_are_eigenvalues_of_the_gram_matrix_for_every_replica_and_scale():
    stack = random(4, 7, 3)
    grams = [np.linalg.eigvalsh(matrix.T @ matrix)[::-1] for matrix in stack.numpy()]
    expected = np.stack([values / values.sum() for values in grams])
    assert np.allclose(structure.normalised_squares(stack), expected)
    assert torch.allclose(structure.normalised_squares(1e-3 * stack), structure.normalised_squares(stack))


def test_overlap_is_one_inside_the_main_directions_zero_outside_and_the_cosine_squared_between():
    basis = torch.linalg.qr(random(8, 8)).Q
    position = basis[:, :4] @ torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]).double()) @ torch.linalg.qr(random(4, 4)).Q
    angle = 0.3
    between = math.cos(angle) * basis[:, 1] + math.sin(angle) * basis[:, 2]
    token = torch.stack([5 * basis[:, 0], basis[:, 2], basis[:, 6], 0.1 * between], 1)
    expected = torch.tensor([1.0, 0.0, 0.0, math.cos(angle) ** 2]).double()
    assert torch.allclose(structure.overlap(token, position, 2), expected, atol=1e-12)


def test_overlap_knows_the_span_alone_and_serves_a_stack():
    token, position = random(3, 8, 5), random(3, 8, 4, seed=1)
    # At full rank the span is that of the columns, whatever basis they are
    mixed = position @ random(3, 4, 4, seed=2)
    whole = structure.overlap(token, position, 4)
    assert torch.allclose(whole, structure.overlap(token, mixed, 4))
    for row in range(3):
        fitted = position[row] @ torch.linalg.lstsq(position[row], token[row]).solution
        assert torch.allclose(whole[row], (fitted.norm(dim=0) / token[row].norm(dim=0)) ** 2)


def test_overlap_of_unrelated_columns_is_rank_over_width():
    share = structure.overlap(random(200, 64, 5), random(200, 64, 16, seed=1), 8)
    assert abs(share.mean().item() - 8 / 64) < 0.005


# --- unembedding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_effective_unembedding_predicts_as_the_model_does(layer_norm):
    model = Transformer(Model(layer_norm=layer_norm), Data(), torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * random(*parameter.shape))
        told = unembedding.measure(Replicas([model, model]), 2)
        stream = random(10, 64, seed=5)
        seen = torch.nn.functional.layer_norm(stream, (64,), eps=1e-5) if layer_norm else stream
        z = model.norm(stream) if layer_norm else stream
        assert torch.allclose(seen @ told["w_eff"][1] + told["b_eff"][1], model.unembedding(z)[:, 0])
    assert set(told) == {"w_eff", "b_eff", "participation_ratio"}


def test_participation_ratio_counts_equal_numbers_and_no_scale():
    rows = torch.zeros(2, 10).double()
    rows[0, :4], rows[1, 7] = torch.tensor([2.0, -2.0, 2.0, -2.0]).double(), 1e-6
    assert torch.allclose(structure.participation_ratio(rows), torch.tensor([4.0, 1.0]).double())
    assert torch.allclose(structure.participation_ratio(torch.tensor([3.0, 1.0])), torch.tensor(100 / 82).double())


# --- LayerNorms ----------------------------------------------------------------------------------------------------------


def test_layer_norm_statistics_by_hand():
    found = structure.layer_norm_statistics(torch.tensor([[3.0, -4.0, 0.0], [1.0, 1.0, 1.0]]).double())
    first = {"norm": 5, "abs_std": np.std([3, 4, 0], ddof=1), "std": np.std([3, -4, 0], ddof=1)}
    first |= {"mean": -1 / 3, "max": 3, "min": -4}
    assert {name: value[0].item() for name, value in found.items()} == pytest.approx(first)
    assert found["std"][1] == 0 and found["mean"][1] == 1


def test_collapsed_counts_small_gains_of_either_sign():
    assert structure.collapsed(torch.tensor([[0.05, -0.09, -0.5, 1.0], [1.0, 1, 1, 0.1]])).tolist() == [0.5, 0.0]


def test_layer_norms_are_told_layer_by_layer_in_the_order_of_the_forward_pass():
    model = Transformer(Model(layers=3), Data(), torch.Generator())
    names = layer_norms.norms(3)
    parameters = dict(model.named_parameters())
    assert {f"{prefix}.{part}" for prefix in names.values() for part in ("weight", "bias")} == {
        name for name in parameters if "norm" in name
    }
    with torch.no_grad():
        for number, prefix in enumerate(names.values()):
            parameters[f"{prefix}.weight"][: 8 * number] = 0.01
            parameters[f"{prefix}.bias"].fill_(number)
    told = layer_norms.measure(list(names.values()), Replicas([model]), 1)
    assert told["collapsed"].tolist() == [[n / 8 for n in range(7)]]
    assert told["bias_mean"].tolist() == [list(range(7))]
    assert list(names)[0] == layer_norms.PRE_ATTENTION and list(names)[-1] == layer_norms.UNEMBEDDING


# --- experiments on a run ------------------------------------------------------------------------------------------------


def test_embeddings_of_a_run_are_those_of_its_models(smoke):
    result = embeddings.analyse(smoke, embeddings.Settings(sequences=16, rank=3, at=[0, 60]))
    weight = smoke.model(smoke.seeds[1], 60).token.weight
    assert result["token"][1][1] == pytest.approx(structure.normalised_squares(weight).tolist())
    assert np.shape(result["position"]) == (3, 2, 16) and np.shape(result["overlap"]) == (3, 2, 5)
    assert result["chance"] == 3 / 64


def test_a_rank_that_the_positions_lack_is_refused(smoke):
    with pytest.raises(UserError, match=r"found rank 17, expected at most 16.*--rank 16"):
        embeddings.analyse(smoke, embeddings.Settings(rank=17))


def test_a_run_without_layer_norms_is_refused_by_name(smoke, monkeypatch):
    bare = replace(smoke.config, model=replace(smoke.config.model, layer_norm=False))
    monkeypatch.setattr(smoke, "config", bare)
    with pytest.raises(UserError, match=r"found no LayerNorm in .*model.layer_norm is off.*--model.layer_norm true"):
        layer_norms.analyse(smoke, layer_norms.Settings())


@pytest.mark.parametrize("module", [embeddings, layer_norms, unembedding])
def test_every_experiment_draws_and_tells(smoke, module):
    settings = module.Settings(points=3)
    result = {"seeds": smoke.seeds, "settings": vars(settings), **module.analyse(smoke, settings)}
    assert module.draw(result).axes and module.finding(result)
    assert len(result["steps"]) == 3
    for name in (c.id for c in module.CLAIMS):
        assert len(met(module, name, result)) == 3


def test_layer_norms_start_at_gain_one_and_bias_zero(smoke):
    result = layer_norms.analyse(smoke, layer_norms.Settings(at=[0, 60]))
    assert np.all(np.array(result["gain_norm"])[:, 0] == 8) and not np.array(result["bias_norm"])[:, 0].any()
    assert np.all(np.array(result["bias_norm"])[:, 1] > 0)


# --- claims --------------------------------------------------------------------------------------------------------------


def spectra(least: float, most: float) -> dict:
    """One seed at four checkpoints, LR2 from the second on: the least token share ends at `least`, the largest of four
    positions at `most`."""
    token = [[0.6, 0.4], [0.8, 0.2], [0.7, 0.3], [1 - least, least]]
    position = [[1.0, 0, 0, 0], [0.25] * 4, [0.25] * 4, [most] + [(1 - most) / 3] * 3]
    return {"steps": [0, 10, 20, 30], "prior_score": [[0.5, 0.1, 0.3, 2.0]], "token": [token], "position": [position]}


def test_c7_compares_the_end_with_the_checkpoint_of_the_least_prior_score():
    numbers = embeddings.collapses(spectra(0.05, 0.7))
    assert numbers["least token S^2 / sum, end / start"] == pytest.approx([0.25])
    assert numbers["directions of the positions, end / start"] == pytest.approx([1 / (0.49 + 0.03) / 4])


@pytest.mark.parametrize(("least", "most", "verdict"), [(0.09, 0.7, True), (0.11, 0.7, False), (0.09, 0.3, False)])
def test_c7_on_either_side_of_its_bounds(least, most, verdict):
    assert met(embeddings, "C7", spectra(least, most)) == [verdict]


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ([35, 40, 20, 9, 5], True),
        ([35, 40, 20, 12, 11], False),
        ([35, 40, 4, 9, 5], False),
        ([5, 40, 20, 9, 5], True),
        ([35, 36, 37, 38, 39], False),
    ],
)
def test_c10_asks_for_a_fall_to_few_dimensions_without_a_rise(curve, verdict):
    assert met(unembedding, "C10", {"participation_ratio": [curve]}) == [verdict]


LAYERS = list(layer_norms.norms(2))


def norms_that_pass(**at: int) -> dict:
    """One seed at steps 0, 1, ..., 5: fraction 0.5 from a step on, unembedding u, first pre-attention a, another o."""
    names = {"u": layer_norms.UNEMBEDDING, "a": layer_norms.PRE_ATTENTION, "o": "block 1 pre-MLP"}
    when = {names[key]: step for key, step in at.items()}
    rows = [[0.5 if step >= when.get(name, 99) else 0.2 for name in LAYERS] for step in range(6)]
    return {"steps": list(range(6)), "layers": LAYERS, "collapsed": [rows]}


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        ({"u": 2, "a": 4}, True),
        ({"u": 2, "a": 4, "o": 5}, True),
        ({"u": 4, "a": 2}, False),
        ({"a": 2}, False),
        ({"u": 2, "a": 4, "o": 3}, False),
        ({"u": 2, "o": 3}, False),
        ({"u": 2}, None),
        ({}, None),
    ],
)
def test_c9_is_a_matter_of_order_and_open_where_a_layer_has_not_come(at, verdict):
    assert met(layer_norms, "C9", norms_that_pass(**at)) == [verdict]


@pytest.mark.parametrize(
    ("top", "other", "verdict"), [(0.4, 0.1, True), (0.29, 0.1, False), (0.4, 0.5, False), (0.4, 0.4, False)]
)
def test_c8_on_either_side_of_its_bounds(top, other, verdict):
    rows = [[0.0] * 5, [0.0, other, 0.0, 0.0, top]]
    assert met(layer_norms, "C8", {"layers": LAYERS, "collapsed": [rows]}) == [verdict]
