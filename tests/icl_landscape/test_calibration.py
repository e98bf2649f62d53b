"""The recipe on made-up grids, the burn-in on made-up traces, and the experiment on a run of a few steps."""

import json

import numpy as np
import pytest
from scipy.stats import linregress

from common import config
from common.config import UserError
from icl_landscape.analysis import calibration, llc
from icl_landscape.analysis._grid import first_seeds, late
from icl_landscape.analysis._llc import measure
from icl_landscape.analysis._recipe import burn_in, concluded, pick, steep, troubles
from icl_landscape.analysis.calibration import Settings, analyse, choose, draw, finding, grid
from icl_landscape.evaluate import Trained
from icl_landscape.sgmcmc.settings import Sampling

TRIVIAL = 4.0
FEW = {"sharpness": 4, "iterations": 2, "trace": 16}


def row(gamma=500.0, nbeta=100.0, **changes):
    """A sound row of one seed at three checkpoints, the first of which is no better than the trivial predictor."""
    sound = {
        "gamma": gamma, "nbeta": nbeta, "step": {"stability": 0.4}, "llc": [-5.0, 10.0, 20.0], "llc_error": [1.0, 1.0, 1.0],
        "loss_reference": [3.9, 2.0, 1.0], "saturation": [0.9, 0.1, 0.2], "walking": [0.9, 0.1, 0.1],
        "stability": [0.4, 0.4, 0.4], "epsilon": [1e-5, 1e-5, 1e-5],
    }  # fmt: skip
    lists = {key: [value] for key, value in (sound | changes).items() if isinstance(value, list)}
    return sound | changes | lists


def chosen(row, llc, trace=40, **sampling):
    """What `choose` makes of a row, and of the draws of each checkpoint of one seed."""
    settings = Settings(trace=trace, sampling=Sampling(**sampling))
    return choose(row | {"troubles": troubles(row, TRIVIAL)}, {"llc": [llc]}, settings)


# The recipe


def test_a_sound_row_is_left_alone_whatever_its_checkpoints_before_learning_say():
    assert troubles(row(), TRIVIAL) == []
    assert troubles(row(loss_reference=[3.5, 2.0, 1.0]), TRIVIAL) == ["saturated", "negative LLC", "not at rest"]


@pytest.mark.parametrize(
    ("kind", "key", "sound", "bad"),
    [
        ("saturated", "saturation", 0.299, 0.301),
        ("negative LLC", "llc", -1.9, -2.1),
        ("unstable step", "stability", 0.49, 0.51),
        ("not at rest", "walking", 0.49, 0.51),
        ("diverged", "llc", 0.0, None),
    ],
)
def test_one_checkpoint_beyond_a_bound_disqualifies(kind, key, sound, bad):
    values = row()[key][0]
    assert troubles(row(**{key: [*values[:2], sound]}), TRIVIAL) == []
    assert troubles(row(**{key: [*values[:2], bad]}), TRIVIAL) == [kind]


def test_a_row_whose_chains_all_died_is_not_excused():
    dead = row(llc=[None] * 3, loss_reference=[None] * 3, saturation=[None] * 3, walking=[None] * 3)
    assert troubles(dead, TRIVIAL) == ["diverged"] and pick([dead], TRIVIAL) is None


def test_saturation_is_the_recipe_s_bound_on_the_sampled_loss():
    """sampled < l* + 0.3 (trivial - l*), as `measure` tells it: (sampled - l*) / (trivial - l*)."""
    own = 2.0
    for sampled, expected in (
        (own + 0.3 * (TRIVIAL - own) - 0.01, []),
        (own + 0.3 * (TRIVIAL - own) + 0.01, ["saturated"]),
    ):
        ratio = (sampled - own) / (TRIVIAL - own)
        assert troubles(row(saturation=[0.0, ratio, 0.0]), TRIVIAL) == expected


def test_the_smallest_gamma_that_is_sound_everywhere_then_the_largest_nbeta():
    hot, walking = {"saturation": [0.0, 0.5, 0.1]}, {"walking": [0.0, 0.1, 0.9]}
    rows = [
        row(50, 30, **hot), row(50, 100, **walking), row(150, 30, **hot), row(150, 66.67), row(150, 100),
        row(150, 300, **walking), row(500, 300),
    ]  # fmt: skip
    assert pick(rows, TRIVIAL) == 4
    assert pick(rows[::-1], TRIVIAL) == 2
    assert pick(rows[:3], TRIVIAL) is None
    assert pick([rows[6], rows[3]], TRIVIAL) == 1


def test_of_steps_the_largest_that_is_sound():
    steps = {0.1: [0.1] * 3, 0.4: [0.4] * 3, 1.6: [1.6] * 3}
    rows = [row(stability=s, epsilon=[value * 1e-4] * 3) for value, s in steps.items()]
    assert pick(rows, TRIVIAL) == 1


def test_where_all_fall_below_w_star_the_least_nbeta_and_a_warning():
    below = {"llc": [0.0, -9.0, 5.0]}
    rows = [
        row(500, 30, saturation=[0.0, 0.5, 0.0]),
        row(500, 66.67, **below),
        row(500, 100, **below),
        row(5000, 30, **below),
    ]
    assert pick(rows, TRIVIAL) == 1
    choice = chosen(rows[1], [[1.0] * 40] * 3)
    assert "w* is no minimum there" in calibration.advice({"pick": choice, "grid": rows})


