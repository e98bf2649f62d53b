"""Measures: on results that mean nothing they say nothing, and each known way to be right for a wrong reason is closed."""

import pytest

from common.claims import Missing, Study
from layernorm_grok import measures

ORDER = measures.ORDER


class Results(Study):
    """A study of given results by name, whatever the run; (name, run) where a run is meant."""

    def __init__(self, results: dict):
        self.results = results

    def result(self, name: str, run: str = "main") -> dict:
        return self.results.get((name, run), self.results.get(name))


def timed(firsts, fits=(100, 100, 100), budget=5000, lost=(False,) * 3, **extra) -> dict:
    times = {"first": list(firsts), "t_train": list(fits), "gen_loss": None}
    ends = {"final_accuracy": [0.0 if t is None else 1.0 for t in firsts], "lost": list(lost)}
    return {"times": times, "budget": budget} | ends | extra


def placements(*rows, name="ln_position", **extra) -> Results:
    return Results({name: {"cells": {n: timed(row) for n, row in zip(ORDER, rows, strict=True)}} | extra})


def test_the_order_of_placements_must_hold_in_every_seed():
    right = placements((1, 2, 3), (11, 12, 13), (21, 22, 23), (31, 32, None))
    assert measures.placement_order(right).verdict == "reproduced"
    swapped = placements((1, 2, 30), (11, 12, 13), (21, 22, 23), (31, 32, None))
    assert measures.placement_order(swapped).verdict == "inconclusive"
    backwards = placements((31, 32, 33), (21, 22, 23), (11, 12, 13), (1, 2, 3))
    assert measures.placement_order(backwards).verdict == "contradicted"


def test_what_never_came_is_not_in_order_with_what_never_came():
    censored = placements((1, 2, 3), (11, 12, 13), (None, 22, 23), (None, 32, 33))
    assert measures.placement_order(censored).verdict == "inconclusive"
    nothing = placements(*[(None, None, None)] * 4)
    assert measures.placement_order(nothing).verdict == "inconclusive"
    assert measures.placement_order(nothing).value == 0


def test_a_replica_that_diverged_is_unknown_and_not_slow():
    study = placements((1, 2, 3), (11, 12, 13), (21, 22, 23), (31, 32, None))
    study.results["ln_position"]["cells"]["off"]["lost"] = [False, False, True]
    assert measures.placement_order(study).verdict == "inconclusive"


def test_a_censored_no_ln_is_no_earlier_than_the_budget():
    near = paths(mlp_pre=(1, 2, 3), attn_pre_v=(10, 20, 3000), off=(300, 400, None))
    assert measures.value_path(near).verdict == "inconclusive"


def test_a_result_over_other_cells_is_a_missing_one():
    with pytest.raises(Missing, match="found no cell mlp-pre"):
        measures.placement_order(Results({"ln_position": {"cells": {"pre": timed((1, 2, 3))}}}))


def compressed(within, firsts, stopped=False) -> Results:
    def cell(steps, first):
        keys = ("test_effective_rank", "test_alpha_pl")
        times = {"within": dict.fromkeys(keys, list(steps)), "at_stop": dict.fromkeys(keys, [stopped] * 3)}
        return times | {"first": list(first), "minimum": [5.0] * 3}

    return Results({"compressibility": {"cells": {n: cell(*r) for n, *r in zip(ORDER, within, firsts, strict=True)}}})


def test_compressibility_of_replicas_that_stopped_too_early_tells_nothing():
    firsts = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]
    assert measures.compressed_in_order(compressed(firsts, firsts)).verdict == "reproduced"
    assert measures.compressed_in_order(compressed(firsts, firsts, stopped=True)).verdict == "inconclusive"
    assert measures.compressed_in_order(compressed(firsts[::-1], firsts)).verdict == "contradicted"
    assert measures.attention_norm_is_less_compressible(compressed(firsts, firsts)).verdict == "reproduced"
    assert measures.attention_norm_is_less_compressible(compressed(firsts, firsts, True)).verdict == "inconclusive"


