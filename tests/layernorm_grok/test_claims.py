"""Claims on made-up results: on each side of every bound, on what would fool them, on what cannot tell."""

import pytest

from common.claims import Missing
from layernorm_grok.analysis import _compare as compare
from layernorm_grok.claims import CLAIMS

NAMES = compare.ORDER
GOOD = [(1, 2, 3), (11, 12, 13), (21, 22, 23), (31, 32, 33)]
"""T of M, M+A*, A*, No LN, in the claimed order in every seed."""
R, C, I = "reproduced", "contradicted", "inconclusive"  # noqa: E741

EXPECTED = {
    "C1": "share of neighbours in order > 0.99",
    "C2": "pairs of the four placements in the same order, of 6 from 2 to 4",
    "C3": "share of the six pairs in order > 0.99",
    "C4": "C_F / start > 30; share of 5 frequencies > 0.5",
    "C5": "least removed / train loss > 10; peak before T, nats > 1; peak / at T_train > 1.2; end / peak < 0.8",
    "C6": "M, after T / at step 100 < 0.75; A^v, largest / least < 1.33",
    "C7": "T(A^v) / T(M) > 1; T(A^v) / T(No LN) < 0.5",
    "C8": "test accuracy of No LN less A^qk's, when the first of them generalises or at the end > 0.05",
    "C9": "No LN less A^qk, nats > 0.05; M / ln 3 > 0.95",
    "C10": "share of neighbours in order, two that never came aside > 0.99",
    "C11": "share of neighbours in order, two that never came aside > 0.99",
    "C12": "share of neighbours in order, two that never came aside > 0.99",
    "C13": "share of neighbours in order, two that never came aside > 0.99",
    "C14": "eta_0 / alpha^2, largest / least > 2; fixed eta, largest / least < 1.5",
    "C15": "from alpha = 1 > 0.01; from first step > 0.01; from twin < 1e-09; from 3 x loss < 1e-09",
    "C16": "rank, share of the six pairs > 0.99; exponent, share of the six pairs > 0.99",
    "C17": "least effective rank, A* / No LN > 1",
    "C18": "share of pairs of decays in order of effective rank > 0.99",
    "C19": "share of neighbours in order > 0.99",
    "C20": "share of neighbours in order > 0.99; slingshots per 1000 steps, three layers less one > 0",
    "C21": "drift at T_train > 5; cosine with the start < 0.9; checkpoint / T_train < 1.5",
    "C22": "T with over T without from 0.67 to 1.5",
    "C23": "eta_0 / alpha^2, share of neighbours in order > 0.99; fixed eta, share of neighbours in order > 0.99",
    "C24": "T(M+A^v) / T(M) < 1",
    "C25": "least level / train fraction > 0.75; largest level / train fraction < 1.25; widest range / train fraction < 0.25",
}
NOT_AT_QUICK = {"C16", "C17", "C19", "C20", "C22", "C23"}


def test_every_threshold_is_as_it_was_frozen():
    assert {claim.id: claim.expected for claim in CLAIMS} == EXPECTED
    assert {claim.id for claim in CLAIMS if "quick" not in claim.presets} == NOT_AT_QUICK
    assert all(claim.presets[-4:] == ("medium", "gpu", "paper", "paper_figures") for claim in CLAIMS)


def judged(number: int, *results: dict) -> str:
    """Verdict of a claim on the results that it needs; its note must be tellable too."""
    claim = CLAIMS[number - 1]
    if claim.note:
        assert isinstance(claim.note(*results), str)
    return claim.verdict(claim.values(*results))


def values(number: int, *results: dict) -> dict[str, list]:
    return CLAIMS[number - 1].values(*results)


def timed(t, fits=(100, 100, 100), last=5000, lost=(False,) * 3, **extra) -> dict:
    """A cell with T of three seeds, None for never, and how far each was looked at."""
    times = {"t_gen": list(t), "first": list(t), "t_train": list(fits), "gen_loss": None}
    return {"times": times, "last": [last] * 3 if isinstance(last, int) else list(last), "lost": list(lost)} | extra


