"""BERT: equal to the stock model of transformers, and its invariants."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from abrupt_learning.data import Data, sample
from abrupt_learning.model import GROUPS, Bert, Model, component
from abrupt_learning.train import Config, bert_losses, objective
from common.replicas import Replicas

SMALL = Model(hidden_size=32, n_layer=3, n_head=4, init_std=0.1)
DATA = Data(sizes=[[4, 4]], rank=1, precision=1, limit=1.0)


def small(seed: int = 0, config: Model = SMALL) -> Bert:
    return Bert(config, DATA.vocabulary, DATA.cells, torch.Generator().manual_seed(seed))


def test_equals_stock_bert_without_token_types():
    from transformers import BertConfig, BertModel

    stock = BertModel(
        BertConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=16, type_vocab_size=1, layer_norm_eps=1e-12,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    stock.embeddings.token_type_embeddings.weight.data.zero_()
    ours = Bert(SMALL, 50, 16)
    state = {k: v for k, v in stock.state_dict().items() if "token_type" not in k and not k.endswith("_ids")}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["read_out.weight", "read_out.bias"], [])
    ids, hidden = torch.randint(0, 50, (6, 16), generator=torch.Generator().manual_seed(0)), []
    ours(ids, lambda site, layer, value: (hidden.append(value) if site in ("embedding", "hidden") else None, value)[1])
    reference = stock(ids, output_hidden_states=True)
    for ours_at, reference_at in zip(hidden, reference.hidden_states, strict=True):
        torch.testing.assert_close(ours_at, reference_at, atol=1e-5, rtol=1e-5)


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Bert(Model(n_layer=n), 2002, 512).parameters()) for n in (4, 12)]
    assert counts == [30_284_545, 86_987_521]


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = small(7)
    torch.manual_seed(2)
    second = small(7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.read_out.weight, small(8).read_out.weight)
    assert float(first.read_out.weight.detach().abs().max()) <= 32**-0.5


def test_mask_row_stays_zero_and_unused_positions_stay_put():
    stack, generator = Replicas([small(config=replace(SMALL, positions=20))]), torch.Generator().manual_seed(0)
    before = stack.weights()["embeddings.position_embeddings.weight"]
    for _ in range(3):
        batch = sample(DATA, 8, generator)
        stack.adam(stack.differentiate(partial(objective, Config()), *(part[None] for part in batch))[0], 1e-2)
    after = stack.weights()
    assert after["embeddings.word_embeddings.weight"][0, 0].abs().max() == 0
    assert torch.equal(after["embeddings.position_embeddings.weight"][0, 16:], before[0, 16:])
    assert not torch.equal(after["embeddings.position_embeddings.weight"][0, :16], before[0, :16])


def test_further_positions_serve_larger_matrices():
    model, larger = (
        small(config=replace(SMALL, positions=20)),
        sample(replace(DATA, sizes=[[4, 5]]), 8, torch.Generator()),
    )
    assert model(larger.ids).shape == (8, 20)
    with pytest.raises(RuntimeError):
        small()(larger.ids)


def test_key_biases_do_not_matter():
    model, ids = small(), sample(DATA, 8, torch.Generator().manual_seed(0)).ids
    before = model(ids)
    for layer in model.encoder["layer"]:
        layer.attention.self.key.bias.data += torch.randn(32)
    torch.testing.assert_close(model(ids), before, atol=1e-5, rtol=1e-5)


def test_hook_sees_every_site_and_an_idle_one_changes_nothing():
    model, ids, sites = small(), sample(DATA, 8, torch.Generator().manual_seed(0)).ids, []
    shapes = {}

    def idle(site, layer, value):
        sites.append((site, layer))
        shapes[site] = tuple(value.shape)
        return value

    assert torch.equal(model(ids, idle), model(ids))
    assert sites == [("embedding", -1)] + [(s, l) for l in range(3) for s in ("attention", "heads", "hidden")]  # noqa: E741
    assert shapes == {
        "embedding": (8, 16, 32),
        "attention": (8, 4, 16, 16),
        "heads": (8, 4, 16, 8),
        "hidden": (8, 16, 32),
    }


def test_losses_equal_boolean_indexing_and_add_up():
    batch = sample(DATA, 64, torch.Generator().manual_seed(0))
    output = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    loss, metrics = bert_losses(output, batch.target, batch.observed)
    error, shown = (output - batch.target).square(), batch.observed
    literal = torch.stack([error.mean(), error[shown].mean(), error[~shown].mean(), output[~shown].abs().mean()])
    means = metrics[:, 0] / metrics[:, 1]
    torch.testing.assert_close(means, literal)
    share = shown.float().mean()
    torch.testing.assert_close(loss, share * means[1] + (1 - share) * means[2])


def test_losses_of_a_stack_are_those_of_its_replicas():
    batch = sample(DATA, 64, torch.Generator().manual_seed(0))
    output = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(1))
    stacked = bert_losses(output, *(torch.stack([part, part.flip(0)]) for part in (batch.target, batch.observed)))
    alone = [bert_losses(output[0], *batch[1:]), bert_losses(output[1], *(part.flip(0) for part in batch[1:]))]
    for ours, theirs in zip(stacked, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs))


@pytest.mark.parametrize("group", GROUPS)
def test_component_groups_are_told_by_the_parameters_names(group):
    names = component(small(), group)
    assert names
    wanted = {
        "token": lambda n: "word" in n,
        "position": lambda n: "position" in n,
        "embedding": lambda n: n.startswith("embeddings"),
        "attention": lambda n: ".attention." in n,
        "qkv": lambda n: any(f"self.{x}." in n for x in ("query", "key", "value")),
        "mlp": lambda n: n.startswith("encoder") and "attention" not in n,
        "readout": lambda n: n.startswith("read_out"),
        "all": lambda n: True,
        "all but attention": lambda n: ".attention." not in n,
    }[group]
    assert names == {n for n, _ in small().named_parameters() if wanted(n)}


def test_heads_that_do_not_divide_the_width_are_told():
    with pytest.raises(ValueError, match="n_head 5 does not divide model.hidden_size 32"):
        Model(hidden_size=32, n_head=5)
