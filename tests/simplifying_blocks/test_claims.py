"""Claims on made-up results: on each side of every bound, on what would fool them, on what cannot tell (C13, C14, C21, C22:
test_init_experiments.py)."""

import math

import pytest

from common.claims import Missing, Study, judge
from common.plain import write_json
from simplifying_blocks.analysis.variants import DEEP, called
from simplifying_blocks.claims import CLAIMS, PAPER
from tests.simplifying_blocks.judging import C, I, R, assert_results_decide, claim, inside, judged, measured

EXPECTED = {
    "C1": "V-SkipInit over Pre-LN > 0.05; fall of naive over Pre-LN's < 0.5; share of it in train loss from 0.7 to 2",
    "C2": "rank correlation, identity > 0.8; rank correlation, orthogonal > 0.5; orthogonal over identity, least > 0",
    "C3": "distance over range, identity < 0.3; distance over range, orthogonal < 0.3",
    "C4": "(SAS - Pre-LN) / (V-SkipInit - Pre-LN) < 0.25",
    "C5": "share below 0.1 > 0.79; first V > 0.05; first V over the largest other > 1; loss over SAS > 0",
    "C6": "alpha > 0.2; beta > 0.2; gamma > 0.2; beta_FF > 0.2",
    "C7": "share below 0.1, parallel > 0.79; share below 0.1, orthogonal > 0.7",
    "C8": "end of ratio over start, median > 1; V = P = I over Pre-LN > 0; V = P = I over Pre-LN < 0.15; "
    "V = P = I, small branch, over Pre-LN > 0; V = P = I, small branch, over Pre-LN < 0.15",
    "C9": "parameters SAS-P saves, % > 10; SAS over Pre-LN from -0.03 to 0.03; SAS-P over Parallel from -0.03 to 0.03",
    "C10": "without norms over SAS-P > 0; without norms over SAS-P < 0.15; V-SkipInit over without norms > 0",
    "C11": "deep over shallow, V-SkipInit > 0; deep over shallow, Pre-LN < 0; deep over shallow, SAS < 0; "
    "deep over shallow, SAS-P < 0; deep over shallow, SAS-P, no norm < 0",
    "C12": "SAS over Pre-LN < 0.02; SAS-P over Pre-LN < 0.02",
    "C13": "% fewer, 18 blocks from 12 to 14; % fewer, BERT from 15 to 17",
    "C14": "SAS over Pre-LN > 1; SAS-P over SAS > 1; no norm over SAS-P > 1; Parallel over Pre-LN > 1; "
    "V-SkipInit over Pre-LN < 1",
    "C15": "cosine over linear, Pre-LN > 0; cosine over linear, SAS > 0; cosine over linear, SAS-P > 0; "
    "on the way, Pre-LN < 0; on the way, SAS < 0; on the way, SAS-P < 0",
    "C16": "alpha I + beta A over shaped, SAS > 0; alpha I + beta A over shaped, SAS < 0.1; "
    "alpha I + beta A over shaped, SAS-P > 0; alpha I + beta A over shaped, SAS-P < 0.1",
    "C17": "smallest over best > 0; largest over best > 0; best beta_FF < 0.5",
    "C18": "orthogonal over last_block > 0; last_block over all_blocks > 0; all_blocks over identity > 0; "
    "best beta, orthogonal from 0.01 to 0.3",
    "C19": "identity in block 1 over trained, SAS > 0; identity in block 1 over trained, SAS < 0.03; "
    "identity in block 1 over trained, SAS-P > 0; identity in block 1 over trained, SAS-P < 0.03",
    "C20": "without MLP skip over SAS, slope 0 > 0.1; without MLP skip over SAS, slope 0.2 > 0.1; "
    "without MLP skip over SAS, slope 0.8 > 0.1; slope 0.8 over slope 0 > 0",
    "C21": "V-SkipInit from identity > 0.5; Pre-LN from identity > 0.5; SAS from identity < 1e-12; "
    "SAS from SAS-P < 1e-06; the same without epsilon < 1e-12; V-SkipInit from a rotation < 1e-05",
    "C22": "naive > 0.99; naive, growth > 0.1; most of the shaped < 0.1",
    "C23": "V-SkipInit over Pre-LN > 0.05; SAS over Pre-LN from -0.05 to 0.05; SAS-P over Pre-LN from -0.05 to 0.05",
    "C24": "",
    "C25": "",
}
PRESETS = {
    ("quick", "medium", "gpu", "paper"): {"C1", "C4", "C6", "C9", "C10", "C13", "C21", "C22"},
    ("medium", "paper"): {"C2", "C3", "C7", "C8", "C11", "C12", "C15", "C16", "C17", "C18", "C19", "C23"},
    ("quick", "medium", "paper"): {"C5"},
    ("gpu", "paper"): {"C14"},
    ("paper",): {"C20"},
    (): {"C24", "C25"},
}


