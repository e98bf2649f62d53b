"""Reading a run back: curves end where a replica stopped, models are those of the step, wrong questions are told."""

import importlib

import numpy as np
import pytest
import torch

from common import config
from common.config import UserError
from layernorm_grok.analysis._lives import along, from_on, looked_at
from layernorm_grok.evaluate import Probe, Trained
from layernorm_grok.grid import Grid
from layernorm_grok.losses import cross_entropy
from layernorm_grok.train import Config, main
from tests.layernorm_grok.conftest import SMOKE
from tests.papers import flags


def test_a_model_read_back_has_the_test_loss_of_the_record(smoke_run):
    trained = Trained(smoke_run, "cpu")
    for cell in ("off", "pre", "attn-pre-v"):
        steps, losses = trained.curves(cell, "test_loss")
        rows = trained.pairs[2][1]
        loss = cross_entropy(trained.model(cell, 2, 60)(rows).logits, trained.targets[rows]).mean()
        assert float(loss) == pytest.approx(losses[2][list(steps).index(60)], rel=1e-5)


def test_a_stopped_replica_is_as_it_stopped_and_its_curve_ends(tmp_path):
    values = {"root": str(tmp_path), "device": "cpu", "train.level": 0.02, "train.in_a_row": 1, "train.stop_after": 2}
    settings = config.parse(Config, [f"--config={SMOKE}", *flags(values)])
    main(settings)
    trained = Trained(settings.folder, "cpu")
    stopped = [
        (cell, seed, trained.last_step(cell, seed)) for cell in trained.cells for seed in trained.seeds
        if trained.last_step(cell, seed) < 60
    ]  # fmt: skip
    assert stopped
    cell, seed, last = stopped[0]
    steps, accuracy = trained.curves(cell, "test_accuracy")
    row = accuracy[trained.seeds.index(seed)]
    end = int(steps[np.isfinite(row)][-1])
    assert np.isnan(row[steps > end]).all()
    rows = trained.pairs[seed][1]
    model = trained.model(cell, seed, 60)
    right = (model(rows).logits.argmax(1) == trained.targets[rows]).float().mean()
    assert float(right) == pytest.approx(row[list(steps).index(end)], abs=1e-6)
    assert trained.checkpoints_of(cell, seed)[-1] == last


SWEEP = {"grid.placement": '["off"]', "grid.lr": "[4e-3]", "seeds": "[0, 1]", "device": "cpu", "train.steps": "20"}


def trained_sweep(root, name, **grid):
    values = SWEEP | {"root": str(root), "name": name} | {f"grid.{key}": value for key, value in grid.items()}
    settings = config.parse(Config, [f"--config={SMOKE}", *flags(values)])
    main(settings)
    return Trained(settings.folder, "cpu")


