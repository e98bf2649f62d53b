"""Stages: the smooth fit against scikit-learn and finite differences, plateaus of made-up curves, intervals, the experiment."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from common import experiment
from common.checkpoint import spread
from common.config import UserError
from common.run import Run
from icl_landscape.analysis import _stages
from icl_landscape.analysis import stages as module
from icl_landscape.estimators.gaussian_process import BOUNDS, log_likelihood, smooth
from icl_landscape.estimators.stages import (
    Rule,
    bootstrap,
    boundaries,
    centred,
    merged,
    plateaus,
    resample,
    stages,
    variances,
)
from icl_landscape.train import Config, Train

TRAIN = Train(steps=3000, warmup=300, batch=64)


def checkpoints(points: int = 40, last: int = 3000) -> np.ndarray:
    return np.unique(np.expm1(np.linspace(0, np.log1p(last), points)).round())


def logistic(steps, middles, rises, width: float = 0.35) -> np.ndarray:
    """A sum of logistic steps in log(t + 1)."""
    x = np.log1p(steps)
    return sum(r / (1 + np.exp(-(x - np.log1p(m)) / width)) for m, r in zip(middles, rises, strict=True))


def published(steps) -> np.ndarray:
    """Half cosine waves in log(t + 1) between the paper's LLC at the ends of its stages (seed 1, the first at 10)."""
    ends = np.log1p([0.0, 984, 40292, 126262, 318181, 499999])
    parts = [np.clip((np.log1p(steps) - a) / (b - a), 0, 1) for a, b in zip(ends, ends[1:], strict=False)]
    rises = (19.3, 150.7, -12.4, -44.2, 3.6)
    return 10 + sum(rise * (1 - np.cos(np.pi * part)) / 2 for rise, part in zip(rises, parts, strict=True))


def found(steps, y, known=None, **rule) -> tuple[str, list]:
    rows = stages(smooth(steps, y, known), Rule(**rule))
    return "".join(row.type for row in rows), boundaries(rows)


@pytest.mark.filterwarnings("ignore:The optimal value found")
@pytest.mark.parametrize("known", [0.0, 0.04])
def test_fit_is_that_of_scikit_learn(known):
    steps, random = checkpoints(25), np.random.default_rng(0)
    y = 5 + 3 * logistic(steps, (15, 600), (0.3, 1)) + 0.1 * random.standard_normal(len(steps))
    variance = known * random.random(len(steps))
    fit = smooth(steps, y, variance)
    x, z = np.log1p(steps), (y - y.mean()) / y.std()
    kernel = ConstantKernel(1.0, BOUNDS[0]) * RBF(3.0, BOUNDS[1]) + WhiteKernel(0.01, BOUNDS[2])
    theirs = GaussianProcessRegressor(kernel, alpha=variance / y.var() + 1e-12, n_restarts_optimizer=5, random_state=0)
    theirs.fit(x[:, None], z)
    assert fit.likelihood == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-3)
    at = np.linspace(0, x[-1], 50)
    mean, deviation = theirs.predict(at[:, None], return_std=True)
    latent = np.sqrt(deviation**2 - np.exp(theirs.kernel_.theta[2]))
    np.testing.assert_allclose(fit.mean(at), y.mean() + y.std() * mean, atol=2e-3)
    np.testing.assert_allclose(fit.deviation(at), y.std() * latent, rtol=0.02, atol=1e-4)