def test_every_threshold_is_as_it_was_frozen():
    assert {claim.id: claim.expected for claim in CLAIMS} == EXPECTED


def test_every_claim_is_tested_where_it_was_frozen():
    assert {claim.id: claim.presets for claim in CLAIMS} == {
        name: presets for presets, names in PRESETS.items() for name in names
    }


# Results


BASE, STEPS = 4.0, [0, 300, 375, 500]


def over_seeds(values: list) -> dict:
    return {"values": values, "mean": None, "error": None}


def compared(train=None, curves=None, parameters=None, **finals) -> dict:
    """A comparison of runs by name, with a final loss per seed over BASE, and what else differs of some of them."""
    runs = {
        name: {
            "final": over_seeds([BASE + loss for loss in losses]),
            "train": over_seeds([BASE - 0.5 + loss for loss in (train or {}).get(name, losses)]),
            "curve": [[7.0, way, way, BASE + loss] for way, loss in zip((curves or {}).get(name, losses), losses, strict=True)],
            "evaluated": STEPS, "steps": STEPS[-1], "parameters": (parameters or {}).get(name, 100), "seconds": 0.1, "lr": 5e-3,
        }
        for name, losses in finals.items()
    }  # fmt: skip
    return {"seeds": [3, 4, 5], "runs": runs}


SAME = [0.0] * 3
"""Losses of three seeds at BASE."""


def plus(*columns: list) -> list[float]:
    """Sums per seed."""
    return [math.fsum(values) for values in zip(*columns, strict=True)]


def times(a: list, b: list) -> list[float]:
    return [x * y for x, y in zip(a, b, strict=True)]


def blocks_of(n: dict) -> tuple[dict]:
    """C1."""
    slow = n["V-SkipInit over Pre-LN"]
    trained = {"main": SAME, "vskipinit": times(n["share of it in train loss"], slow)}
    # From 7 to BASE Pre-LN falls by 3.
    return (
        compared(trained, main=SAME, vskipinit=slow, naive=[3 * (1 - x) for x in n["fall of naive over Pre-LN's"]]),
    )


def shaped(n: dict) -> tuple[dict]:
    """C4."""
    [share] = n.values()
    return (compared(main=SAME, vskipinit=[1.0] * 3, sas=share),)


def ratios(first: float, others: list[float], seeds: int = 3, start: float = 0.2) -> dict:
    """Ten blocks that start at one ratio, and where V of the first, and the nineteen others end."""
    ends = {"V": [first, *others[:9]], "P": others[9:]}
    return {"seeds": [3, 4, 5][:seeds]} | {part: [[[start] * 10, row]] * seeds for part, row in ends.items()}


def vanished(n: dict) -> tuple[dict, dict]:
    """C5, with all but the first V vanished."""
    numbers = zip(n["first V"], n["first V over the largest other"], strict=True)
    rows = [ratios(first, [first / over] * 19, 1) for first, over in numbers]
    merged = {part: [row[part][0] for row in rows] for part in "VP"}
    return {"seeds": [3, 4, 5]} | merged, compared(sas=SAME, skipless=n["loss over SAS"])


def gains(n: dict) -> tuple[dict]:
    """C6: all gains stay but in one block, where they fall to a share, with the other sign."""
    kept = {name: [[[2.0, 2.0, 2.0], [2.0, -2.0 * s, 2.5]] for s in shares] for name, shares in n.items()}
    return ({"gains": kept},)


def grown(n: dict) -> tuple[dict, dict]:
    """C8."""
    cells = [ratios(0.2 * x, [0.2 * x] * 19, 1) for x in n["end of ratio over start, median"]]
    merged = {part: [cell[part][0] for cell in cells] for part in "VP"}
    runs = {
        "preln_identity": n["V = P = I over Pre-LN"],
        "preln_identity_small": n["V = P = I, small branch, over Pre-LN"],
    }
    return merged, compared(main=SAME, **runs)


