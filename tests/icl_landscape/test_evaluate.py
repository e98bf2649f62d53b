"""Reading runs back, and what predictions do along training."""

import numpy as np
import pytest
import torch

from common.config import UserError
from icl_landscape.analysis import behaviour
from icl_landscape.analysis._curves import along
from icl_landscape.evaluate import Probe, Trained, looked_at, predict, repeated
from icl_landscape.regression.baselines import ridge


@pytest.fixture(scope="module")
def trained(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_looked_at_keeps_both_ends_and_no_step_twice():
    steps = [*range(20), 30, 50, 100, 1000]
    for points in range(2, 30):
        chosen = looked_at(steps, points)
        assert chosen[0] == 0 and chosen[-1] == 1000
        assert chosen == sorted(set(chosen)) and len(chosen) == min(points, len(steps))
    assert looked_at(steps, 4) == [0, 30, 100, 1000]


def test_a_stack_predicts_as_its_models_do(trained):
    steps = trained.steps[:2]
    batch = trained.sequences(5)
    together = predict(trained.stack(steps), repeated(batch, 2)).unflatten(0, (2, 3))
    for i, step in enumerate(steps):
        for j, seed in enumerate(trained.seeds):
            alone = trained.model(seed, step)(batch.x[j], batch.y[j])
            torch.testing.assert_close(together[i, j], alone, rtol=1e-5, atol=1e-6)


def test_sequences_have_the_same_inputs_and_noise_for_all_seeds_and_both_laws(study_of):
    run = Trained(study_of("icl_landscape") / "tasks2", "cpu", 1)
    own, true = run.sequences(6), run.sequences(6, "true")
    assert torch.equal(own.x[0], own.x[1]) and torch.equal(own.x, true.x)
    assert not torch.equal(own.task[0], own.task[1]) and torch.equal(true.task[0], true.task[1])
    noise = own.y - (own.x * own.task[:, :, None]).sum(-1)
    torch.testing.assert_close(noise, true.y - (true.x * true.task[:, :, None]).sum(-1), rtol=1e-4, atol=1e-5)


def test_a_missing_step_or_seed_is_named(trained):
    with pytest.raises(
        UserError, match=r"found no checkpoint of step 7 in .*, expected steps of 0, 1, .*; give other --at"
    ):
        Probe(at=[7, 0]).steps(trained)
    with pytest.raises(UserError, match="found no seed 9"):
        trained.model(9, 0)


def test_along_gives_every_seed_its_own_curve(trained):
    curves = along(trained, trained.steps, lambda stack, times: {"first": stack.flat[:, :2]})
    assert np.shape(curves["first"]) == (3, len(trained.steps), 2)
    weights = trained.stack([trained.steps[-1]]).flat[:, :2]
    np.testing.assert_allclose(np.asarray(curves["first"])[:, -1], weights.numpy())


def test_behaviour_is_what_the_literal_formulas_say(trained):
    settings = behaviour.Settings(points=2, sequences=64, scales=[5.0])
    result = behaviour.analyse(trained, settings)
    batch, model = trained.sequences(64), trained.model(1, trained.steps[-1])
    x, y = batch.x[1], batch.y[1]
    told = model(x, y)
    assert result["prior_score"][1][-1] == pytest.approx(told.square().mean().item(), rel=1e-5)
    far = (told - ridge(x, y, 0.125)).square().mean().item()
    assert result["delta_ridge"][1][-1] == pytest.approx(far, rel=1e-5)
    # Inputs five times larger, y of the same noise; the loss is divided by g
    larger, task = 5 * x, batch.task[1]
    noise = y - (x * task[:, None]).sum(-1)
    goal = (larger * task[:, None]).sum(-1) + noise
    literal = (model(larger, goal) - goal).square().mean(0) / 5
    np.testing.assert_allclose(result["inputs_x5"][1][-1], literal.numpy(), rtol=1e-3)
    assert result["trivial"] == 4.125


def test_finite_sets_have_both_baselines(study_of):
    run = Trained(study_of("icl_landscape") / "tasks4", "cpu", 1)
    result = behaviour.analyse(run, behaviour.Settings(points=2, sequences=64, scales=[5.0]))
    assert set(result["baselines"]) == {"ridge", "dmmse"} and "delta_dmmse" in result
    assert np.mean(result["baselines"]["dmmse"]) < np.mean(result["baselines"]["ridge"])


STEPS = [0, 10, 20, 40, 80]


def made(
    prior=(0.5, 0.05, 0.4, 1.5, 2.2), gains=(0, 0, -1.2, -2, -3.5), ridge=(3, 2.5, 1.5, 0.8, 0.3), norm=None
) -> dict:
    """A result of three alike seeds; the gain comes from tokens 2 to 4 first, the rest at the last two checkpoints."""
    losses = []
    for g in gains:
        early = max(g, -2.0)
        losses.append([4.0, 4 + early / 2, 4 + early / 2, 4 + early, *[4 + early + (g - early) / 2] * 3, 4.0 + g])
    return {
        "steps": STEPS, "sigma2": 0.125, "prior_score": [list(prior)] * 3, "token_losses": [losses] * 3,
        "delta_ridge": [list(ridge)] * 3, "weight_norm": [list(norm or (25, 25.1, 25.5, 26, 30))] * 3,
        "inputs_x5": [losses] * 3, "inputs_x10": [losses] * 3,
    }  # fmt: skip


def verdict(claim: str, result: dict) -> str:
    claim = next(c for c in behaviour.CLAIMS if c.id == claim)
    return claim.verdict(claim.values(result))


def test_c3_wants_the_prior_below_the_noise_before_icl_and_above_later():
    assert verdict("C3", made()) == "reproduced"
    assert verdict("C3", made(prior=(0.5, 0.2, 0.4, 1.5, 2.2))) == "contradicted", "never below sigma^2"
    assert verdict("C3", made(prior=(0.5, 0.3, 0.05, 1.5, 2.2))) == "contradicted", "not before ICL"
    assert verdict("C3", made(prior=(0.5, 0.05, 0.4, 1.5, 1.6))) == "contradicted", "does not rise"


def test_c4_wants_icl_at_the_end_and_none_at_the_prior():
    assert verdict("C4", made()) == "reproduced"
    assert verdict("C4", made(gains=(0, 0, -0.2, -0.4, -0.9))) == "contradicted"
    assert verdict("C4", made(gains=(0, -1.5, -2, -2.5, -3))) == "contradicted"


def test_c5_wants_early_tokens_first():
    assert verdict("C5", made()) == "reproduced"
    late = made()
    late["token_losses"] = [[[row[0], *[row[0] + (i == 4) * -2.0] * 3, *row[4:7], row[7] - 0.5 * (i == 4)]
                             for i, row in enumerate(seed)] for seed in late["token_losses"]]  # fmt: skip
    assert verdict("C5", late) != "reproduced"
    assert verdict("C5", made(gains=(0, 0, 0, 0, 0))) == "contradicted"


def test_c6_wants_larger_inputs_worse_at_the_end_while_the_loss_falls():
    result = made()
    worse = [[[4.0] * 8, [4.0] * 8, [4.0] * 7 + [0.0], [4.0] * 7 + [1.0], [4.0] * 7 + [2.0]]] * 3
    assert verdict("C6", result | {"inputs_x5": worse, "inputs_x10": worse}) == "reproduced"
    assert verdict("C6", result) == "contradicted"
    assert verdict("C6", result | {"inputs_x5": worse}) == "contradicted"


def test_c13_allows_a_small_fall_alone():
    assert verdict("C13", made()) == "reproduced"
    assert verdict("C13", made(norm=(25, 24.9, 25.5, 26, 30))) == "reproduced"
    assert verdict("C13", made(norm=(25, 27, 26, 28, 30))) == "contradicted"
    assert verdict("C13", made(norm=(25, 25, 25, 25, 24.9))) == "contradicted"


def test_c14_wants_a_fall_to_half_without_a_rise():
    assert verdict("C14", made()) == "reproduced"
    assert verdict("C14", made(ridge=(3, 2.5, 1.5, 2.0, 0.3))) == "contradicted"
    assert verdict("C14", made(ridge=(3, 2.5, 2.4, 2.3, 2.2))) == "contradicted"
