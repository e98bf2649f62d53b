"""Measures of attention on hand-made patterns, against literal loops and scipy; heads named by their patterns; the number of
C11 on made-up results."""

import numpy as np
import pytest
import scipy.stats
import torch

from common.config import UserError
from common.replicas import Replicas
from icl_landscape.analysis import attention as experiment
from icl_landscape.estimators import attention
from icl_landscape.estimators.attention import MEASURES
from icl_landscape.evaluate import Trained
from icl_landscape.regression.data import Data
from icl_landscape.regression.model import Model, Transformer

T = 7
ONES, ZEROS = torch.ones(T), torch.zeros(T)
K = torch.arange(1, T + 1.0)


def uniform() -> torch.Tensor:
    return torch.ones(T, T).tril() / K[:, None]


def previous() -> torch.Tensor:
    made = torch.diag(torch.ones(T - 1), -1)
    made[0, 0] = 1
    return made


def to_first() -> torch.Tensor:
    return torch.eye(T)[[0] * T]


def batch(*patterns: torch.Tensor) -> torch.Tensor:
    """Patterns, one per sequence, as the weights (B, 1, T, T) of one head."""
    return torch.stack(patterns)[:, None]


def random_weights(*shape: int, length: int = T) -> torch.Tensor:
    scores = 2 * torch.randn(*shape, length, length, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    return scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)


EVEN = (torch.arange(T) % 2 == 0).float()
BY_HAND = {
    "uniform": (uniform(), {"entropy": 1 - torch.eye(T)[0], "self": 1 / K, "previous": torch.where(K > 1, 1 / K, 0),
                            "x": torch.ceil(K / 2) / K, "mean_index": (K + 1) / (2 * K), "hardness": 1 / K}),
    "self": (torch.eye(T), {"entropy": ZEROS, "self": ONES, "previous": ZEROS, "x": EVEN, "mean_index": ONES,
                            "hardness": ONES}),
    "previous": (previous(), {"entropy": ZEROS, "self": torch.eye(T)[0], "previous": 1 - torch.eye(T)[0],
                              "x": torch.where(K > 1, 1 - EVEN, 1), "mean_index": torch.where(K > 1, (K - 1) / K, 1),
                              "hardness": ONES}),
    "first": (to_first(), {"entropy": ZEROS, "self": torch.eye(T)[0], "previous": torch.eye(T)[1], "x": ONES,
                           "mean_index": 1 / K, "hardness": ONES}),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_measures_of_patterns_by_hand(name):
    pattern, expected = BY_HAND[name]
    for key, values in {**expected, "variability": ZEROS}.items():
        found = MEASURES[key](batch(pattern, pattern, pattern))
        assert found.shape == (1, T)
        torch.testing.assert_close(found[0], values.to(pattern), atol=1e-6, rtol=0, msg=f"{key} of {name}")


def test_variability_of_opposite_patterns_is_a_half_and_tends_to_one():
    halves = attention.variability(batch(torch.eye(T), to_first()))[0]
    torch.testing.assert_close(halves, 0.5 * (1 - torch.eye(T)[0]))
    # Every sequence looks elsewhere: 1 - 1/B at the last token
    apart = [torch.eye(T)[[0] * (T - 1) + [j]] for j in range(T)]
    torch.testing.assert_close(attention.variability(batch(*apart))[0, -1], torch.tensor(1 - 1 / T))


def test_entropy_is_that_of_scipy_in_bits_over_that_of_equal_attention():
    weights = random_weights(5, 3)
    found = attention.entropy(weights)
    bits = scipy.stats.entropy(weights.numpy(), base=2, axis=-1).mean(0)
    assert np.allclose(found[:, 1:], bits[:, 1:] / np.log2(np.arange(2, T + 1)))
    assert np.all(found[:, 0].numpy() == 0)


def test_entropy_of_weights_that_underflow_is_finite():
    pattern = torch.eye(T)
    assert torch.equal(attention.entropy(batch(pattern, pattern)), torch.zeros(1, T))


def literal(name: str, weights: np.ndarray) -> np.ndarray:
    """A measure of (B, H, T, T), one number at a time: (H, T)."""
    B, H, length, _ = weights.shape
    found = np.zeros((H, length))
    for h in range(H):
        for k in range(length):
            rows = weights[:, h, k]
            for a in rows:
                others = [sum(row[j] for row in rows) / B for j in range(length)]
                found[h, k] += {
                    "variability": sum(abs(a[j] - others[j]) for j in range(length)) / 2,
                    "self": a[k],
                    "previous": a[k - 1] if k else 0.0,
                    "x": sum(a[j] for j in range(0, length, 2)),
                    "mean_index": sum((j + 1) * a[j] for j in range(length)) / (k + 1),
                    "hardness": max(a),
                }[name] / B
    return found


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "entropy"])
def test_measures_are_their_literal_versions(name):
    weights = random_weights(4, 2)
    assert np.allclose(MEASURES[name](weights), literal(name, weights.numpy()))


@pytest.mark.parametrize("name", MEASURES)
def test_a_stack_gives_what_its_rows_give(name):
    weights = random_weights(3, 5, 2)
    assert torch.allclose(MEASURES[name](weights), torch.stack([MEASURES[name](row) for row in weights]))


@pytest.mark.parametrize("name", MEASURES)
def test_no_measure_leaves_its_range(name):
    found = MEASURES[name](random_weights(6, 4))
    assert found.min() >= 0 and found.max() <= 1 + 1e-12