def parity(n: dict) -> tuple[dict]:
    """C9: parameters are those of a block, not of a seed."""
    saved = n["parameters SAS-P saves, %"]
    runs = {"main": SAME, "sas": n["SAS over Pre-LN"], "parallel": [0.01] * 3}
    counts = {"sas_p": 100 - saved[0]}
    return (compared(parameters=counts, sas_p=plus([0.01] * 3, n["SAS-P over Parallel"]), **runs),)


def bare(n: dict) -> tuple[dict]:
    """C10."""
    nonorm = n["without norms over SAS-P"]
    return (compared(sas_p=SAME, sas_p_nonorm=nonorm, vskipinit=plus(nonorm, n["V-SkipInit over without norms"])),)


def deep(n: dict) -> tuple[dict]:
    """C11."""
    runs = {f"shallow_{block}": SAME for block in DEEP}
    return (compared(**runs, **{f"deep_{block}": n[f"deep over shallow, {called(block)}"] for block in DEEP}),)


def longer(n: dict) -> tuple[dict]:
    """C12."""
    return (compared(long_preln=SAME, long_sas=n["SAS over Pre-LN"], long_sas_p=n["SAS-P over Pre-LN"]),)


def schedules(n: dict) -> tuple[dict]:
    """C15."""
    pairs = {"main": "cosine_preln", "sas": "cosine_sas", "sas_p": "cosine_sas_p"}
    curves = {run: [5.0] * 3 for run in pairs}
    curves |= {cosine: plus([5.0] * 3, n[f"on the way, {called(run)}"]) for run, cosine in pairs.items()}
    ends = dict.fromkeys(pairs, SAME)
    ends |= {cosine: n[f"cosine over linear, {called(run)}"] for run, cosine in pairs.items()}
    return (compared(curves=curves, **ends),)


def attention_form(n: dict) -> tuple[dict]:
    """C16."""
    over = {f"eq4_{run}": n[f"alpha I + beta A over shaped, {called(run)}"] for run in ("sas", "sas_p")}
    return (compared(sas=SAME, sas_p=SAME, **over),)


def first_values(n: dict) -> tuple[dict]:
    """C19."""
    over = {f"{run}_no_first": n[f"identity in block 1 over trained, {called(run)}"] for run in ("sas", "sas_p")}
    return (compared(sas=SAME, sas_p=SAME, **over),)


def no_skip(n: dict) -> tuple[dict]:
    """C20: the slope 0.8 is where the last number says."""
    zero, fifth = (n[f"without MLP skip over SAS, slope {s}"] for s in ("0", "0.2"))
    runs = {"no_mlp_skip_0": zero, "no_mlp_skip_0.2": fifth, "no_mlp_skip_0.8": plus(zero, n["slope 0.8 over slope 0"])}
    return (compared(sas=SAME, **runs),)


def masked(n: dict) -> tuple[dict]:
    """C23."""
    runs = {"sas": "SAS", "sas_p": "SAS-P", "vskipinit": "V-SkipInit"}
    return (compared(mlm_preln=SAME, **{f"mlm_{run}": n[f"{name} over Pre-LN"] for run, name in runs.items()}),)


BETAS = [0, 0.1, 0.2, 0.5, 1]
FALLING, DIPPED = [1.0, 1.1, 1.2, 1.5, 2.0], [2.1, 2.0, 2.2, 2.5, 3.0]
"""Losses over BETAS: least at 0, least at 0.1."""


def sweep(seeds: int = 3, x=BETAS, **curves) -> dict:
    """Curves over beta, the same in every seed where one row is given."""
    rows = {name: y if isinstance(y[0], list) else [y] * seeds for name, y in curves.items()}
    return {"seeds": [3, 4, 5][:seeds], "curves": {name: {"x": list(x), "final": y} for name, y in rows.items()}}


def raised(curve: list, by: list, where: int | None = None) -> list[list[float]]:
    """Per seed the curve plus a number, at one place or at all."""
    return [[y + over * (where in (None, place)) for place, y in enumerate(curve)] for over in by]


