"""Claims on one-hop scaling against the authors' own curves and on both sides of every bound; contents as literal sums."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from capacity_reasoning.analysis import _grid, scaling
from capacity_reasoning.capacity import Row
from capacity_reasoning.estimators.content import content
from capacity_reasoning.estimators.entropy import SCHEMES, Support, baseline_bits, subject_entropies
from capacity_reasoning.evaluate import Trained
from common.config import UserError

CLAIMS = {claim.id: claim for claim in scaling.CLAIMS}
SUBJECTS = ["birth_date", "birth_city", "university", "employer", "parent", "child", "best_friend", "worst_enemy"]
# Published one-hop curves of R = 4: N, P, nats per question; the last one is below 2 bits per parameter
CURVES = [
    (25_000, 1_166_688, 4.2), (25_000, 1_475_824, 0.8), (30_000, 890_320, 6.0), (30_000, 1_166_688, 5.6),
    (30_000, 1_475_824, 2.2), (50_000, 890_320, 9.2), (50_000, 1_166_688, 7.8), (50_000, 1_475_824, 7.2),
    (10_000, 890_320, 0.06),
]  # fmt: skip


def made_up(
    P=1000, bits=1500.0, dataset=3000.0, known=(0.5,) * 8, exposures=1000.0, seeds=3, layers=1, R=4, N=100, **others
):
    """A run of `analyse`, alike for all seeds and schemes but for bits given by name of the scheme."""

    def scheme(own: float) -> dict:
        values = {"bits": own, "error": 0.0, "dataset": dataset, "baseline": 300.0}
        values |= {"per_parameter": own / P, "load": dataset / P}
        return {key: [value] * seeds for key, value in values.items()}

    return {
        "N": N, "R": R, "P": P, "layers": layers, "d": 16, "exposures": exposures, "subjects": SUBJECTS, "norm": [10.0] * seeds,
        "known": [list(known)] * seeds, "schemes": {name: scheme(others.get(name, bits)) for name in SCHEMES},
    }  # fmt: skip


def result_of(*runs: dict, seeds: int = 3) -> dict:
    return {"seeds": list(range(seeds)), "runs": {f"onehop_{number}": run for number, run in enumerate(runs)}}


def verdict(name: str, result: dict) -> str:
    return CLAIMS[name].verdict(CLAIMS[name].values(result))


@pytest.fixture(scope="module")
def published() -> dict:
    """The authors' curves as a result of three seeds."""
    runs = []
    for N, P, nats in CURVES:
        support = Support.expected(N, 4)
        found = {name: content(support, [nats / math.log(2)] * 8, name) for name in SCHEMES}
        schemes = {
            name: scaling.of_scheme([Row("train_onehop", "one_hop", name, one)] * 3, P) for name, one in found.items()
        }
        runs.append(made_up(P=P, N=N) | {"schemes": schemes})
    return result_of(*runs)


# --- against the authors' curves ------------------------------------------------------------------------------------------


def test_saturated_points_of_the_published_curves_and_their_flatness(published):
    """Eight of the nine points; their coefficients of variation are those read off the curves."""
    assert _grid.by_seed(published, lambda runs, seed: len(runs), _grid.saturated) == [8] * 3
    for scheme, expected in {"enumerate": 0.10, "optimal": 0.23, "corrected": 0.18}.items():
        assert _grid.variation(published, scheme)["values"] == pytest.approx([expected] * 3, abs=0.005)


def test_the_published_curves_are_flattest_under_enumerate(published):
    assert verdict("C2", published) == "reproduced"
    assert scaling.finding(published).startswith("enumerate makes bits per parameter flattest")
    assert "corrected 0.18" in CLAIMS["C2"].note(published)


def test_the_published_dip_is_slight(published):
    """50,000 people in 890,320 parameters, against 30,000 in as many: 1.72 and 2.17 bits per parameter."""
    told = scaling.uneven(published)["bits per parameter with names only / best"]
    assert told == pytest.approx([1.72 / 2.17] * 3, abs=0.01)


# --- the claims on both sides of their bounds -----------------------------------------------------------------------------