def grid(*cells, **extra) -> dict:
    return {"cells": dict(zip(NAMES, cells, strict=True))} | extra


def placed(rows=GOOD, **options) -> dict:
    return grid(*(timed(row, **options) for row in rows))


def lose(result: dict, *names: str) -> dict:
    """The same with all replicas of those placements diverged at step 5: no T, and nothing else came after it."""
    for name in names:
        cell = result["cells"][name]
        cell["times"] |= {"t_gen": [None] * 3, "first": [None] * 3}
        cell |= {"lost": [True] * 3, "last": [5] * 3}
        cell |= {key: [None] * 3 for key in ("rises", "passes") if key in cell}
    return result


# The order of times


def test_order_needs_every_neighbour_in_every_seed():
    assert judged(1, placed()) == R
    assert judged(1, placed([GOOD[0], (11, 12, 23), (21, 22, 13), GOOD[3]])) == I
    assert judged(1, placed(GOOD[::-1])) == C
    tie = [(1, 2, 3), (1, 2, 3), *GOOD[2:]]
    assert judged(1, placed(tie)) == C


def test_what_never_came_is_later_than_what_came_and_in_no_order_with_another_never():
    assert judged(1, placed([*GOOD[:3], (None,) * 3])) == R
    assert judged(1, placed([*GOOD[:2], (None,) * 3, (None,) * 3])) == I
    assert judged(1, placed([(None,) * 3] * 4)) == I
    assert judged(1, placed([GOOD[1], GOOD[0], (None,) * 3, (None,) * 3])) == C


@pytest.mark.parametrize("number", [1, 19])
def test_a_diverged_replica_is_lost_and_not_late(number):
    assert judged(number, lose(placed(), "off")) == I
    assert judged(number, lose(placed([GOOD[1], GOOD[0], *GOOD[2:]]), "off")) == C


def test_a_touch_of_the_level_is_not_t():
    result = placed()
    result["cells"]["mlp-pre"]["times"] |= {"t_gen": [100, 100, 100], "first": [1, 2, 3]}
    assert judged(1, result) == C
    assert "mlp-pre 100/100/100 (touch 1/2/3)" in CLAIMS[0].note(result)


def test_a_result_over_other_seeds_is_a_missing_one():
    result = placed()
    result["cells"]["off"] = {"times": {"t_gen": [1, 2], "t_train": [1, 2]}, "last": [9, 9], "lost": [False] * 2}
    with pytest.raises(Missing):
        values(1, result)


def fitted(*fits, t=GOOD, last=5000) -> dict:
    return grid(*(timed(row, fits=(fit,) * 3, last=last) for row, fit in zip(t, fits, strict=True)))


def test_fitting_predicts_generalising_where_five_of_six_pairs_agree_or_disagree():
    assert judged(2, fitted(231, 214, 148, 317)) == R
    assert values(2, fitted(231, 214, 148, 317)).popitem()[1] == [3, 3, 3]
    for fits, same in (((1, 2, 3, 4), 6), ((2, 1, 3, 4), 5), ((4, 3, 2, 1), 0), ((4, 3, 1, 2), 1)):
        assert judged(2, fitted(*fits)) == C
        assert values(2, fitted(*fits)).popitem()[1] == [same] * 3
    assert judged(2, fitted(1, 4, 3, 2)) == judged(2, fitted(4, 1, 2, 3)) == R


def test_a_placement_that_stopped_unfitted_fits_later_than_the_others():
    late = fitted(None, 214, 148, 317)
    late["cells"]["mlp-pre"]["last"] = [700] * 3
    assert values(2, late).popitem()[1] == [2, 2, 2]
    late["cells"]["mlp-pre"]["last"] = [200] * 3
    assert judged(2, late) == I
    assert judged(2, lose(fitted(231, 214, 148, 317), "pre")) == I
    assert judged(2, fitted(231, 214, 148, 317, t=[(None,) * 3] * 4)) == I


