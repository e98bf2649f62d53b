"""The bench compares like with like: same minibatches, same steps, same predictors, FLOP counted right. No speed is judged."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from common.replicas import Replicas
from icl_landscape import bench, train
from icl_landscape.regression.baselines import ridge
from icl_landscape.regression.data import TRUE, Data, sample
from icl_landscape.regression.gradient import by_hand
from icl_landscape.regression.losses import objective
from icl_landscape.regression.model import Model
from icl_landscape.sgmcmc.chains import Chains
from icl_landscape.sgmcmc.settings import Sampling
from icl_landscape.train import Config, Train

CPU = torch.device("cpu")
KEYS = {"name", "ours", "other", "unit", "ratio", "target", "machine_share"}
TINY = Config(
    preset="smoke", seeds=[3], data=Data(K=4), model=Model(d=16, heads=2, d_mlp=24), train=Train(steps=8, batch=16)
)
CHAINS = Sampling(epsilon=1e-4, gamma=100.0, batch=8, chains=2)


def assert_rows(rows: list[dict], *targets: float) -> None:
    assert all(set(row) == KEYS and row["ours"] > 0 and row["other"] > 0 for row in rows)
    assert [row["target"] for row in rows] == list(targets)
    assert len({row["name"] for row in rows}) == len(rows)


def plain_update(params, grads, centre, learning_rate, nbeta, localization) -> None:
    """As canonical-interp's, on stacked parameters."""
    for name, p in params.items():
        drift = grads[name] * nbeta + localization * (p - centre[name])
        p.data.add_(drift, alpha=-learning_rate / 2).add_(torch.randn_like(p), alpha=learning_rate**0.5)


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)


@pytest.fixture
def still(monkeypatch):
    """Without noise every sampler walks the same way."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(Chains, "_noise", lambda self: torch.zeros_like(self.sampler.flat))


def test_without_noise_all_samplers_see_the_same_losses(eager, still):
    where = TINY, CHAINS, CPU
    ours, looped = bench.our_chains(*where), bench.looped_chains(*where, bench.LiteralSgld)
    vmapped = bench.vmapped_chains(*where, plain_update)
    seen = []
    for _ in range(20):
        losses = ours()
        seen.append(losses.clone())
        torch.testing.assert_close(losses, looped(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(losses, vmapped(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0], seen[-1], rtol=1e-2) and not torch.equal(*seen[0])


def test_literal_sgld_has_the_noise_and_pull_of_langevin():
    weight = torch.nn.Parameter(torch.zeros(100_000))
    optimiser = bench.LiteralSgld([weight], lr=0.01, nbeta=3.0, localization=50.0)
    weight.data += 2.0
    weight.grad = torch.full_like(weight, 4.0)
    optimiser.step()
    assert weight.mean().item() == pytest.approx(2 - 0.005 * (3 * 4 + 50 * 2), abs=2e-3)
    assert weight.std().item() == pytest.approx(0.1, rel=0.02)


def test_the_literal_loop_trains_as_train_py_does():
    ours, other = bench.our_step(TINY, CPU), bench.literal_step(TINY, CPU)
    pairs = torch.stack([torch.stack([ours()[0, 0], other()]) for _ in range(TINY.train.steps)], 1)
    torch.testing.assert_close(*pairs, rtol=1e-4, atol=1e-4)


def test_the_step_timed_is_that_of_training(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "step", lambda settings, state: seen.append((settings, len(state.replicas))))
    bench.our_step(replace(TINY, seeds=[0, 1]), CPU)()
    assert seen == [(replace(TINY, seeds=[0, 1]), 2)]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("shortcuts", [*product([True, False], repeat=2)], ids=str)
@pytest.mark.parametrize(
    "config", [Model(d=16, heads=2, d_mlp=24), Model(d=8, heads=4, layers=3, include_output=False)]
)
def test_flop_of_a_gradient_are_what_torch_counts(config, shortcuts, batched):
    model, data = replace(config, drop_last_y=shortcuts[0], last_block_at_x=shortcuts[1]), Data(D=3, K=5)
    replicas = Replicas(
        [train.build(replace(TINY, model=model, data=data), seed) for seed in range(2)], batched=batched
    )
    batch = sample(data, TRUE, 12, torch.Generator().manual_seed(0))
    x, y = (part.unflatten(0, (2, 6)) for part in batch[:2])
    with FlopCounterMode(display=False) as counter:
        replicas.differentiate(objective, x, y)
    assert counter.get_total_flops() == 12 * bench.step_flops(model, data)


def test_flop_of_the_gradient_by_hand_are_what_torch_counts_but_for_what_no_sequence_adds_to():
    replicas, counts = Replicas([train.build(Config(), 0)]), []
    for batch in (100, 200):
        x, y, _ = sample(Data(), TRUE, batch, torch.Generator().manual_seed(0))
        with FlopCounterMode(display=False) as counter:
            by_hand(replicas, Model())(replicas.flat, (x[None], y[None]))
        counts.append(counter.get_total_flops())
    assert counts[1] - counts[0] == 100 * bench.step_flops(Model(), Data(), by_hand=True)


@pytest.mark.parametrize("data", [Data(), Data(D=2, K=5, sigma2=0.5)], ids=str)
def test_all_forms_of_ridge_predict_the_same(data):
    x, y, _ = sample(data, TRUE, 7, torch.Generator().manual_seed(0))
    ours, *others = (f(x, y, data.sigma2) for f in (ridge, bench.looped_ridge, bench.positional_ridge))
    for other in others:
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


# Peers


def test_where_no_peer_is_installed_the_loop_takes_their_place_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(bench, "devinterp_optimiser", lambda: (_ for _ in ()).throw(ImportError("no devinterp")))
    monkeypatch.setattr(bench, "canonical_update", lambda: (_ for _ in ()).throw(ImportError("no canonical")))
    rows = bench.sampling_rows(TINY, CHAINS, CPU, 1e9, 2)
    assert_rows(rows, 2.0)
    assert "neither peer is installed" in rows[0]["name"]
    assert "left out devinterp: no devinterp" in capsys.readouterr().err
    assert rows[0]["machine_share"] == pytest.approx(
        rows[0]["ours"] * 8 * bench.step_flops(TINY.model, TINY.data, by_hand=True) / 1e9
    )


def test_every_peer_that_is_there_has_a_row_with_its_version(monkeypatch, eager):
    monkeypatch.setattr(bench, "devinterp_optimiser", lambda: bench.LiteralSgld)
    monkeypatch.setattr(bench, "canonical_update", lambda: plain_update)
    monkeypatch.setattr(
        bench.importlib.metadata, "version", lambda name: {"devinterp": "2", "canonical-interp": "0"}[name]
    )
    rows = bench.sampling_rows(TINY, CHAINS, CPU, 1e9, 2)
    assert_rows(rows, 2.0, 2.0)
    assert [row["name"].split("beside ")[1] for row in rows] == ["devinterp 2", "canonical-interp 0"]


# Rows


def test_rows_of_training_and_ridge():
    rows = bench.training_rows(TINY, CPU, 1e9, 2, seeds=2)
    assert_rows(rows, 1.0, 1.0, 1.0)
    work = 16 * bench.step_flops(TINY.model, TINY.data) / 1e9
    for row, count in zip(rows, (2, 1, 1), strict=True):
        assert row["machine_share"] == pytest.approx(count * work / (row["ours"] / 1e3))
    assert_rows(bench.ridge_rows(TINY.data, CPU, 2, 8), 20.0, 1.0)