def test_gradient_of_likelihood_and_slope_are_their_finite_differences():
    random = np.random.default_rng(1)
    x, z, known = np.sort(random.random(9)) * 5, random.standard_normal(9), 0.1 * random.random(9)
    square, theta, h = (x[:, None] - x) ** 2, np.log([1.3, 0.8, 0.05]), 1e-5
    numeric = [
        (log_likelihood(theta + h * e, square, z, known)[0] - log_likelihood(theta - h * e, square, z, known)[0])
        / (2 * h)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(log_likelihood(theta, square, z, known)[1], numeric, rtol=1e-6)
    fit = smooth(np.expm1(x), z, known)
    at = np.linspace(0, 5, 13)
    np.testing.assert_allclose(fit.slope(at), (fit.mean(at + h) - fit.mean(at - h)) / (2 * h), atol=1e-6)
    both, step = np.concatenate([at + 1e-3, at - 1e-3]), np.hstack([np.eye(13), -np.eye(13)]) / 2e-3
    np.testing.assert_allclose(fit.slope_covariance(at), step @ fit.covariance(both) @ step.T, atol=1e-4)


def test_values_that_are_not_there_are_left_out_and_too_few_refused():
    steps = checkpoints(20)
    y = logistic(steps, (100,), (1,))
    gappy = np.where(np.arange(len(y)) % 4 == 1, np.nan, y)
    there = np.isfinite(gappy)
    assert smooth(steps, gappy).likelihood == smooth(steps[there], y[there]).likelihood
    with pytest.raises(ValueError, match="found 2 values"):
        smooth(steps, [1.0, 2.0] + [np.nan] * (len(steps) - 2))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("points", [30, 60])
def test_plateaus_of_two_steps_are_found(points, noise):
    steps = checkpoints(points)
    for seed in range(3):
        jitter = noise * np.random.default_rng(seed).standard_normal(len(steps))
        types, (at,) = found(steps, logistic(steps, (15, 600), (0.3, 1)) + jitter)
        assert types == "AA" and 80 / 2.2 < at < 80 * 2.2
        types, (at,) = found(steps, logistic(steps, (30, 600), (1, -0.6)) + jitter)
        assert types == "AB" and 134 / 2 < at < 134 * 2


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("points", [30, 60])
def test_no_stage_is_found_where_there_is_none(points, noise):
    steps = checkpoints(points)
    for seed in range(3):
        jitter = noise * np.random.default_rng(seed).standard_normal(len(steps))
        assert found(steps, np.log1p(steps) / 8 + jitter) == ("A", [])
        assert found(steps, 3 - logistic(steps, (200,), (1,), 0.4) + jitter) == ("B", [])
        if noise < 0.1:
            assert found(steps, 7 + jitter) == ("", [])


def test_known_errors_keep_few_noisy_points_from_making_stages():
    steps = checkpoints(12)
    for seed in range(5):
        jitter = 0.02 * np.random.default_rng(seed).standard_normal(len(steps))
        known = np.full(len(steps), 0.02**2)
        assert found(steps, 7 + jitter, known) == ("", [])
        assert found(steps, logistic(steps, (200,), (1,), 0.4) + jitter, known) == ("A", [])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_published_llc_has_the_papers_five_stages(noise):
    steps = np.array(spread(500_000, 100, 100), dtype=float)
    y = published(steps) + noise * np.random.default_rng(0).standard_normal(len(steps))
    rows = stages(smooth(steps, y), Rule())
    assert "".join(row.type for row in rows) == "AABBA"
    np.testing.assert_allclose(np.log(boundaries(rows)), np.log([984, 40292, 126262, 318181]), atol=0.3)
    np.testing.assert_allclose([row.change for row in rows], [19.3, 150.7, -12.4, -44.2, 3.6], atol=1.5)
    # The authors' own number for it, and one so small that a plateau between two falls, which the noise leaves a slope, is none
    assert found(steps, y, slope=8.0)[0] == "AABBA"
    assert found(steps, y, slope=1e-6)[0] == "AABA"


def test_plateaus_are_flat_deep_and_sure():
    x = np.linspace(0, 1, 101)
    slope = 1 + np.cos(4 * np.pi * x) + 0.05  # 2.05 at 0, 0.5 and 1; 0.05 between
    sure = lambda a, b: 0.0  # noqa: E731
    assert plateaus(slope, sure, Rule()) == [25, 75]
    assert plateaus(slope, sure, Rule(flat=0.02)) == []
    assert plateaus(slope, sure, Rule(slope=0.1)) == [25, 75] and plateaus(slope, sure, Rule(slope=0.01)) == []
    assert plateaus(slope, lambda a, b: 0.49, Rule()) == [25, 75] and plateaus(slope, lambda a, b: 0.51, Rule()) == []
    assert plateaus(slope + 2, sure, Rule(flat=1.0)) == []  # half as deep as either side is not deep
    assert plateaus(np.linspace(-1, 1.01, 50), sure, Rule(flat=0.0)) == [24]


def test_stages_without_a_change_are_merged():
    assert merged([0, 10, 20, 40], 0) == [0, 20, 40]
    assert merged([0, 10, 20, 40], 1) == [0, 15, 40]
    assert merged([0, 10, 20, 40], 2) == [0, 10, 40]
    steps = checkpoints(60)
    rows = stages(smooth(steps, logistic(steps, (400,), (1,), 0.2)), Rule())
    assert [(row.start, row.type) for row in rows] == [(0.0, "A")] and rows[0].end == pytest.approx(3000)


def test_level_of_a_chain_is_no_error_of_its_curve():
    random = np.random.default_rng(0)
    chains = random.standard_normal((2, 50, 4))
    shifted = chains + 100 * random.standard_normal((2, 1, 4))
    np.testing.assert_allclose(variances(centred(shifted)), variances(centred(chains)), rtol=1e-6)
    np.testing.assert_allclose(np.nanmean(centred(shifted), 2), shifted.mean(2))
    plain = np.maximum(own := (chains.std(2, ddof=1) ** 2 / 4).mean(0), np.median(own) / 2)
    np.testing.assert_allclose(variances(chains), plain)
    assert np.isnan(variances(chains[:, :, :1])).all()


def test_resampled_curves_have_the_error_of_the_mean_and_no_lost_chain():
    random = np.random.default_rng(0)
    chains = random.standard_normal((1, 4, 8))
    drawn = np.array([resample(chains, random) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), chains[0].mean(1), atol=0.03)
    np.testing.assert_allclose(drawn.std(0), chains[0].std(1) / np.sqrt(8), rtol=0.1)
    chains[0, 1, 3:] = np.nan
    drawn = np.array([resample(chains, random) for _ in range(4000)])[:, 1]
    assert drawn.mean() == pytest.approx(chains[0, 1, :3].mean(), abs=0.05)
    assert drawn.std() == pytest.approx(chains[0, 1, :3].std() / np.sqrt(3), rel=0.1)
    two = np.stack([np.zeros((3, 2)), np.ones((3, 2))])
    assert {tuple(resample(two, random)) for _ in range(50)} == {(0,) * 3, (0.5,) * 3, (1,) * 3}


def test_bootstrap_knows_a_sure_boundary_and_is_the_same_for_the_same_seed():
    steps, random = checkpoints(30), np.random.default_rng(0)
    chains = logistic(steps, (15, 600), (0.3, 1))[None, :, None] + 0.03 * random.standard_normal((3, len(steps), 4))
    fit = smooth(steps, chains.mean((0, 2)), known := variances(chains) / 3)
    tell = lambda seed: bootstrap(fit, steps, lambda r: resample(chains, r), Rule(), 30, seed, known)  # noqa: E731
    (row,) = tell(0)
    assert row["found"] > 0.9 and row["low"] <= row["step"] <= row["high"] and row["low"] < row["high"]
    assert row["low"] > 80 / 2.2 and row["high"] < 80 * 2.2
    assert tell(0) == [row] and tell(1) != [row]
    # Draws without a plateau find none
    flat = bootstrap(fit, steps, lambda r: np.log1p(steps), Rule(), 5, 0)
    assert flat == [{"step": row["step"], "low": None, "high": None, "found": 0.0}]


def test_clock_adds_the_rates_and_takes_the_papers_run_to_itself():
    flat = Train(steps=10, warmup=0, lr=0.5, schedule="constant")
    np.testing.assert_allclose(_stages.clock(flat), 0.5 * np.arange(11))
    rows = {row["name"]: row for row in _stages.papers(Train())}
    assert all(row["step"] == row["paper"] for name, row in rows.items() if name != "LR5")
    assert rows["LR5"]["step"] >= 499_999  # The last rate is too small to change the sum
    sums = _stages.clock(Train())
    np.testing.assert_allclose(sums[[1465, 40_000, 126_000, 500_000]], [0.01288, 9.6, 95.26, 750], rtol=1e-3)
    short = {row["name"]: row["step"] for row in _stages.papers(TRAIN)}
    assert short["LR5"] is short["LR2"] is None
    ours = _stages.clock(TRAIN)
    assert ours[short["LR1"] - 1] < sums[1000] <= ours[short["LR1"]] and short["LR1"] < short["LR1, older numbering"]


STEPS = checkpoints(24).astype(int).tolist()


def made_up(rises=((0.3, 1),) * 3, losses=((0.3, 2),) * 3, lost: int | None = None) -> dict[str, dict]:
    """Results of three seeds: LLCs that rise by 100 x `rises` at 15 and 600, losses that fall by `losses` there."""
    random, steps = np.random.default_rng(0), np.array(STEPS)

    def llc(scale: float) -> dict:
        curves = np.array([scale * logistic(steps, (15, 600), rise) for rise in rises])
        chains = curves[:, :, None] + scale / 200 * random.standard_normal((3, len(steps), 3)) + [5.0, 0.0, -5.0]
        told = chains.tolist()
        if lost is not None:
            told[lost] = [[None] * 3] * len(steps)
        sampling = {"sampling": {"gamma": 500 / scale}}
        return {
            "seeds": [3, 4, 5],
            "settings": sampling,
            "steps": STEPS,
            "llc_chains": told,
            "loss_correlation": [0.99] * 3,
        }

    loss = np.array([4.5 - logistic(steps, (15, 600), fall) for fall in losses])
    tokens = loss[:, :, None] + np.linspace(-0.5, 0.5, 8)
    return {
        "llc_paper": llc(100.0),
        "llc_local": llc(5.0),
        "behaviour": {"seeds": [3, 4, 5], "steps": STEPS, "token_losses": tokens.tolist()},
    }


@pytest.fixture
def folder(tmp_path):
    """A run that was never trained, for made-up results."""
    settings = Config(preset="quick", root=str(tmp_path), seeds=[3, 4, 5], train=TRAIN)
    Run.create(settings.folder, settings, False, device=torch.device("cpu"))
    return settings.folder


def write(folder, results: dict) -> Run:
    run = Run(folder)
    for name, result in results.items():
        run.result(name, result)
    return run


def told(folder, results: dict, **settings) -> dict:
    """The result as claims read it."""
    run = write(folder, results)
    settings = module.Settings(run=str(folder), device="cpu", resamples=4, **settings)
    trained = settings.READS(folder, "cpu")
    run.result("stages", {"seeds": trained.seeds} | module.analyse(trained, settings))
    return run.read("stages")


def met(claim_id: str, result: dict) -> list:
    claim = next(claim for claim in module.CLAIMS if claim.id == claim_id)
    values = claim.values(result)
    return [claim.met([values[row["name"]][seed] for row in claim.bounds]) for seed in range(3)]


def test_experiment_finds_the_stages_of_made_up_results(folder, capsys):
    run = write(folder, made_up())
    experiment.perform(module, "stages", module.Settings(run=str(folder), device="cpu", resamples=8))
    result = run.read("stages")
    for name, scale in (("paper", 100), ("local", 5)):
        for rows in [*result["curves"][name]["seeds"], result["curves"][name]["pooled"]]:
            assert [row["type"] for row in rows["stages"]] == ["A", "A"]
            np.testing.assert_allclose([row["change"] for row in rows["stages"]], [0.3 * scale, scale], rtol=0.15)
            np.testing.assert_allclose([row["loss"] for row in rows["stages"]], [-0.3, -2], atol=0.1)
            (row,) = rows["boundaries"]
            assert 40 < row["low"] <= row["high"] < 160 and row["found"] == 1
    assert [row["type"] for row in result["curves"]["loss"]["pooled"]["stages"]] == ["B", "B"]
    assert result["gamma"] == {"paper": 5, "local": 100}
    assert (folder / "figures/stages.png").is_file() and "paper AA" in capsys.readouterr().out
    assert met("C1", result) == met("C2", result) == [True] * 3
    assert "LLC of 3 of 3 seeds, from the loss of 0; correlation of this LLC with -loss 0.9900" in module.how_found(
        result
    )


@pytest.mark.parametrize(
    ("rises", "first", "second"),
    [
        (((-0.3, 1), (0.3, -1), (1, 0.3)), [False] * 3, [False, False, True]),
        (((0.3, 1), (0.3, 1), (-0.3, 1)), [True, True, False], [True, True, False]),
        (((-0.3, 1),) * 3, [False] * 3, [False] * 3),
    ],
)
def test_claims_fail_for_seeds_whose_llc_falls_or_does_not_rise_most_in_lr2(folder, rises, first, second):
    result = told(folder, made_up(rises))
    assert met("C1", result) == first and met("C2", result) == second


def test_a_boundary_of_another_step_is_another_stage(folder):
    result = told(folder, made_up())
    rows = result["curves"]["paper"]["seeds"][0]["stages"]
    rows[0]["end"] = rows[1]["start"] = 4 * rows[0]["end"]
    assert met("C2", result) == [False, True, True]


def test_boundary_comes_from_the_loss_where_the_llc_has_none_and_from_nowhere_without_both(folder):
    rises, losses = ((0.3, 1), (0, 1), (0, 1)), ((0.3, 2), (0.3, 2), (0, 2))
    result = told(folder, made_up(rises, losses))
    ends = [module.ends(result, seed) for seed in range(3)]
    assert len(ends[0]) == len(ends[1]) == 3 and ends[2] == []
    assert ends[1][1] == result["curves"]["loss"]["seeds"][1]["boundaries"][0]["step"]
    assert met("C1", result)[2] is None and met("C2", result)[2] is None
    assert "from the LLC of 1 of 3 seeds, from the loss of 1" in module.how_found(result)


def test_a_seed_without_llc_cannot_tell_and_does_not_stop_the_others(folder):
    result = told(folder, made_up(lost=1))
    assert result["curves"]["paper"]["seeds"][1]["stages"] == []
    assert [row["type"] for row in result["curves"]["paper"]["pooled"]["stages"]] == ["A", "A"]
    assert met("C1", result) == met("C2", result) == [True, None, True]


def test_later_stages_are_told_and_not_judged(folder):
    result = told(folder, made_up())
    assert [row[2:] for row in (module.changes(result, "paper", s) for s in range(3))] == [[None, None]] * 3
    grid = np.array(result["curves"]["paper"]["fit_steps"])
    for rows in result["curves"]["paper"]["seeds"]:
        at = grid[[0, 60, 120, 180, 240]]
        rows["stages"] = [{"start": a, "end": b} for a, b in zip(at, at[1:], strict=False)]
        rows["fit"] = np.interp(np.log1p(grid), np.log1p(at), [0, 1, 9, 7, 4]).tolist()
    values = module.llc_rises(result)
    assert [values[f"LLC in LR{n}"] for n in (1, 2, 3, 4)] == [pytest.approx([c] * 3) for c in (1, 8, -2, -3)]
    assert met("C1", result) == [True] * 3


def test_missing_or_unfit_results_are_told_with_their_command(folder):
    results = made_up()
    for name in ("behaviour", "llc_paper", "llc_local"):
        (folder / f"results/{name}.json").unlink(missing_ok=True)
        with pytest.raises(
            UserError, match=f"found no .*{name}.json.*--config icl_landscape/configs/{name}.yaml --run"
        ):
            told(folder, {n: r for n, r in results.items() if n != name})
        for key, value, words in (
            ("seeds", [0], "found seeds"),
            ("steps", [0, 1], "found no"),
            ("steps", None, "found no"),
        ):
            with pytest.raises(UserError, match=f"{words}.*{name}.json.*make it with"):
                told(folder, results | {name: results[name] | {key: value}})


def test_absolute_slope_is_for_the_llc_alone():
    settings = replace(module.Settings(), slope=8.0)
    assert settings.rule(llc=True).slope == 8 and settings.rule(llc=False).slope is None


def test_bounds_are_frozen():
    first, second, _ = module.CLAIMS
    assert first.above == {"LLC in LR1": 0.0, "LLC in LR2": 0.0, "LR2 / (|LR1| + |LR2|)": 0.5}
    assert second.above == {"of LR1 and LR2, of the type of most seeds": 1.5, "of LR1 and LR2, of type A": 1.5}
    assert second.within == {"step of LR1|LR2 / median": (1 / 3, 3.0)}