def test_c20_needs_the_order_and_more_slingshots_for_its_steps():
    def jumps(result: dict, count: int) -> dict:
        for cell in result["cells"].values():
            cell["slingshots"] = [[100] * count] * 3
        return result

    assert judged(20, jumps(placed(), 5), jumps(placed(), 1)) == R
    assert judged(20, jumps(placed(), 1), jumps(placed(), 1)) == C
    assert judged(20, jumps(placed(), 5), jumps(placed(last=500), 1)) == C
    assert judged(20, jumps(placed(GOOD[::-1]), 5), jumps(placed(), 1)) == C
    assert judged(20, jumps(lose(placed(), "off"), 5), jumps(placed(), 1)) == I


def paths(**t) -> dict:
    return {"cells": {name.replace("_", "-"): timed(row) for name, row in t.items()}}


def test_value_path_is_later_than_m_and_sooner_than_half_of_no_ln():
    m, v = (100, 200, 300), (101, 201, 301)
    assert judged(7, paths(mlp_pre=m, attn_pre_v=v, off=(203, 403, 603))) == R
    assert judged(7, paths(mlp_pre=m, attn_pre_v=v, off=(202, 402, 602))) == C
    assert judged(7, paths(mlp_pre=v, attn_pre_v=v, off=(900, 900, 900))) == C
    assert judged(7, paths(mlp_pre=(None,) * 3, attn_pre_v=v, off=(900,) * 3)) == C
    assert judged(7, paths(mlp_pre=m, attn_pre_v=(None,) * 3, off=(900,) * 3)) == C


def test_value_path_beside_a_no_ln_that_never_came():
    assert judged(7, paths(mlp_pre=(1, 2, 3), attn_pre_v=(11, 12, 2499), off=(None,) * 3)) == R
    assert judged(7, paths(mlp_pre=(1, 2, 3), attn_pre_v=(11, 12, 2500), off=(None,) * 3)) == I
    assert judged(7, paths(mlp_pre=(None,) * 3, attn_pre_v=(None,) * 3, off=(None,) * 3)) == I
    assert judged(7, lose(paths(mlp_pre=(1, 2, 3), attn_pre_v=(11, 12, 13), off=(None,) * 3), "off")) == I


def query_key(off, qk, off_curve, qk_curve, **options) -> dict:
    """Curves of test accuracy at steps 10, 20, 30."""
    cells = {"off": (off, off_curve), "attn-pre-qk": (qk, qk_curve)}
    return {
        "cells": {
            name: timed((t,) * 3, last=30, **options)
            | {"steps": [10, 20, 30], "curves": {"test_accuracy": [curve] * 3}, "final_accuracy": [curve[-1]] * 3}
            for name, (t, curve) in cells.items()
        }
    }


def test_query_key_path_is_behind_where_the_first_generalises_or_at_the_end():
    assert judged(8, query_key(20, None, [0.5, 0.99, 1.0], [0.5, 0.93, 0.99])) == R
    assert judged(8, query_key(20, 20, [0.5, 1.0, 1.0], [0.5, 0.99, 0.99])) == C
    assert judged(8, query_key(20, 30, [0.5, 0.99, 1.0], [0.5, 0.98, 0.99])) == C
    assert judged(8, query_key(30, 20, [0.5, 0.6, 0.99], [0.5, 0.99, None])) == C
    assert judged(8, query_key(None, None, [0.5, 0.4, 0.36], [0.1, 0.1, 0.3])) == R
    assert judged(8, query_key(None, None, [0.5, 0.4, 0.34], [0.1, 0.1, 0.3])) == C
    assert judged(8, query_key(None, None, [0.5, 0.4, 0.9], [0.1, None, None], lost=(True,) * 3)) == I