def test_what_never_became_periodic_counts_as_last():
    firsts = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]
    never = [(None,) * 3, *firsts[1:]]
    assert measures.fourier_order(fourier_study(never, firsts)).verdict == "contradicted"


def test_a_tie_is_no_order():
    assert measures.sooner(5, 5) is False
    assert measures.no_later(5, 5) is True
    assert measures.sooner(None, None) is None and measures.no_later(None, 3) is False


def test_fitting_and_generalising_in_one_order_contradicts_c2():
    rows = [(1, 2, 3), (11, 12, 13), (21, 22, 23), (31, 32, None)]
    same = placements(*rows, tau=[1.0, 1.0, 1.0])
    assert measures.fitting_does_not_predict(same).verdict == "contradicted"
    assert measures.fitting_does_not_predict(placements(*rows, tau=[0.0, -0.3, 0.3])).verdict == "reproduced"
    assert measures.fitting_does_not_predict(placements(*rows, tau=[0.0, None, None])).verdict == "inconclusive"


def paths(**firsts) -> Results:
    return Results({"attn_paths": {"cells": {n.replace("_", "-"): timed(row) for n, row in firsts.items()}}})


def test_value_path_needs_half_of_no_ln_and_m_first():
    good = paths(mlp_pre=(1, 2, 3), attn_pre_v=(1, 20, 30), off=(300, 400, None))
    assert measures.value_path(good).verdict == "reproduced"
    close = paths(mlp_pre=(1, 2, 3), attn_pre_v=(10, 20, 30), off=(19, 39, 59))
    assert measures.value_path(close).verdict == "contradicted"
    before_m = paths(mlp_pre=(100, 2, 3), attn_pre_v=(10, 20, 30), off=(300, 400, 500))
    assert measures.value_path(before_m).verdict == "inconclusive"
    nothing = paths(mlp_pre=(None,) * 3, attn_pre_v=(None,) * 3, off=(None,) * 3)
    assert measures.value_path(nothing).verdict == "inconclusive"


def test_query_key_path():
    assert measures.query_key_path(paths(attn_pre_qk=(None, None, 9), off=(3, 4, 9))).verdict == "reproduced"
    tie = paths(attn_pre_qk=(None, None, 9), off=(3, None, 9))
    assert measures.query_key_path(tie).verdict == "inconclusive"
    tie.results["attn_paths"]["cells"]["off"]["final_accuracy"] = [1.0, 0.5, 1.0]
    assert measures.query_key_path(tie).verdict == "reproduced"
    assert measures.query_key_path(paths(attn_pre_qk=(2, 2, 2), off=(3, None, 9))).verdict == "contradicted"


def scale(unit, first, fit=100, train=1e-4, mean_norm=2e-4) -> dict:
    steps = [0, 100, 200, 300, 400]
    curve = {
        "steps": steps,
        "train_unit_loss": unit,
        "train_loss": [train] * 5,
        "train_mean_norm_loss": [mean_norm] * 5,
    }
    cell = {"seeds": [curve] * 3, "times": {"first": [first] * 3, "t_train": [fit] * 3}}
    return Results({("sr_train", "wd_sweep"): {"cells": {"weight_decay=1": cell}}})


def test_scale_must_rise_and_fall_and_the_fall_needs_grokking():
    assert measures.scale_is_read(scale([4, 3.0, 6.0, 5.0, 3.0], first=350)).verdict == "reproduced"
    assert measures.scale_is_read(scale([4, 3.0, 6.0, 5.0, 3.0], first=None)).verdict == "inconclusive"
    assert measures.scale_is_read(scale([4, 6.0, 5.0, 4.0, 3.0], first=350)).verdict == "contradicted"
    assert measures.scale_is_read(scale([4, 3.0, 6.0, 6.0, 6.0], first=350)).verdict == "contradicted"
    assert measures.scale_is_read(scale([4, 0.1, 0.6, 0.1, 0.1], first=350)).verdict == "contradicted"
    assert measures.scale_is_read(scale([4, 3.0, 6.0, 5.0, 3.0], first=350, train=3.0)).verdict == "contradicted"