def two_bases(n: dict) -> tuple[dict]:
    """C2: orthogonal lies 1 above the identity, but for the first beta."""
    least = n["orthogonal over identity, least"]
    above = raised(raised(FALLING, [1.0])[0], [over - 1.0 for over in least], where=0)
    return (sweep(identity=FALLING, orthogonal=above),)


def rates(n: dict) -> tuple[dict, dict]:
    """C3: curves of range 1 that part at one place."""
    curves = {base: raised(FALLING, n[f"distance over range, {base}"], where=1) for base in ("identity", "orthogonal")}
    return sweep(identity=FALLING, orthogonal=FALLING), sweep(**curves)


def ties(n: dict) -> tuple[dict, dict]:
    """C18: flat ties, which have three of the betas; the orthogonal curve is least at another one."""
    order = ("identity", "all_blocks", "last_block", "orthogonal")
    level, levels = [1.0] * 3, {"identity": [1.0] * 3}
    for below, above in zip(order, order[1:], strict=False):
        level = levels[above] = plus(level, n[f"{above} over {below}"])
    shape = [0.1, -1.0, -0.05, 0.5, -0.05]
    both = {"identity": [[y] * 5 for y in levels["identity"]]}
    both["orthogonal"] = [[y + s for s in shape] for y in level]
    return sweep(**both), sweep(x=[0, 0.2, 1], **{name: [[y] * 3 for y in levels[name]] for name in order[1:3]})


MADE = {
    "C1": blocks_of, "C2": two_bases, "C3": rates, "C4": shaped, "C5": vanished, "C6": gains, "C8": grown, "C9": parity,
    "C10": bare, "C11": deep, "C12": longer, "C15": schedules, "C16": attention_form, "C18": ties, "C19": first_values,
    "C20": no_skip, "C23": masked,
}  # fmt: skip
FIXED = ("rank correlation", "share below", "best beta", "parameters", "without MLP skip over SAS, slope 0.8")
"""Beginnings of numbers that a result cannot put anywhere, or not apart from the others; they have tests of their own."""


@pytest.mark.parametrize("name", MADE)
def test_a_claim_holds_within_all_bounds_and_falls_beyond_any(name):
    fixed = tuple(row["name"] for row in claim(name).bounds if row["name"].startswith(FIXED))
    assert_results_decide(name, MADE[name], fixed)


# What would fool a bound


def test_a_block_that_only_generalises_worse_does_not_train_slower():
    as_well = {"main": SAME, "vskipinit": SAME}
    losses = {"main": SAME, "vskipinit": [0.3] * 3, "naive": [2.0] * 3}
    assert judged("C1", compared(**losses | {"naive": [0.45] * 3})) == C
    assert judged("C1", compared(**losses)) == R
    assert judged("C1", compared(as_well, **losses)) == C
    assert judged("C1", compared(as_well | {"vskipinit": [0.15] * 3}, **losses)) == C
    assert judged("C1", compared(as_well | {"vskipinit": [0.7] * 3}, **losses)) == C


def test_the_lead_over_vskipinit_is_no_match_where_vskipinit_has_no_lag():
    assert judged("C4", compared(main=SAME, vskipinit=[0.4] * 3, sas=[0.01] * 3)) == R
    for vskipinit in (SAME, [-0.4] * 3):
        assert judged("C4", compared(main=SAME, vskipinit=vskipinit, sas=[0.3] * 3)) == I
    hardly = compared(main=SAME, vskipinit=[0.001] * 3, sas=[-0.3] * 3)
    assert judged("C4", hardly) == I
    assert judged("C4", compared(main=SAME, vskipinit=[0.4] * 3, sas=[-0.3] * 3)) == R


def slower(loss: float = 0.01) -> dict:
    return compared(sas=SAME, skipless=[loss] * 3)


def count_that_meets(name: str, number: str, of: int = 20) -> int:
    """The least number of `of` ratios whose share is above a bound."""
    [bound] = [row["value"] for row in claim(name).bounds if row["name"] == number]
    return next(count for count in range(of + 1) if count / of > bound)


def test_ratios_vanish_in_nearly_all_blocks():
    count = count_that_meets("C5", "share below 0.1")
    assert 10 < count < 20
    assert judged("C5", ratios(0.9, [0.01] * count + [0.5] * (19 - count)), slower()) == R
    assert judged("C5", ratios(0.9, [0.01] * (count - 1) + [0.5] * (20 - count)), slower()) == C
    nothing_moved = ratios(0.2, [0.2] * 19)
    assert judged("C5", nothing_moved, slower()) == C