def test_both_norms_are_sooner_than_m_alone():
    assert judged(24, paths(pre_v=(1, 2, 3), mlp_pre=(2, 3, 4))) == R
    assert judged(24, paths(pre_v=(2, 3, 4), mlp_pre=(2, 3, 4))) == C
    assert judged(24, paths(pre_v=(1, 2, 3), mlp_pre=(None,) * 3)) == R
    assert judged(24, paths(pre_v=(None,) * 3, mlp_pre=(1, 2, 3))) == C
    assert judged(24, paths(pre_v=(None,) * 3, mlp_pre=(None,) * 3)) == I
    assert judged(24, lose(paths(pre_v=(1, 2, 3), mlp_pre=(2, 3, 4)), "mlp-pre")) == I


def resting(levels=(0.3,) * 4, ranges=(0.01,) * 4, fits=(100, 100, 100), t=(1000, 1000, 1000)) -> dict:
    cells = (
        timed(t, fits=fits) | {"plateau_accuracy": {"values": [level] * 3}, "plateau_range": {"values": [width] * 3}}
        for level, width in zip(levels, ranges, strict=True)
    )
    return grid(*cells, train_fraction=0.3)


def test_every_placement_with_a_plateau_rests_near_the_train_fraction():
    assert judged(25, resting()) == R
    assert judged(25, resting((0.3, 0.3, 0.23, 0.3))) == R
    assert judged(25, resting((0.3, 0.3, 0.3, 0.22))) == C
    assert judged(25, resting((0.38, 0.3, 0.3, 0.3))) == C
    assert judged(25, resting(ranges=(0.01, 0.08, 0.01, 0.01))) == C


def test_a_placement_that_generalises_as_it_fits_has_no_plateau():
    assert judged(25, resting((0.9,) * 4, t=(199,) * 3)) == I
    assert judged(25, resting((0.9,) * 4, fits=(None,) * 3)) == I
    assert judged(25, resting((0.3,) * 4, t=(None,) * 3)) == R
    assert judged(25, lose(resting((0.9, 0.3, 0.3, 0.3)), "mlp-pre")) == R


# Sweeps

SWEEPS = [(10, "lr", True), (11, "weight_decay", True), (12, "alpha", False), (13, "alpha", True)]


def swept(axis: str, rows, larger_is_faster=True, **options) -> dict:
    """Cells of an axis from the value that is to be fastest; a row of three seeds each."""
    numbers = range(len(rows), 0, -1) if larger_is_faster else range(1, len(rows) + 1)
    extra = {"decayed": [1.0] * 3, "mean_loss_half_way": 1.0}
    cells = {f"{axis}={n}": timed(row, **options) | extra for n, row in zip(numbers, rows, strict=True)}
    return {"cells": cells}


@pytest.mark.parametrize(("number", "axis", "larger"), SWEEPS)
def test_a_sweep_is_judged_value_by_value(number, axis, larger):
    def verdict(*rows, **options):
        return judged(number, swept(axis, rows, larger, **options))

    assert verdict((1, 2, 3), (4, 5, 6), (7, 8, 9)) == R
    assert verdict((1, 2, 3), (7, 8, 9), (4, 5, 6)) == C
    assert verdict((1, 2, 3), (4, 5, 6), (4, 5, 9)) == I
    assert verdict((7, 8, 9), (4, 5, 6), (1, 2, 3)) == C


@pytest.mark.parametrize(("number", "axis", "larger"), SWEEPS)
def test_a_sweep_may_end_in_nevers_but_not_consist_of_them(number, axis, larger):
    never = (None,) * 3

    def verdict(*rows, **options):
        return judged(number, swept(axis, rows, larger, **options))

    assert verdict((1, 2, 3), (4, 5, 6), never, never) == R
    assert verdict((1, 2, 3), never, never) == I
    assert verdict(never, never, never) == I
    assert verdict(never, (1, 2, 3), (4, 5, 6)) == C
    assert verdict((1, 2, 3), never, (4, 5, 6)) == C
    assert verdict((1, 2, 3), (4, 5, 6), never, lost=(True,) * 3) == I