def test_what_would_have_been_concluded():
    steps = [0, 100, 1000]
    assert concluded(row(llc=[0.0, 10.0, 4.0]), TRIVIAL, 0, steps) == "AB"
    assert concluded(row(llc=[0.0, 10.0, 12.0]), TRIVIAL, 0, steps) == "A="
    assert concluded(row(llc=[0.0, 10.0, 12.9]), TRIVIAL, 0, steps) == "AA"
    said = concluded(row(saturation=[0.9, 0.9, 0.1], llc=[0.0, 10.0, None]), TRIVIAL, 0, steps)
    assert said == "A=; diverged (step 1000); saturated, so it repeats the loss (step 100)"


# Burn-in


def test_slope_and_its_error_are_those_of_least_squares():
    for seed in range(20):
        means = 1e-3 * np.arange(8) * seed + np.random.default_rng(seed).normal(size=8)
        fit = linregress(np.arange(8), means)
        expected = abs(fit.slope) >= fit.stderr and abs(fit.slope) * 8 >= 0.05 * abs(means.mean())
        assert steep(means) == expected


def test_burn_in_ends_where_the_draws_rest():
    t, noise = np.arange(200), np.random.default_rng(0).normal(size=200)
    assert burn_in(20 + 0.1 * noise) == 0
    assert 20 <= burn_in(20 * (1 - np.exp(-t / 15)) + 0.1 * noise) <= 80
    assert burn_in(0.1 * t + 0.1 * noise) is None and burn_in(-0.1 * t + 0.1 * noise) is None
    assert burn_in([1.0] * 5) is None


def test_flags_are_those_of_the_curve():
    ramp = np.minimum(np.arange(200) / 40, 1) * 20
    choice = chosen(row(500, 66.67), [ramp, ramp], 200, draws=77)
    settings = config.parse(llc.Settings, choice["flags"].split())
    assert (settings.sampling.gamma, settings.sampling.nbeta, settings.stability) == (500, 66.67, 0.4)
    assert settings.sampling.burn_in == choice["burn_in"] == 40 and choice["rests"] and settings.sampling.draws == 77
    given = chosen(row(step={"epsilon": 1e-5}), [np.arange(200.0)], 200)
    assert "--sampling.epsilon 1e-05" in given["flags"] and given["burn_in"] == 200 and not given["rests"]
    assert "still drift" in calibration.advice({"pick": given})


# The grid


def test_late_steps():
    steps = [0, 1, 2, 5, 10, 21, 50, 100, 1000]
    assert late(steps, 10, 3) == [10, 100, 1000]
    assert late(steps, 10**6, 3) == [1000]
    assert late(steps, 900, 4) == [1000]


def test_every_cell_of_the_grid_and_settings_that_make_none():
    cells = grid(Settings(gammas=[1, 2], nbetas=[3], stabilities=[0.4], epsilons=[1e-6]))
    told = [(c.sampling.gamma, c.sampling.nbeta, c.stability, c.sampling.epsilon) for c in cells]
    assert told == [(1, 3, 0.4, 1e-4), (2, 3, 0.4, 1e-4), (1, 3, 0, 1e-6), (2, 3, 0, 1e-6)]
    for flags in ("--stabilities=[]", "--sharpness=0"):
        with pytest.raises(UserError, match="expected (step sizes|sequences)"):
            config.parse(Settings, [flags])


@pytest.fixture(scope="module")
def trained(study_of):
    return Trained(study_of("icl_landscape") / "main", "cpu", 1)


def test_the_first_seeds_are_the_same_models(trained):
    part = first_seeds(trained, 2)
    assert part.seeds == trained.seeds[:2] and first_seeds(trained, 0).seeds == trained.seeds
    assert trained.model(1, 60).token.weight.equal(part.model(1, 60).token.weight)


def test_the_experiment_on_a_run(trained):
    sampling = Sampling(chains=2, draws=12, batch=32, reference="paired")
    settings = Settings(gammas=[5e4], nbetas=[10], epsilons=[1e-6], at=[0, 60], seeds=2, sampling=sampling, **FEW)
    result = analyse(trained, settings)
    assert result["seeds"] == trained.seeds[:2] and len(result["grid"]) == 2
    cell = grid(settings)[1]
    alone = measure(trained, cell, trained.seeds[1], [60])
    assert result["grid"][1]["llc"][1][1] == float(alone.estimate.mean[0])
    assert result["grid"][1]["worst"][1][1] == (alone.health.findings[0].kind if alone.health.findings else "")
    # After 60 steps no w* is clearly better than the prediction 0.
    assert result["pick"] is None and result["grid"][0]["troubles"] == ["nothing to judge"]
    assert np.shape(result["trace"]["llc"]) == (2, 2, 16) and result["trace"]["llc"][0][0][0] == 0
    assert "no setting of the grid is sound (nothing to judge)" in finding(result)
    json.dumps(result)
    draw(result).savefig("/dev/null", format="png")