def test_the_first_values_are_the_exception():
    assert judged("C5", ratios(0.01, [0.01] * 19), slower()) == C
    assert judged("C5", ratios(0.001, [0.01] * 19), slower()) == C
    for place in (0, 8, 9, 18):
        another = [0.01] * 19
        another[place] = 1.0
        assert judged("C5", ratios(0.9, another), slower()) == C


def test_ratios_are_judged_at_the_end_and_by_size():
    late = ratios(0.9, [0.01] * 19)
    for part in "VP":
        late[part] = [[*curve, [0.5] * 10] for curve in late[part]]
    assert judged("C5", late, slower()) == C


def test_ratios_elsewhere():
    numbers = {part: f"share below 0.1, {part}" for part in ("parallel", "orthogonal")}
    enough = {part: count_that_meets("C7", number) for part, number in numbers.items()}

    def shares(**less) -> list[dict]:
        counts = (count - less.get(part, 0) for part, count in enough.items())
        return [ratios(0.9, [0.01] * count + [0.5] * (19 - count)) for count in counts]

    assert judged("C7", *shares()) == R
    assert judged("C7", *shares(parallel=1)) == judged("C7", *shares(orthogonal=1)) == C


def test_few_ratios_that_grow_much_are_no_growth():
    good = {row["name"]: [0.1] * 3 for row in claim("C8").bounds}
    _, losses = grown(good)
    assert judged("C8", ratios(0.3, [0.3] * 19), losses) == R
    assert judged("C8", ratios(9.0, [9.0] * 8 + [0.19] * 11), losses) == C


def test_a_gain_that_vanishes_in_one_block_does_so():
    kept = {name: [1.0] * 3 for name in ("alpha", "beta", "gamma", "beta_FF")}
    assert judged("C6", *gains(kept)) == R
    assert judged("C6", *gains(kept | {"gamma": [1e-3] * 3})) == C
    [back] = gains(kept)
    back["gains"]["beta"] = [[[1.0, 1.0], [1.0, 1e-3], [1.0, 1.0]]] * 3
    assert judged("C6", back) == C


def test_a_saving_of_parameters_is_one_of_sas_p_over_parallel():
    good = {"SAS over Pre-LN": SAME, "SAS-P over Parallel": SAME}
    [bound] = [row["value"] for row in claim("C9").bounds if row["kind"] == "above"]
    for saved, verdict in ((bound + 1, R), (bound - 1, C), (0.0, C), (-13.0, C)):
        assert judged("C9", *parity(good | {"parameters SAS-P saves, %": [saved] * 3})) == verdict


def test_a_step_is_told_where_it_was_timed():
    [result] = parity({"SAS over Pre-LN": SAME, "SAS-P over Parallel": SAME, "parameters SAS-P saves, %": [13.0]})
    result["runs"]["sas"]["seconds"] = 0.08
    assert "a step of SAS takes 0.80" in claim("C9").note(result)
    for untimed in ("sas", "main"):
        result["runs"][untimed]["seconds"] = None
        assert "of SAS takes" not in claim("C9").note(result)


def test_what_blocks_cost_at_depth_is_told_block_by_block():
    good = {f"deep over shallow, {called(block)}": [-0.1] * 3 for block in DEEP}
    assert judged("C11", *deep(good)) == C
    assert judged("C11", *deep({name: [0.1] * 3 for name in good})) == C


def test_the_lead_of_the_cosine_is_looked_at_on_the_way():
    good = {f"cosine over linear, {called(run)}": [0.01] * 3 for run in ("main", "sas", "sas_p")}
    good |= {f"on the way, {called(run)}": [-0.05] * 3 for run in ("main", "sas", "sas_p")}
    [result] = schedules(good)
    assert judged("C15", result) == R
    for run in result["runs"].values():
        start, way, end = run["curve"][0][0], run["curve"][0][1], run["curve"][0][3]
        run["curve"] = [[start, way, end, end]] * 3
    assert judged("C15", result) == C


# Curves over a start or a weight


def test_loss_falls_with_beta_on_both_curves():
    assert judged("C2", sweep(identity=FALLING, orthogonal=DIPPED)) == R
    for curves in ({"identity": FALLING[::-1]}, {"orthogonal": DIPPED[::-1]}, {"identity": [1.5, 1.1, 1.9, 1.2, 1.6]}):
        assert judged("C2", sweep(**{"identity": FALLING, "orthogonal": [y + 3 for y in DIPPED]} | curves)) == C