def test_c23_judges_both_halves():
    good, bad = ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ((1, 2, 3), (7, 8, 9), (4, 5, 6))

    def halves(scaled, fixed):
        return swept("alpha", scaled, False), swept("alpha", fixed, True)

    assert judged(23, *halves(good, good)) == R
    assert judged(23, *halves(good, bad)) == judged(23, *halves(bad, good)) == C
    assert judged(23, *halves(good, ((None,) * 3,) * 3)) == I


def updates(*norms, lost=False, early=(0.4, 0.4, 0.4)) -> dict:
    """Norms at steps 100, 200, 300 for alpha = 0.5, 1, 1.5; `early` at step 1."""
    cells = {}
    for alpha, norm, first in zip((0.5, 1, 1.5), norms, early, strict=True):
        cell = {"steps": [1, 100, 200, 300], "curves": {"update_norm": [[first, norm, norm, norm]] * 3}}
        cells[f"alpha={alpha:g}"] = cell | {"update_norm": {"values": [first] * 3}, "lost": [lost] * 3}
    return {"cells": cells}


def test_update_norms_are_judged_after_the_first_step():
    flat, steep = updates(0.1, 0.11, 0.12), updates(0.9, 0.2, 0.1, early=(0.9, 0.2, 0.1))
    assert judged(14, flat, steep) == R
    assert judged(14, updates(0.1, 0.11, 0.16), steep) == C
    assert judged(14, flat, updates(0.19, 0.1, 0.1)) == C
    only_at_first = updates(0.1, 0.1, 0.1, early=(0.9, 0.2, 0.1))
    assert judged(14, flat, only_at_first) == C
    assert judged(14, flat, updates(0.9, 0.2, 0.1, lost=True)) == I
    steep["cells"]["alpha=0.5"] |= {"steps": [1, 100], "curves": {"update_norm": [[0.9, 0.9]] * 3}}
    assert judged(14, flat, steep) == R


def ranked(*ranks, lost=False) -> dict:
    cells = {}
    for decay, rank in zip((0.5, 1.0, 2.0), ranks, strict=True):
        spectrum = {"test_effective_rank": {"values": [rank] * 3}}
        cells[f"weight_decay={decay:g}"] = {"weight_decay": decay, "end_spectrum": spectrum, "lost": [lost] * 3}
    return {"cells": cells}


def test_rank_must_fall_with_every_decay():
    assert judged(18, ranked(12, 10, 9)) == R
    assert judged(18, ranked(10, 12, 9)) == C
    assert judged(18, ranked(10, 10, 9)) == C
    assert judged(18, ranked(9, 10, 12)) == C
    assert judged(18, ranked(12, 10, 9, lost=True)) == I


def subtracted(with_it, without, **options) -> list[dict]:
    return [{"cells": {"alpha=1": timed((t,) * 3, last=2000, **options)}} for t in (with_it, without)]


def test_subtraction_changes_t_by_less_than_half():
    assert judged(22, *subtracted(1400, 1000)) == judged(22, *subtracted(700, 1000)) == R
    assert judged(22, *subtracted(1600, 1000)) == judged(22, *subtracted(600, 1000)) == C
    assert judged(22, *subtracted(None, 1000)) == judged(22, *subtracted(1000, None)) == C
    assert judged(22, *subtracted(None, 1500)) == judged(22, *subtracted(1500, None)) == I
    assert judged(22, *subtracted(None, None)) == I
    assert judged(22, *subtracted(None, 1000, lost=(True,) * 3)) == I


# Curves along the life of a replica


def rising(rises, t=GOOD, **options) -> dict:
    return grid(
        *(timed(row, **options) | {"rises": list(r), "passes": list(r)} for row, r in zip(t, rises, strict=True))
    )


def test_fourier_order_counts_all_six_pairs():
    assert judged(3, rising(GOOD)) == R
    assert judged(3, rising(GOOD[::-1])) == C
    assert judged(3, rising([GOOD[1], GOOD[0], *GOOD[2:]])) == C
    assert judged(3, rising([GOOD[0], GOOD[0], *GOOD[2:]])) == C
    assert judged(3, rising([(None,) * 3, *GOOD[1:]])) == C
    assert judged(3, rising([*GOOD[:3], (None,) * 3])) == R


