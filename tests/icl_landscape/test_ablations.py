"""Ablations against models whose weights are cut, and of a stack against one model at a time."""

import numpy as np
import pytest
import torch

from common.replicas import Replicas
from icl_landscape.analysis import ablations
from icl_landscape.analysis.ablations import ablated, components, without, without_positions
from icl_landscape.evaluate import Trained
from icl_landscape.regression.losses import token_losses


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


@pytest.fixture
def pair(trained):
    """A model and another like it, to be cut, with sequences."""
    batch, step = trained.sequences(6), trained.steps[-1]
    return trained.model(1, step), trained.model(1, step), (batch.x[1], batch.y[1])


def set_batched(stack: Replicas, batched: bool) -> Replicas:
    """The stack in one launch, as on a GPU, or replica by replica."""
    stack.batched = batched
    return stack


@pytest.mark.parametrize("layer", [0, 1])
def test_an_mlp_set_to_0_is_one_without_its_last_weights(pair, layer):
    model, cut, sequences = pair
    cut.blocks[layer].fc2.weight.zero_()
    cut.blocks[layer].fc2.bias.zero_()
    told = model(*sequences, ablated("mlp", layer, None, "zero"))
    torch.testing.assert_close(told, cut(*sequences))
    assert not torch.allclose(told, model(*sequences))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_head_set_to_0_is_one_without_its_columns_of_the_output_matrix(pair, layer):
    model, cut, sequences = pair
    cut.blocks[layer].attention.output.weight[:, 16:32] = 0
    told = model(*sequences, ablated("heads", layer, 1, "zero"))
    torch.testing.assert_close(told, cut(*sequences))
    assert not torch.allclose(told, model(*sequences))


@pytest.mark.parametrize("layer", [0, 1])
def test_an_attention_set_to_0_is_one_without_its_output_matrix(pair, layer):
    model, cut, sequences = pair
    cut.blocks[layer].attention.output.weight.zero_()
    torch.testing.assert_close(model(*sequences, ablated("heads", layer, None, "zero")), cut(*sequences))


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_positions_taken_out_are_a_matrix_of_0_or_of_their_mean(pair, kind):
    model, cut, sequences = pair
    weight = cut.position.weight
    # The last y token has a position that no prediction sees
    weight.copy_(torch.zeros_like(weight) if kind == "zero" else weight[:, :-1].mean(1, keepdim=True).expand_as(weight))
    told = model(*sequences, without_positions(model.position.weight, kind))
    torch.testing.assert_close(told, cut(*sequences), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(told, model(*sequences), rtol=1e-4, atol=1e-5)


def test_a_mean_ablation_gives_every_sequence_the_same_output_of_the_part_and_keeps_its_mean():
    value = torch.randn(2, 5, 4, 3, 6, generator=torch.Generator().manual_seed(0))
    put = ablated("heads", 0, 2, "mean")("heads", 0, value)
    assert torch.equal(put[:, :, [0, 1, 3]], value[:, :, [0, 1, 3]])
    torch.testing.assert_close(put[:, 0, 2], value[:, :, 2].mean(1))
    assert torch.equal(put[:, 0, 2], put[:, 4, 2])
    assert ablated("heads", 0, 2, "mean")("heads", 1, value) is value


@pytest.mark.parametrize("batched", [False, True])
def test_an_ablated_stack_is_its_models_one_by_one(trained, monkeypatch, batched):
    stack = trained.stack
    monkeypatch.setattr(trained, "stack", lambda steps: set_batched(stack(steps), batched))
    told = ablations.analyse(trained, ablations.Settings(points=2, sequences=6))
    batch = trained.sequences(6)
    for seed in range(len(trained.seeds)):
        for place, step in enumerate(told["steps"]):
            model, x, y = trained.model(trained.seeds[seed], step), batch.x[seed], batch.y[seed]
            assert told["whole"][seed][place] == pytest.approx(token_losses(model(x, y), y).tolist(), rel=1e-4)
            for name, part in components(trained.config.model).items():
                for kind in ablations.KINDS:
                    alone = token_losses(model(x, y, without(model.position.weight, part, kind)), y)
                    assert told[f"{kind} {name}"][seed][place] == pytest.approx(alone.tolist(), rel=1e-4)


def test_positions_and_every_head_attention_and_mlp_are_components(trained):
    parts = components(trained.config.model)
    assert len(parts) == 13 and {"positions", "head 2:4", "attention 1", "MLP 2"} <= set(parts)


def test_the_increase_is_the_mean_over_seeds_and_tokens_and_the_finding_names_the_dearest():
    seeds = [[[1.0, 1.0], [1.0, 3.0]], [[1.0, 1.0], [0.0, 0.0]]]
    made = {"steps": [0, 5], "parts": ["MLP 1", "MLP 2"], "whole": np.zeros((2, 2, 2)).tolist(), "mean MLP 1": seeds}
    made["mean MLP 2"] = np.full((2, 2, 2), 2.0).tolist()
    assert ablations.increase(made, "mean").tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert ablations.finding(made) == "dearest at the end, by mean ablation: MLP 2 +2.00, MLP 1 +1.00"