@pytest.mark.parametrize("place", range(5))
def test_identity_leads_at_every_beta(place):
    crossing = [y + 1 for y in FALLING]
    crossing[place] = FALLING[place] - 1e-3
    result = sweep(identity=FALLING, orthogonal=crossing)
    assert judged("C2", result) == C and measured("C2", result)["orthogonal over identity, least"] == pytest.approx(
        [-1e-3] * 3
    )


def test_betas_are_compared_where_both_curves_have_them():
    few = sweep(identity=FALLING) | {}
    few["curves"]["orthogonal"] = {"x": [0.2, 1], "final": [[1.9, 2.9]] * 3}
    assert measured("C2", few)["orthogonal over identity, least"] == pytest.approx([0.7] * 3)
    few["curves"]["orthogonal"]["x"] = [0.3, 0.4]
    with pytest.raises(Missing, match="share"):
        measured("C2", few)


def test_rates_do_what_betas_do_only_along_the_whole_curve():
    same = sweep(identity=FALLING, orthogonal=FALLING)
    assert judged("C3", same, same) == R
    only_the_ends = [FALLING[0], 2.0, 2.0, 2.0, FALLING[-1]]
    shifted = [y + 0.5 for y in FALLING]
    for other in (only_the_ends, shifted, FALLING[::-1], [1.5] * 5):
        for base in ("identity", "orthogonal"):
            rates = sweep(**{"identity": FALLING, "orthogonal": FALLING} | {base: other})
            assert judged("C3", same, rates) == C


def starts(losses: list[float], seeds: int = 3) -> dict:
    names = (0.01, 0.03, 0.1, 0.3, 1, 3)
    runs = {f"beta_ff_{beta:g}": [loss] * seeds for beta, loss in zip(names, losses, strict=True)}
    return compared(main=[0.0] * seeds, **dict(reversed(runs.items())))


def test_the_best_start_lies_between_and_below_1():
    assert judged("C17", starts([0.3, 0.2, 0.1, 0.2, 0.4, 0.6])) == R
    assert judged("C17", starts([0.3, 0.2, 0.1, 0.2, 0.4, 0.3])) == R
    for monotone in ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [0.1] * 6):
        assert judged("C17", starts(monotone)) == C
    best_at_1 = [0.6, 0.5, 0.4, 0.3, 0.1, 0.2]
    assert judged("C17", starts(best_at_1)) == C
    assert measured("C17", starts(best_at_1))["best beta_FF"] == [1.0] * 3


GAPS = ("orthogonal over last_block", "last_block over all_blocks", "all_blocks over identity")


@pytest.mark.parametrize("gap", GAPS)
def test_tied_bases_out_of_order_in_one_place(gap):
    good = dict.fromkeys(GAPS, [0.1] * 3)
    assert judged("C18", *ties(good)) == R
    assert judged("C18", *ties(good | {gap: [-0.01] * 3})) == C


def test_the_orthogonal_base_prefers_a_small_beta_and_not_none():
    betas, tied = ties(dict.fromkeys(GAPS, [1.0] * 3))
    [(low, high)] = [row["value"] for row in claim("C18").bounds if row["kind"] == "within"]
    assert all(low <= beta <= high for beta in BETAS[1:3]) and BETAS[0] < low and high < BETAS[-1]
    for place, beta in enumerate(BETAS):
        row = [4.0] * 5
        row[place] = 3.9
        betas["curves"]["orthogonal"]["final"] = [row] * 3
        assert judged("C18", betas, tied) == (R if low <= beta <= high else C)


def test_no_slope_replaces_the_mlp_skip():
    good = {"without MLP skip over SAS, slope 0": [0.5] * 3, "without MLP skip over SAS, slope 0.2": [0.5] * 3}
    assert judged("C20", *no_skip(good | {"slope 0.8 over slope 0": [0.2] * 3})) == R
    assert judged("C20", *no_skip(good | {"slope 0.8 over slope 0": [-0.45] * 3})) == C


# What cannot tell


def results_of(name: str) -> tuple[dict, ...]:
    """Results that reproduce a claim."""
    if name == "C17":
        return (starts([0.3, 0.2, 0.1, 0.2, 0.4, 0.6]),)
    return MADE[name]({number: [value] * 3 for number, value in inside(name).items()})