# --- on models and runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
def test_looking_at_a_stack_sees_every_block_of_every_model(batched):
    config = Model(d=12, heads=3, layers=2, d_mlp=8, last_block_at_x=False)
    models = [Transformer(config, Data(K=4), torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    x, y = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4)
    with torch.no_grad():
        predictions, *values = Replicas(models, batched=batched).each(experiment.look, x, y)
        for row, model in enumerate(models):
            seen = {}
            model(x[row], y[row], lambda site, layer, value, seen=seen: seen.setdefault((site, layer), value))
            torch.testing.assert_close(predictions[row], model(x[row], y[row]))
            for layer in (0, 1):
                expected = MEASURES["hardness"](seen["attention", layer])
                found = dict(zip(MEASURES, values, strict=True))["hardness"]
                torch.testing.assert_close(found[row, layer], expected)


@pytest.fixture(scope="module")
def smoke(study_of) -> Trained:
    return Trained(study_of("icl_landscape") / "main", "cpu")


@pytest.fixture(scope="module")
def result(smoke) -> dict:
    settings = experiment.Settings(points=2, sequences=32)
    return {"seeds": smoke.seeds, "settings": vars(settings), **experiment.analyse(smoke, settings)}


def test_a_run_is_looked_at_with_all_its_tokens_and_unchanged_predictions(smoke, result):
    assert np.shape(result["entropy"]) == (3, 2, 2, 4, 15)
    whole = experiment.with_all_tokens(smoke)
    assert smoke.config.model.last_block_at_x and not whole.config.model.last_block_at_x
    own = smoke.sequences(8)
    one, other = (run.model(smoke.seeds[0], 60)(own.x[0], own.y[0]) for run in (smoke, whole))
    torch.testing.assert_close(one, other)


def test_a_run_is_drawn_and_told(result):
    assert len(experiment.draw(result).axes) == 16
    assert "least variability" in experiment.finding(result)
    # At the start attention is nearly even
    assert np.array(result["entropy"])[:, 0, ..., 1:].min() > 0.8 and experiment.patterns(result, 0) == []


def test_a_single_example_is_refused(smoke, monkeypatch):
    monkeypatch.setattr(smoke.config.data, "K", 1)
    with pytest.raises(UserError, match="found data.K 1"):
        experiment.analyse(smoke, experiment.Settings())


# --- heads and the claim -------------------------------------------------------------------------------------------------

SELF, BEFORE = torch.eye(T), previous()
EVENLY = uniform()


def x_only() -> torch.Tensor:
    """Equal attention to the x tokens so far."""
    made = torch.ones(T, T).tril() * EVEN
    return made / made.sum(1, keepdim=True)


def made_up(*patterns: torch.Tensor) -> dict:
    """One seed, one checkpoint, one block with a head for each pattern."""
    weights = torch.stack(patterns)[None].double()
    keys = (*experiment.PATTERNS, "variability")
    return {"steps": [0], **{key: [[[MEASURES[key](weights).tolist()]]] for key in keys}}


def test_heads_are_named_by_the_pattern_they_take():
    mixed = torch.where(torch.arange(T)[:, None] % 2 == 0, SELF, BEFORE)
    found = experiment.patterns(made_up(EVENLY, SELF, BEFORE, x_only(), mixed), 0)
    named = {(row["head"], row["queries"]): (row["pattern"], round(row["excess"], 6)) for row in found}
    assert named == {
        ("1:2", "x"): ("self", 1.0), ("1:2", "y"): ("self", 1.0),
        ("1:3", "x"): ("previous", 1.0), ("1:3", "y"): ("previous", 1.0),
        ("1:4", "x"): ("x", 1.0), ("1:4", "y"): ("x", 1.0),
        ("1:5", "x"): ("self", 1.0), ("1:5", "y"): ("previous", 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(("share", "named"), [(0.49, 0), (0.51, 2)])
def test_a_pattern_counts_from_half_way_between_equal_attention_and_all(share, named):
    assert len(experiment.patterns(made_up((1 - share) * EVENLY + share * SELF), 0)) == named


def training(variability: list, loss: list, prior: list) -> dict:
    """One seed with one block of two heads: the second's variability for y queries over checkpoints, all else 0.2."""
    values = np.full((len(loss), 1, 2, 5), 0.2)
    values[:, 0, 1, 1::2] = np.array(variability)[:, None]
    return {"steps": list(range(len(loss))), "variability": [values.tolist()], "loss": [loss], "prior_score": [prior]}


LOSS, PRIOR = [4.4, 4.0, 2.14, 2.10, 2.0], [0.4, 0.1, 1.0, 2.0, 2.0]


def test_lr2_runs_from_the_least_prior_score_to_most_of_the_fall_of_the_loss():
    assert experiment.stage(training([0.2] * 5, LOSS, PRIOR), 0) == (1, 3)
    assert experiment.stage(training([0.2] * 5, LOSS, [1.0, 1, 1, 1, 0.5]), 0) == (4, 4)


@pytest.mark.parametrize(
    ("variability", "number", "verdict"),
    [
        ([0.9, 0.2, 0.3, 0.08, 0.3], 0.4, True),
        ([0.9, 0.2, 0.3, 0.12, 0.01], 0.6, False),
        ([0.2, 0.2, 0.01, 0.4, 0.4], 1.0, False),
    ],
)
def test_c11_compares_the_ends_of_lr2_alone(variability, number, verdict):
    claim = experiment.CLAIMS[0]
    values = claim.number(training(variability, LOSS, PRIOR))
    assert values == pytest.approx([number])
    assert claim.met(values) is verdict