def grid(slope: float = 1.0, bend: float = 0.0, full: float = 1.0) -> dict:
    """Saturated runs of three sizes and two N on a line of that slope, bent or not, and one that knows a part of its facts."""
    bits = {1000: 1000.0, 2000: 1000 + 1000 * slope + bend, 3000: 1000 + 2000 * slope}
    sizes = [made_up(P=P, bits=b, dataset=4.0 * P, N=N) for P, b in bits.items() for N in (100, 200)]
    return result_of(*sizes, made_up(P=4000, bits=1000 * full, dataset=1000.0))


def test_a_line_has_its_slope_whatever_unsaturated_runs_hold():
    told = CLAIMS["C1"].values(grid(slope=1.25, full=0.5))
    assert told["bits per added parameter"] == pytest.approx([1.25] * 3)
    assert told["R^2"] == pytest.approx([1.0] * 3)
    assert told["largest content / entropy"] == pytest.approx([max(0.5, 1000 / 4000, 2250 / 8000, 3500 / 12000)] * 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "reproduced"),
        ({"slope": 0.51}, "reproduced"),
        ({"slope": 0.49}, "contradicted"),
        ({"slope": 2.29}, "reproduced"),
        ({"slope": 2.31}, "contradicted"),
        ({"bend": 300}, "reproduced"),
        ({"bend": 500}, "contradicted"),
        ({"full": 1.001}, "contradicted"),
    ],
)
def test_growth_with_parameters(changes, expected):
    assert verdict("C1", grid(**changes)) == expected


def test_two_sizes_make_no_line():
    runs = [made_up(P=P, bits=P, dataset=4.0 * P, N=N) for P in (1000, 2000) for N in (100, 200, 300)]
    assert CLAIMS["C1"].values(result_of(*runs))["R^2"] == [None] * 3
    assert verdict("C1", result_of(*runs)) == "inconclusive"
    assert verdict("C1", result_of(made_up(dataset=1500.0))) == "inconclusive"


@pytest.mark.parametrize(("enumerate_", "expected"), [(1500.0, "reproduced"), (700.0, "contradicted")])
def test_flatter_under_enumerate(enumerate_, expected):
    """`optimal` has 1000, 1500 and 1500 bits; `enumerate` another first one."""
    runs = [made_up(optimal=1000.0, enumerate=enumerate_), made_up(), made_up()]
    assert verdict("C2", result_of(*runs)) == expected


def test_flatness_needs_three_saturated_runs_with_content():
    few = result_of(made_up(), made_up(), made_up(dataset=1999.0))
    negative = result_of(*(made_up(bits=bits) for bits in (-100.0, -200.0, 50.0)))
    for result in (few, negative):
        assert scaling.flatter(result) == [None] * 3
        assert "no scheme can be told" in scaling.finding(result)
        assert CLAIMS["C2"].note(result) == ""


@pytest.mark.parametrize(
    ("peak", "light", "expected"),
    [
        (2000.0, 0.91, "reproduced"),
        (2300.0, 0.91, "reproduced"),
        (1990.0, 0.91, "contradicted"),
        (2310.0, 0.91, "contradicted"),
        (2100.0, 0.89, "contradicted"),
    ],
)
def test_capacity_at_1000_exposures(peak, light, expected):
    runs = [made_up(bits=peak), made_up(bits=1800 * light, dataset=1800.0), made_up(bits=100.0, dataset=1810.0)]
    assert verdict("C3", result_of(*runs)) == expected
    short = made_up(bits=2900.0, exposures=899.0), made_up(bits=10.0, dataset=100.0, exposures=None)
    assert verdict("C3", result_of(*runs, *short)) == expected, "runs of fewer exposures do not count"


@pytest.mark.parametrize("runs", [[made_up(bits=2100.0)], [made_up(bits=2100.0, exposures=300.0)]])
def test_capacity_without_a_light_load_or_a_long_run_cannot_be_told(runs):
    assert verdict("C3", result_of(*runs)) == "inconclusive"


def pressed(known=(0.9, 0.2) * 4, light=(1.0,) * 8, dip=1300.0) -> dict:
    """A light load, a middle one, and the largest, of which little more than the names is known."""
    heavy = made_up(dataset=9000.0, bits=400.0, known=known, **{"enumerate": dip})
    return result_of(made_up(dataset=1000.0, bits=990.0, known=light), made_up(dataset=3000.0, bits=1500.0), heavy)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "reproduced"),
        ({"known": (0.5, 0.41) * 4}, "contradicted"),
        ({"known": (0.5, 0.39) * 4}, "reproduced"),
        ({"light": (0.9, 0.1) * 4}, "contradicted"),
        ({"dip": 1600.0}, "contradicted"),
        ({"dip": 1000.0}, "contradicted"),
    ],
)
def test_uneven_under_pressure(changes, expected):
    assert verdict("C14", pressed(**changes)) == expected