def read_by(name: str) -> list[str]:
    """The runs and curves that a claim compares."""
    found = [key for result in results_of(name) for key in (*result.get("runs", ()), *result.get("curves", ()))]
    return sorted({*found} - ({"main"} if name == "C17" else set()))


COMPARED = [(name, key) for name in (*MADE, "C17") for key in read_by(name)]


def changed(results: tuple[dict, ...], key: str, change) -> tuple[dict, ...]:
    """The results, with every list over seeds of a run or a curve changed; of two curves of a name the last one."""
    owner = [result[kind] for result in results for kind in ("runs", "curves") if key in result.get(kind, ())][-1]
    cell = dict(owner[key])
    for part in {"final", "train", "curve"} & cell.keys():
        values = cell[part]["values"] if isinstance(cell[part], dict) else cell[part]
        cell[part] = over_seeds(change(values)) if isinstance(cell[part], dict) else change(values)
    owner[key] = cell
    return results


def diverged(values: list) -> list:
    """The last seed lost."""
    return [*values[:-1], [math.nan] * len(values[-1]) if isinstance(values[-1], list) else math.nan]


@pytest.mark.parametrize(("name", "key"), COMPARED)
def test_a_run_of_fewer_seeds_is_a_missing_one(name, key):
    assert judged(name, *results_of(name)) == R
    with pytest.raises(Missing, match="expected as many"):
        measured(name, *changed(results_of(name), key, lambda values: values[:2]))


def test_pairs_of_other_seeds_are_missing_ones():
    """Each pair for itself has as many."""
    for name, runs in (
        ("C11", ["deep_sas", "shallow_sas"]),
        ("C16", ["sas_p", "eq4_sas_p"]),
        ("C19", ["sas", "sas_no_first"]),
    ):
        for change in (lambda values: values[:2], lambda values: [*values, values[-1]]):
            results = results_of(name)
            for run in runs:
                changed(results, run, change)
            with pytest.raises(Missing, match="expected as many"):
                measured(name, *results)


@pytest.mark.parametrize(("name", "key"), COMPARED)
def test_a_seed_that_diverged_cannot_tell(name, key):
    assert judged(name, *changed(results_of(name), key, diverged)) == I


@pytest.mark.parametrize(("name", "key"), [pair for pair in COMPARED if pair[0] != "C17"])
def test_a_run_that_was_not_compared_is_a_missing_one(name, key):
    results = results_of(name)
    for result in results:
        result.get("runs", {}).pop(key, None), result.get("curves", {}).pop(key, None)
    with pytest.raises(Missing, match=key):
        measured(name, *results)


def test_ratios_and_gains_of_a_seed_that_diverged_cannot_tell():
    lost = ratios(0.9, [0.01] * 19)
    lost["V"] = [*lost["V"][:2], [[0.2] * 10, [math.nan] * 10]]
    assert judged("C5", lost, slower()) == judged("C7", lost, ratios(0.9, [0.01] * 19)) == I
    growing = ratios(0.3, [0.3] * 19)
    growing["P"] = [*growing["P"][:2], [[0.2] * 10, [math.nan] * 10]]
    assert judged("C8", growing, results_of("C8")[1]) == I
    [kept] = results_of("C6")
    kept["gains"]["alpha"] = [*kept["gains"]["alpha"][:2], [[2.0] * 3, [math.nan] * 3]]
    assert judged("C6", kept) == I


def test_no_start_is_the_best_of_none():
    assert judged("C17", compared(main=SAME)) == I


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize(("name", "why"), [("C24", "GLUE"), ("C25", "Languini")])
def test_what_was_not_run_stays_in_the_table_and_says_why(name, why, preset, tmp_path):
    write_json(tmp_path / preset / "main/results/blocks.json", compared(main=SAME, sas=SAME))
    [row] = judge(PAPER, [claim(name)], Study(tmp_path / preset))
    assert row["preset"] == preset and row["verdict"] == "not at this scale"
    assert row["note"].startswith("Not run: ") and why in row["note"]
    assert (
        row["command"] == row["expected"] == "" and row["measured"] is None and not row["values"] and not row["bounds"]
    )
    assert row["paper"] and row["source"] and row["statement"]
