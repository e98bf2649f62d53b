"""LLCs of checkpoints: the glue between runs and chains, and the claim on tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from common import experiment
from common.config import UserError
from common.replicas import Replicas
from icl_landscape.analysis import llc
from icl_landscape.analysis._llc import (
    Landscape,
    findings,
    loss_of,
    measure,
    over_checkpoints,
    sharpest,
    told,
    weights_of,
)
from icl_landscape.evaluate import Trained
from icl_landscape.regression.gradient import by_hand
from icl_landscape.regression.losses import objective, subsequence_mse, token_losses
from icl_landscape.sgmcmc.settings import Sampling

SAMPLING = Sampling(epsilon=1e-5, nbeta=50.0, gamma=100.0, chains=2, draws=4, batch=16, reference="paired")
SETTINGS = Landscape(sampling=SAMPLING, sharpness=8, iterations=4)


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_checkpoints_together_are_as_one_by_one(trained):
    steps = trained.steps[-2:]
    together = measure(trained, SETTINGS, 1, steps)
    alone = [measure(trained, SETTINGS, 1, [step]) for step in steps]
    torch.testing.assert_close(
        together.estimate.mean, torch.cat([m.estimate.mean for m in alone]), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(together.sharpness, torch.cat([m.sharpness for m in alone]), rtol=1e-4, atol=1e-4)


def test_the_first_paired_draw_is_exactly_0(trained):
    settings = replace(SETTINGS, sampling=replace(SAMPLING, draws=1, burn_in=0))
    assert measure(trained, settings, 0, trained.steps[-1:]).estimate.mean.tolist() == [0.0]


@pytest.mark.parametrize("samples", [0, 64])
def test_paired_and_full_references_agree_on_average(trained, samples):
    """Full: the loss of w* on other sequences, so that the two differ by the noise of minibatches alone."""
    sampling = replace(SAMPLING, draws=60, batch=32)
    paired, full = (
        measure(
            trained,
            replace(SETTINGS, samples=samples, reference=4096, sampling=replace(sampling, reference=kind)),
            0,
            trained.steps[-1:],
        )
        for kind in ("paired", "full")
    )
    # 60 draws of 32 with nbeta 50: 50 x 6 / sqrt(1920) = 7 for one chain, with 6 the spread of a sequence's loss
    assert float(paired.estimate.mean) == pytest.approx(float(full.estimate.mean), abs=20)
    assert float(full.estimate.error) > float(paired.estimate.error)


def test_subsequence_parts_have_the_subsequence_loss_as_mean(trained):
    model, batch = trained.model(0, 0), trained.sequences(9)
    value, parts = loss_of(replace(SETTINGS, loss="subsequence"))(model, batch.x[0], batch.y[0])
    expected = subsequence_mse(token_losses(model(batch.x[0], batch.y[0]), batch.y[0]))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(parts.mean(-1), expected)


def test_sharpest_is_the_largest_eigenvalue(trained):
    model, batch = trained.model(2, trained.steps[-1]).double(), trained.sequences(12)
    x, y = batch.x[0].double(), batch.y[0].double()
    params = dict(model.named_parameters())
    leaf = {n: p.detach().requires_grad_() for n, p in params.items()}
    loss = objective(lambda *inputs: functional_call(model, leaf, inputs), x, y)[0]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaf.values()), create_graph=True)])
    v = torch.randn(len(gradient), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for _ in range(150):
        v = v / v.norm()
        image = torch.cat(
            [g.flatten() for g in torch.autograd.grad(gradient, list(leaf.values()), v, retain_graph=True)]
        )
        eigenvalue, v = float(v @ image), image
    stack = Replicas([model, model])
    found = sharpest(stack, objective, x, y, 150)
    np.testing.assert_allclose(found.numpy(), [eigenvalue] * 2, rtol=1e-3)


def test_a_step_size_per_checkpoint_follows_the_sharpness(trained):
    m = measure(trained, replace(SETTINGS, stability=0.4), 0, trained.steps[-2:])
    torch.testing.assert_close(m.epsilon, 0.4 / (50 * m.sharpness + 100))
    torch.testing.assert_close(m.health.stability, torch.full((2,), 0.4).double(), rtol=1e-4, atol=0)


def test_a_stability_without_sharpness_is_refused():
    with pytest.raises(ValueError, match="found stability 0.4 and sharpness 0"):
        Landscape(stability=0.4, sharpness=0)


def test_too_large_a_step_is_told_as_diverged_and_left_out(trained):
    settings = replace(SETTINGS, sampling=replace(SAMPLING, epsilon=1.0, draws=30))
    steps = trained.steps[-1:]
    parts = over_checkpoints(trained, settings, steps)
    rows = [row for seed in trained.seeds for row in findings(seed, steps, parts[seed])]
    assert {"diverged", "unstable step"} <= {row["kind"] for row in rows}
    assert all(
        row["step"] == steps[0] and row["change"].startswith("lower epsilon")
        for row in rows
        if row["kind"] == "diverged"
    )
    assert np.isnan(told(parts[0])["llc"]).all()


def test_a_result_with_diverged_chains_is_written_drawn_and_told_in_words(study_of, capsys):
    run = study_of("icl_landscape") / "main"
    sampling = replace(SAMPLING, epsilon=1.0, draws=30)
    settings = llc.Settings(
        run=str(run), device="cpu", threads=1, points=2, sharpness=8, iterations=2, sampling=sampling
    )
    experiment.perform(llc, "llc_broken", settings)
    result = json.loads((run / "results" / "llc_broken.json").read_text())
    assert result["llc"][0][-1] is None and result["findings"]
    assert "diverged" in capsys.readouterr().out


def test_restricted_chains_move_what_they_are_told_to(trained):
    settings = replace(SETTINGS, sampling=replace(SAMPLING, include=["unembedding.*"], draws=5))
    whole, part = (measure(trained, s, 0, trained.steps[-1:]) for s in (SETTINGS, settings))
    assert float(part.trace.norm[0]) < float(whole.trace.norm[0])


def made(tokens, gamma=6.67) -> dict:
    found = {"seed": 0, "step": 5, "kind": "saturated", "words": "sampled loss 4.1", "change": "raise gamma"}
    return {
        "tokens": [[[0.0] * 8, list(tokens)]] * 3, "saturation": [[None, 0.4]] * 3, "findings": [found],
        "loss_correlation": [0.999, None, 0.99], "settings": {"sampling": {"gamma": gamma}},
    }  # fmt: skip


RISING = (13, 81, 139, 182, 211, 231, 244, 253)


@pytest.mark.parametrize(
    ("tokens", "verdict"),
    [
        (RISING, "reproduced"),
        ((13, 81, 139, 182, 211, 231, 244, 243), "contradicted"),
        ((130, 131, 139, 182, 211, 231, 244, 253), "contradicted"),
    ],
)
def test_c15_wants_a_rise_at_every_token_and_a_threefold_one_in_all(tokens, verdict):
    claim, local = llc.CLAIMS[0], made(RISING, 1500)
    assert claim.verdict(claim.values(made(tokens), local)) == verdict
    note = claim.note(made(tokens), local)
    assert "40% to 40%" in note and "100% above 30%" in note and "0.99000" in note and "raise gamma" in note


def test_correlation_is_1_where_the_llc_repeats_the_loss():
    losses = [4.1, 3.0, 2.2]
    assert llc.correlation([66 * (4.4 - v) for v in losses], losses) == pytest.approx(1)
    assert llc.correlation([1.0, None, None], losses) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"include": ["nothing"]}, "found the pattern nothing, .*; give other --sampling.include"),
        ({"exclude": ["**"]}, "found no weight in sampling.include"),
        ({"chains": 10**8}, "found sampling that needs .* GiB on cpu, expected at most"),
    ],
)
def test_sampling_that_cannot_be_is_refused_in_words(trained, changes, words):
    with pytest.raises(UserError, match=words):
        measure(trained, replace(SETTINGS, sampling=replace(SAMPLING, **changes)), 0, trained.steps[-1:])


def test_settings_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="found sampling.batch 0 .* and samples 0"):
        Landscape(sampling=replace(SAMPLING, batch=0))
    with pytest.raises(ValueError, match="expected sgld without a box, or acceptance 0"):
        Landscape(acceptance=2, sampling=replace(SAMPLING, method="sgnht"))


@pytest.mark.parametrize("loss", ["mse", "subsequence"])
def test_chains_descend_the_loss_that_they_tell(trained, loss):
    """The gradient by hand that chains take is autograd's of `loss_of`, for either loss."""
    settings = replace(SETTINGS, loss=loss)
    stack = Replicas([trained.model(0, trained.steps[-1])])
    batch = trained.sequences(7)
    parts, gradient = by_hand(stack, trained.config.model, weights_of(settings, torch.ones(8)))(
        stack.flat, (batch.x[:1], batch.y[:1])
    )
    expected, value, told = stack.differentiate(loss_of(settings), batch.x[:1], batch.y[:1])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts, told)
    torch.testing.assert_close(parts.mean(1), value)