def test_three_placements_that_never_rise_are_in_no_order():
    assert judged(3, rising([GOOD[0], *[(None,) * 3] * 3])) == I
    assert judged(3, rising(GOOD, t=[(None,) * 3] * 4)) == I
    assert judged(3, rising(GOOD, t=[*GOOD[:2], (None,) * 3, (None,) * 3])) == I


def test_placements_that_diverged_are_in_no_order_with_what_rose():
    assert judged(3, lose(rising(GOOD), "attn-pre", "off")) == I
    assert judged(3, lose(rising([GOOD[1], GOOD[0], *GOOD[2:]]), "attn-pre", "off")) == C


def test_a_rise_that_a_stopped_replica_has_not_shown_is_not_known_to_be_late():
    stopped = rising([GOOD[0], (None,) * 3, *GOOD[2:]])
    stopped["cells"]["pre"]["last"] = [15] * 3
    assert judged(3, stopped) == I


def periodic(end=0.9, share=0.9, t=GOOD, start=0.01) -> tuple[dict, dict]:
    def cell(row):
        seeds = [{"steps": [0, 100], "concentration": [start, end], "key_share": [0.2, share]}] * 3
        return timed(row) | {"seeds": seeds}

    return grid(*map(cell, t)), {"cells": {"weight_decay=1": cell(t[-1])}}


def test_periodic_needs_concentration_and_few_frequencies():
    assert judged(4, *periodic(end=0.31)) == R
    assert judged(4, *periodic(end=0.29)) == C
    assert judged(4, *periodic(share=0.51)) == R
    assert judged(4, *periodic(share=0.49)) == C
    assert judged(4, *periodic(end=3.0, share=0.2)) == C


def test_periodic_says_nothing_of_what_has_not_generalised():
    assert judged(4, *periodic(t=[*GOOD[:3], (None,) * 3])) == I
    assert judged(4, *periodic(t=[(None,) * 3] * 4)) == I
    assert judged(4, *periodic(end=0.29, t=[*GOOD[:3], (None,) * 3])) == C
    main, no_ln = periodic()
    assert judged(4, lose(main, "mlp-pre"), no_ln) == I


def scale(unit, t=350, fits=100, loss=1e-4, lost=False) -> dict:
    """Scale-removed train loss at steps 0, 100, ... of three equal seeds."""
    steps = [100 * i for i in range(len(unit))]
    flat = {"train_loss": [loss] * len(unit), "train_mean_norm_loss": [2 * loss] * len(unit)}
    curve = {"steps": steps, "train_unit_loss": unit} | flat
    return {"cells": {"weight_decay=1": timed((t,) * 3, fits=(fits,) * 3, lost=(lost,) * 3) | {"seeds": [curve] * 3}}}


def test_scale_is_read_in_the_order_of_the_sentence():
    assert judged(5, scale([4, 3.0, 6.0, 5.0, 3.0])) == R
    assert judged(5, scale([4, 5.5, 6.0, 5.0, 3.0])) == C
    assert judged(5, scale([4, 3.0, 6.0, 5.0, 5.0])) == C
    assert judged(5, scale([4, 0.1, 0.9, 0.1, 0.1])) == C
    assert judged(5, scale([4, 3.0, 6.0, 5.0, 3.0], loss=0.31)) == C
    rises_after_t = scale([4, 3.0, 3.1, 3.1, 6.0, 3.0], t=250)
    assert judged(5, rises_after_t) == C
    falls_before_it_fits = scale([4, 6.0, 3.0, 3.0, 3.0], fits=150)
    assert judged(5, falls_before_it_fits) == C


