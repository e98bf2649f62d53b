"""GPT: causal, cached generation equals recomputation, equal to the stock GPT-2."""

import pytest
import torch

from abrupt_learning.data import Data, sample
from abrupt_learning.gpt import Gpt, accuracy, generate, next_token_losses, separator, sequence
from abrupt_learning.model import Model

DATA = Data(sizes=[[4, 4]], rank=1, precision=1, limit=1.0)


def small(attention: str = "softmax") -> Gpt:
    config = Model(kind="gpt", hidden_size=32, n_layer=2, n_head=2, init_std=0.3, attention=attention)
    return Gpt(config, DATA.vocabulary, DATA.cells, torch.Generator().manual_seed(0))


def batch(number: int = 6):
    return sample(DATA, number, torch.Generator().manual_seed(0))


def test_sequence_has_the_papers_layout():
    data = Data(limit=2.0)
    shown = sample(data, 5, torch.Generator().manual_seed(0))
    ids = sequence(shown, data)
    assert ids.shape == (5, 99)
    assert separator(data) == 404
    assert (ids[:, 49] == 404).all()
    assert torch.equal(ids[:, :49], shown.ids)
    torch.testing.assert_close((ids[:, 50:] - 201) / 100, shown.target)
    with torch.device("meta"):
        assert (
            Gpt(Model(kind="gpt", hidden_size=256, n_layer=2, n_head=2), data.vocabulary, 49).wpe.num_embeddings == 99
        )


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_later_tokens_do_not_change_earlier_logits(attention):
    model, ids = small(attention), sequence(batch(), DATA)
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 3) % DATA.vocabulary
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert (before[:, 20:] - after[:, 20:]).abs().amax() > 1e-3


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_cached_generation_equals_full_recomputation(attention):
    model, prompt = small(attention).double(), sequence(batch(), DATA)[:, :17]
    assert torch.equal(generate(model, prompt, 16), generate(model, prompt, 16, cached=False))


def test_equals_stock_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    ours = small()
    stock = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=ours.wte.num_embeddings,
            n_positions=33,
            n_embd=32,
            n_layer=2,
            n_head=2,
            tie_word_embeddings=False,
        )
    ).eval()
    state = {}
    for name, value in ours.state_dict().items():
        if name.startswith("lm_head"):
            state[name] = value
        else:
            transposed = name.startswith("h.") and name.endswith("weight") and "ln" not in name
            state[f"transformer.{name}"] = value.T if transposed else value
    assert not stock.load_state_dict(state, strict=False).unexpected_keys
    ids = sequence(batch(), DATA)
    torch.testing.assert_close(ours(ids), stock(ids[:, :-1]).logits, atol=2e-5, rtol=1e-5)


def test_residual_projections_start_smaller():
    model = Gpt(Model(kind="gpt", hidden_size=256, n_layer=2, n_head=2), 402, 49, torch.Generator().manual_seed(0))
    assert float(model.h[0].mlp["c_proj"].weight.std()) == pytest.approx(0.02 / 2, rel=0.02)
    assert float(model.h[0].mlp["c_fc"].weight.std()) == pytest.approx(0.02, rel=0.02)
    assert model.lm_head.bias is None


def test_loss_covers_all_targets():
    ids = sequence(batch(), DATA)
    uniform = torch.zeros(6, 32, small().wte.num_embeddings)
    nats = next_token_losses(uniform, ids)
    assert nats.shape == (6, 32)
    torch.testing.assert_close(nats, torch.full_like(nats, float(torch.tensor(25.0).log())))


def test_accuracy_of_a_perfect_and_of_a_blind_writer(monkeypatch):
    shown = batch(64)
    truth = sequence(shown, DATA)[:, 17:]
    monkeypatch.setattr("abrupt_learning.gpt.generate", lambda *_: truth)
    assert set(accuracy(small(), shown, DATA).values()) == {0.0, 1.0}
    monkeypatch.setattr("abrupt_learning.gpt.generate", lambda *_: torch.zeros_like(truth))
    blind = accuracy(small(), shown, DATA)
    assert blind["accuracy_all"] == 0
    assert blind["mse_masked"] == pytest.approx(float(shown.target[~shown.observed].square().mean()))