def test_a_borrowed_cell_is_the_one_that_the_sweep_would_have_trained(tmp_path):
    trained_sweep(tmp_path, "decays", weight_decay="[0.5, 1.0]")
    rule = {"decay_rule": "[constant_product]", "lr_reference": "4e-3"}
    whole = trained_sweep(tmp_path, "whole", lr="[2e-3, 4e-3, 8e-3]", **rule)
    lent = trained_sweep(tmp_path, "lent", lr="[2e-3, 8e-3]", borrow='{"lr=0.004": "decays/weight_decay=1"}', **rule)
    assert list(lent.cells.items()) == list(whole.cells.items())
    assert list(lent.own) == ["lr=0.002", "lr=0.008"]
    for name in whole.cells:
        for key in ("test_loss", "update_norm", "train_accuracy"):
            for ours, theirs in zip(lent.curves(name, key), whole.curves(name, key), strict=True):
                assert np.array_equal(ours, theirs)
        assert lent.checkpoints_of(name, 1) == whole.checkpoints_of(name, 1)
        ours, theirs = (run.model(name, 1, 20).state_dict() for run in (lent, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_cell_borrowed_from_a_run_with_other_settings_is_told(tmp_path):
    trained_sweep(tmp_path, "decays", weight_decay="[0.5, 1.0]", lr="[2e-3]")
    lent = trained_sweep(tmp_path, "lent", alpha="[0.5, 1.5]", borrow='{"alpha=1": "decays/weight_decay=1"}')
    with pytest.raises(UserError, match="weight_decay=1 of .*decays with other settings than alpha=1 of .*lent"):
        lent.curves("alpha=1", "test_loss")
    for there in ("decays/weight_decay=3", "nowhere/weight_decay=1"):
        lent = trained_sweep(tmp_path, there[:3], alpha="[0.5, 1.5]", borrow=f'{{"alpha=1": "{there}"}}')
        with pytest.raises(UserError, match="found no"):
            lent.curves("alpha=1", "test_loss")


@pytest.mark.parametrize(
    "borrow", [{"lr=0.002": "a/b"}, {"alpha=1": "a/b"}, {"lr=x": "a/b"}, {"lr=-1": "a/b"}, {"lr=1": "a"}]
)
def test_what_cannot_be_borrowed_is_told(borrow):
    with pytest.raises(ValueError, match="expected"):
        Grid(lr=[2e-3, 8e-3], borrow=borrow)


def test_wrong_questions_are_told(smoke_run, tmp_path):
    trained = Trained(smoke_run, "cpu")
    with pytest.raises(UserError, match="found no cell 'prae'.*pre"):
        trained.cell("prae")
    with pytest.raises(UserError, match=r"no seed 7.*\[0, 1, 2\]"):
        trained.model("pre", 7, 60)
    with pytest.raises(UserError, match="found no run"):
        Trained(tmp_path / "nowhere")


def test_an_analysis_without_the_checkpoints_it_needs_is_told(tmp_path):
    values = {
        "root": str(tmp_path),
        "device": "cpu",
        "train.steps": 4,
        "train.save_every": 4,
        "grid.placement": ["off"],
    }
    settings = config.parse(Config, [f"--config={SMOKE}", *flags(values)])
    main(settings)
    with pytest.raises(UserError, match="--train.save_every") as error:
        along(Trained(settings.folder, "cpu"), Probe(), lambda *_: {}, "a curve")
    assert len(str(error.value).splitlines()) <= 2


def test_the_subtracted_start_is_that_of_training(tmp_path):
    values = {
        "root": str(tmp_path),
        "device": "cpu",
        "train.steps": 6,
        "train.save_every": 2,
        "train.subtract_init": True,
    }
    settings = config.parse(Config, [f"--config={SMOKE}", *flags(values)])
    main(settings)
    trained = Trained(settings.folder, "cpu")
    rows = trained.pairs[0][1]
    logits = trained.model("pre", 0, 6)(rows).logits - trained.offset("pre", 0, rows)
    steps, losses = trained.curves("pre", "test_loss")
    assert float(cross_entropy(logits, trained.targets[rows]).mean()) == pytest.approx(
        losses[0][list(steps).index(6)], rel=1e-5
    )


def test_the_checkpoint_after_a_step_is_looked_at_too():
    steps = list(range(0, 1000, 50))
    assert 300 in looked_at(steps, 3, 270) and 300 not in looked_at(steps, 3, None)
    assert looked_at(steps, 3, 2000) == looked_at(steps, 3, None)
    curve = {"steps": [0, 300, 950], "drift": [0.0, 7.0, 9.0]}
    assert from_on(curve, "drift", 270) == 7.0 and from_on(curve, "drift", None) is None


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("ntk", ["--points=1"], "points"),
        ("ntk", ["--kinds=[sum]"], "projected"),
        ("hessian", ["--top=0"], "top"),
        ("readout_identity", ["--alphas=[0.0]"], "alphas"),
        ("readout_identity", ["--alphas=[]"], "alphas"),
    ],
)
def test_settings_of_an_analysis_that_cannot_work_are_told(name, flags, words):
    with pytest.raises(UserError, match=words):
        config.parse(importlib.import_module(f"layernorm_grok.analysis.{name}").Settings, flags)


def test_points_are_spread_with_both_ends():
    assert looked_at([0, 1, 2], 5) == [0, 1, 2]
    spread = looked_at(list(range(101)), 5)
    assert spread[0] == 0 and spread[-1] == 100 and len(spread) == 5