def test_scale_says_nothing_before_fitting_and_of_a_fall_before_grokking():
    rise = [4, 3.0, 6.0, 5.0, 3.0]
    assert judged(5, scale(rise, t=None)) == I
    assert judged(5, scale(rise, t=None, lost=True)) == I
    assert judged(5, scale(rise, fits=None)) == I
    assert judged(5, scale(rise[:1], fits=100)) == I
    assert judged(5, scale([4, 5.5, 6.0, 5.0, 3.0], t=None)) == C


def both_paths(m, v, t=150, **options) -> dict:
    cells = {}
    for name, unit in (("mlp-pre", m), ("attn-pre-v", v)):
        curve = {"steps": [100 * i for i in range(len(unit))]}
        curve |= dict.fromkeys(("train_unit_loss", "train_code_loss", "train_loss"), unit)
        cells[name] = timed((t,) * 3, **options) | {"seeds": [curve] * 3}
    return {"cells": cells}


def test_m_lowers_the_scale_removed_loss_and_a_v_keeps_it_flat():
    low, flat = [5, 4, 1, 1], [5, 4, 4.2, 4.1]
    assert judged(6, both_paths(low, flat)) == R
    assert judged(6, both_paths([5, 4, 3.1, 3.1], flat)) == C
    assert judged(6, both_paths(low, [5, 4, 3.0, 2.9])) == C
    assert judged(6, both_paths(low, [5, 4, 5.0, 5.5])) == C
    assert judged(6, both_paths(low, [5, 4, 5.5, 4.0])) == C


def test_a_scale_curve_that_ends_early_says_nothing():
    low, flat = [5, 4, 1, 1], [5, 4, 4.2, 4.1]
    assert judged(6, both_paths([5], [5])) == I
    assert judged(6, both_paths(low, flat, t=None)) == I
    assert judged(6, both_paths(low, flat, t=None, lost=(True,) * 3)) == I


def attention(off, qk, m, steps=(0, 100, 200, 300)) -> dict:
    def cell(entropy):
        values = [1.0] * 2 + [entropy] * (len(steps) - 2)
        return {"seeds": [{"steps": list(steps), "paper": values, "per_head_last": values}] * 3}

    return {"cells": {"off": cell(off), "attn-pre-qk": cell(qk), "mlp-pre": cell(m)}, "uniform": 1.0986}


def test_entropy_order_and_uniformity():
    assert judged(9, attention(0.9, 0.84, 1.05)) == R
    assert judged(9, attention(0.9, 0.86, 1.05)) == C
    assert judged(9, attention(0.9, 0.9, 1.05)) == C
    assert judged(9, attention(0.9, 0.84, 1.04)) == C
    assert judged(9, attention(0.9, 0.84, 1.05, steps=(0, 100))) == I


def test_entropies_are_compared_while_both_lived():
    result = attention(0.9, 0.9, 1.09)
    late = {"steps": [0, 200, 300, 4000], "paper": [1.0, 0.9, 0.9, 0.1], "per_head_last": [1.0, 0.9, 0.9, 0.1]}
    result["cells"]["attn-pre-qk"]["seeds"] = [late] * 3
    assert judged(9, result) == C


def compressed(within=GOOD, exponent=None, t=GOOD, stopped=False, minimum=(8.0, 7.0, 12.0, 8.0)) -> dict:
    def cell(row, rank, exponent, least):
        keys = {"test_effective_rank": list(rank), "test_alpha_pl": list(exponent)}
        return timed(row) | {"within": keys, "at_stop": dict.fromkeys(keys, [stopped] * 3), "minimum": [least] * 3}

    return grid(*map(cell, t, within, exponent or within, minimum))


def test_compression_is_in_the_order_of_grokking_by_rank_and_by_exponent():
    swapped = [GOOD[1], GOOD[0], *GOOD[2:]]
    assert judged(16, compressed()) == R
    assert judged(16, compressed(GOOD[::-1])) == C
    assert judged(16, compressed(swapped, exponent=GOOD)) == judged(16, compressed(GOOD, exponent=swapped)) == C
    assert judged(16, compressed([GOOD[0], GOOD[0], *GOOD[2:]])) == C