def test_the_dip_is_that_of_one_model_and_of_runs_that_know_little():
    alone = result_of(made_up(dataset=9000.0, bits=400.0), made_up(dataset=9000.0, bits=800.0, layers=2), made_up(R=17))
    knowing = result_of(made_up(bits=300 + 2701 / 5), made_up(bits=1500.0))
    for result in (alone, knowing):
        assert scaling.uneven(result)["bits per parameter with names only / best"] == [None] * 3
        assert verdict("C14", result) == "inconclusive"


# --- on a study -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def main(study_of) -> Trained:
    return Trained(study_of("capacity_reasoning") / "main", "cpu", 1)


@pytest.fixture(scope="module")
def measured(main) -> dict:
    return {"seeds": main.seeds, **scaling.analyse(main, scaling.Settings())}


def test_contents_are_the_literal_sums_over_questions(main, measured):
    told = measured["runs"]["main"]
    assert {"main", "onehop_d16_n40", "onehop_d32_n60", "onehop_d32_n80"} == set(measured["runs"])
    for seed, losses in enumerate(main.losses("train_onehop")):
        support, s = main.support[seed], losses.asked.s.numpy()
        assert len(s) == main.N * 8
        for scheme in SCHEMES:
            entropies = subject_entropies(support, scheme)
            literal = baseline_bits(support, scheme) + float((entropies[s] - losses.nats / math.log(2)).sum())
            found = told["schemes"][scheme]
            assert found["bits"][seed] == pytest.approx(literal)
            assert found["per_parameter"][seed] == pytest.approx(literal / told["P"])
            assert found["dataset"][seed] == pytest.approx(baseline_bits(support, scheme) + main.N * entropies.sum())
        for subject in range(8):
            share = (
                1 - losses.nats[s == subject].mean() / math.log(2) / subject_entropies(support, "corrected")[subject]
            )
            assert told["known"][seed][subject] == pytest.approx(share)


def test_parameters_norms_and_exposures_of_a_run(main, measured):
    told, weights = measured["runs"]["main"], main.checkpoints.weights(main.steps[-1])
    assert told["P"] == sum(part[0].numel() for part in weights.values())
    squares = sum(np.square(part[1].numpy().astype(float)).sum() for part in weights.values())
    assert told["norm"][1] == pytest.approx(math.sqrt(squares), rel=1e-4)
    assert told["exposures"] == 60 * 32 / (60 * 8)


def test_exposures_of_windows_are_unknown(main):
    windows = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(packing="causal")))
    assert scaling.exposures(windows) is None


def test_a_run_without_one_hop_questions_is_refused():
    config = SimpleNamespace(data=SimpleNamespace(cot=False), mix=SimpleNamespace(orders=[2]))
    run = SimpleNamespace(config=config, run=SimpleNamespace(path="runs/onehop_x"))
    with pytest.raises(UserError, match=r"found orders \[2\] in runs/onehop_x, expected a run with one-hop questions"):
        scaling.measure(run, None)


def test_figure_has_a_panel_for_every_N_of_several_sizes_and_tells_R_and_depth_where_they_differ(published):
    def told(result: dict) -> tuple[set[str], list[str]]:
        fig = scaling.draw(result)
        return {text.get_text() for text in fig.legends[0].get_texts()}, [ax.get_title("left") for ax in fig.axes]

    labels, titles = told(published)
    assert {"N = 10,000", "N = 25,000", "N = 30,000", "N = 50,000", "2 bits/param"} <= labels
    assert [title for title in titles if "N = " in title] == [f"N = {N},000" for N in (25, 30, 50)]
    other = made_up(P=2_000_000, N=25_000, bits=2e6, dataset=5e6, R=17, layers=12)
    labels, titles = told({**published, "runs": {**published["runs"], "other": other}})
    assert {"N = 25,000, R = 4", "N = 25,000, R = 17", "1 layer", "12 layers"} <= labels
    assert len([title for title in titles if "N = " in title]) == 3