def fourier_study(rises, firsts, ends=(3.0, 3.0, 3.0)) -> Results:
    def cell(rise, first, end):
        seeds = [{"steps": [0, 100], "concentration": [0.01, end], "key_share": [0.2, 0.9]}] * 3
        return {"seeds": seeds, "rises": list(rise), "passes": list(rise), "first": list(first)}

    cells = {n: cell(r, f, ends[0]) for n, r, f in zip(ORDER, rises, firsts, strict=True)}
    return Results({"fourier": {"cells": cells}, ("fourier", "wd_sweep"): {"cells": {"weight_decay=1": cells["off"]}}})


def test_fourier_order_and_end():
    firsts = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]
    assert measures.fourier_order(fourier_study(firsts, firsts)).verdict == "reproduced"
    assert measures.fourier_order(fourier_study(firsts[::-1], firsts)).verdict == "contradicted"
    never = [(None,) * 3] * 4
    assert measures.fourier_order(fourier_study(firsts, never)).verdict == "inconclusive"
    assert measures.ends_periodic(fourier_study(firsts, firsts)).verdict == "reproduced"
    low = fourier_study(firsts, firsts, ends=(0.5, 0.5, 0.5))
    assert measures.ends_periodic(low).verdict == "reproduced"
    assert "(C_F >= 1): contradicted" in measures.ends_periodic(low).note
    assert measures.ends_periodic(fourier_study(firsts, firsts, ends=(0.1, 0.1, 0.1))).verdict == "contradicted"
    assert measures.ends_periodic(fourier_study(firsts, never)).verdict == "inconclusive"


def test_a_sweep_is_judged_by_its_extremes():
    def study(*rows):
        cells = {f"weight_decay={v:g}": timed(r, decayed=[1.0]) for v, r in zip((0.5, 1.0, 2.0), rows, strict=True)}
        return Results({"wd_sweep": {"cells": cells}})

    assert measures.weight_decay(study((None, None, 90), (7, 8, 9), (5, 9, 8))).verdict == "reproduced"
    assert measures.weight_decay(study((1, 2, 3), (7, 8, 9), (50, 90, 80))).verdict == "contradicted"
    assert measures.weight_decay(study((None,) * 3, (7, 8, 9), (None,) * 3)).verdict == "inconclusive"
    found = measures.weight_decay(study((None, None, 90), (7, 8, 9), (5, 9, 8)))
    assert found.value == pytest.approx((5000 / 5 + 5000 / 9 + 90 / 8) / 3)


def test_update_norms_need_both_sweeps():
    def cells(*norms):
        return {
            "cells": {
                f"alpha={a}": {"update_norm": {"values": [n] * 3}} for a, n in zip((0.5, 1.5), norms, strict=True)
            }
        }

    both = Results({"readout_fixed_lr": cells(0.46, 0.47), "readout_scaled_lr": cells(1.85, 0.21)})
    assert measures.update_norms(both).verdict == "reproduced"
    flat = Results({"readout_fixed_lr": cells(0.46, 0.47), "readout_scaled_lr": cells(0.46, 0.47)})
    assert measures.update_norms(flat).verdict == "contradicted"


def test_the_identity_is_judged_without_epsilon():
    def pair(eps, moved, louder=0.0):
        node = lambda v: [{"values": [v] * 3, "mean": v, "error": 0.0}]  # noqa: E731
        return {"eps": eps, "moved": node(moved), "louder": node(louder), "plain": node(0.5)}

    good = {"pairs": {"a": pair(0.0, 1e-13), "b": pair(1e-8, 0.3)}}
    assert measures.readout_identity(Results({"readout_identity": good})).verdict == "reproduced"
    for bad in (pair(0.0, 1e-3), pair(0.0, 1e-13, 1e-3)):
        assert measures.readout_identity(Results({"readout_identity": {"pairs": {"a": bad}}})).verdict == "contradicted"


def test_seeds_that_cannot_tell_leave_a_verdict_open():
    assert measures.partly([True, True, True, None]) == "inconclusive"
    assert measures.partly([False, False, False, None]) == "contradicted"
    assert measures.partly([None, None, None]) == "inconclusive"
    assert measures.all_of([True, None]) is None and measures.all_of([False, None]) is False