def test_compression_of_what_stopped_early_diverged_or_never_generalised_is_unknown():
    never = [*GOOD[:2], (None,) * 3, (None,) * 3]
    for number in (16, 17):
        assert judged(number, compressed(stopped=True)) == I
        assert judged(number, compressed(t=never)) == I
        assert judged(number, lose(compressed(), "attn-pre", "off")) == I
    assert judged(16, compressed([(None,) * 3] * 4)) == I


def test_attention_norm_reaches_no_lower_rank():
    assert judged(17, compressed(minimum=(8, 7, 8.1, 8))) == R
    assert judged(17, compressed(minimum=(8, 7, 8, 8))) == C
    assert judged(17, compressed(minimum=(8, 7, 7.9, 8))) == C


def kernel(drift=100.0, cosine=0.3, step=110, fits=100) -> dict:
    curve = {"steps": [0, step], "projected": [0.0, drift], "projected_cosine": [1.0, cosine], "sum": [0.0, drift]}
    fitted = drift if fits is not None else None
    cell = timed((500,) * 3, fits=(fits,) * 3) | {"seeds": [curve] * 3, "at_fit": {"values": [fitted] * 3}}
    return {"cells": {"off": cell, "mlp-pre": cell}}


def test_features_have_changed_by_the_time_train_is_fitted():
    assert judged(21, kernel()) == R
    assert judged(21, kernel(drift=5.1)) == R
    assert judged(21, kernel(drift=4.9)) == C
    assert judged(21, kernel(fits=None)) == I
    only_grown = kernel(drift=400.0, cosine=1.0)
    assert judged(21, only_grown) == C
    assert judged(21, kernel(cosine=0.91)) == C
    looked_at_far_too_late = kernel(step=5000)
    assert judged(21, looked_at_far_too_late) == C


def twins(**changes) -> dict:
    distances = {"moved": 1e-13, "louder": 1e-13, "plain": 0.3, "learned": 0.5} | changes
    exact = {key: [{"values": [9.0] * 3}, {"values": [value] * 3}] for key, value in distances.items()}
    return {"pairs": {"alpha=0.5 eps=0": exact | {"eps": 0.0}, "eps=1e-8": {"eps": 1e-8}}}


def test_the_identity_is_exact_between_runs_that_learn():
    assert judged(15, twins()) == R
    assert judged(15, twins(moved=1e-8)) == judged(15, twins(louder=1e-8)) == C
    nothing_was_trained = twins(learned=0.0)
    assert judged(15, nothing_was_trained) == C
    alpha_is_not_read = twins(plain=0.0)
    assert judged(15, alpha_is_not_read) == C
    assert "tests the code" in CLAIMS[14].statement


# The comparisons beneath


def test_of_a_time_that_never_came_only_its_last_step_is_known():
    came, never = (5, True), (7, False)
    assert compare.sooner(came, never) is True and compare.sooner(never, came) is False
    assert compare.sooner((8, True), never) is None and compare.sooner(never, (8, True)) is None
    assert compare.sooner(never, never) is None and compare.sooner(came, None) is None
    assert compare.sooner(came, came) is False


def test_a_share_that_may_yet_be_whole_is_unknown():
    assert compare.share([True, True]) == 1
    assert compare.share([True, None]) is None
    assert compare.share([True, None, False, True]) == 0.5
    assert compare.share([]) is None


def test_a_quotient_of_a_time_that_never_came_counts_where_it_leaves_no_doubt():
    assert compare.ratio((3, True), (6, True), 1) == 0.5
    assert compare.ratio((3, True), (10, False), 0.5) == 0.3
    assert compare.ratio((6, True), (10, False), 0.5) is None
    assert compare.ratio((10, False), (6, True), 1) == float("inf")
    assert compare.ratio((10, False), (8, True), 0.67, 1.5) is None
    assert compare.ratio(None, (6, True), 1) is None
