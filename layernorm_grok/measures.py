"""How each claim of the paper is measured in a study: one function per claim, from results to a Measurement.

T is the first step at which a seed's test accuracy reaches 0.99 (the paper thresholds a mean curve at its first crossing too);
None, "never", is later than any step. Seeds are paired: all cells share a seed's split and initial weights. What needs a
seed to have generalised says nothing of a seed that has not.
"""

import math
from collections.abc import Callable

from scipy import stats

from common.claims import Measurement, Missing, Study, verdict_below
from common.measures import at_least, columns, every, spread, steps, told

ORDER = ("mlp-pre", "pre", "attn-pre", "off")
"""M, M+A*, A*, No LN: fastest first."""


class Cells(dict):
    """Cells of a result by name; one that is not there counts as a missing result."""

    def __missing__(self, name: str):
        raise Missing(f"found no cell {name} in a result, expected an analysis over all of its config's cells")


def cells_of(study: Study, name: str, run: str = "main") -> dict:
    return Cells(study.result(name, run)["cells"])


LOST = math.nan
"""The time of a replica that diverged: unknown, where None is never."""


def firsts(cells: dict, *names: str) -> list[tuple]:
    """Per seed the first crossings of several cells; LOST where a replica diverged before one."""
    rows = (
        [LOST if gone else t for t, gone in zip(c["times"]["first"], c["lost"], strict=True)]
        for c in (cells[n] for n in names)
    )
    return list(zip(*rows, strict=True))


def sooner(a: float | None, b: float | None) -> bool | None:
    """Is a before b? None where neither came, or one is lost."""
    if LOST in (a, b) or a is None and b is None:
        return None
    return b is None or (a is not None and a < b)


def no_later(a: float | None, b: float | None) -> bool | None:
    """Is a before b or with it? None where neither came, or one is lost."""
    if LOST in (a, b) or a is None and b is None:
        return None
    return b is None or (a is not None and a <= b)


def partly(rows: list[bool | None]) -> str:
    """`every`, where None means that a seed cannot tell: such seeds leave a verdict open, unless another one is enough."""
    known = [row for row in rows if row is not None]
    verdict = every(known)
    return "inconclusive" if len(known) < len(rows) and verdict == "reproduced" else verdict


def rate(rows: list[bool | None]) -> dict:
    """Share of seeds that say yes, as {values, mean, error}; what cannot be told counts as no."""
    return spread([float(bool(row)) for row in rows])


def crossings(cells: dict, names) -> str:
    return "; ".join(f"{name} {steps(cells[name]['times']['first'])}" for name in names)


def all_of(rows: list[bool | None]) -> bool | None:
    """Conjunction in which False beats None."""
    return False if False in rows else None if None in rows else True


def placement_order(study: Study, name: str = "ln_position", run: str = "main") -> Measurement:
    """C1, C19, C20: in each seed M < M+A* < A* < No LN."""
    cells = cells_of(study, name, run)
    good = [all_of([sooner(a, b) for a, b in zip(row, row[1:], strict=False)]) for row in firsts(cells, *ORDER)]
    right = [sum(bool(sooner(a, b)) for a, b in zip(row, row[1:], strict=False)) for row in firsts(cells, *ORDER)]
    paper = ", ".join(f"{cells[n]['times']['gen_loss'] or 'never'}" for n in ORDER)
    note = f"neighbours in order, of 3; first step at 0.99: {crossings(cells, ORDER)}; mean test loss at 0.01: {paper}"
    return told(spread(right), partly(good), note)


def fitting_does_not_predict(study: Study) -> Measurement:
    """C2: Kendall's tau over the four placements between T_train and T, per seed."""
    result = study.result("ln_position")
    known = [v for v in result["tau"] if v is not None]
    good = [None if v is None else v < 0.7 for v in result["tau"]]
    fits = "; ".join(f"{n} {steps(result['cells'][n]['times']['t_train'])}" for n in ORDER)
    if not known:
        return Measurement(None, None, "inconclusive", 0, f"T_train: {fits}")
    return told(spread(known), partly(good), f"T_train: {fits}")


def agreement(pairs: list[tuple[float, float]]) -> float | None:
    """Goodman and Kruskal's gamma of (a, b) pairs: concordant less discordant over both, ties left out; None without any."""
    signs = [(a - c) * (b - d) for i, (a, b) in enumerate(pairs) for c, d in pairs[:i]]
    told = [sign for sign in signs if sign == sign and sign != 0]
    return (sum(sign > 0 for sign in told) - sum(sign < 0 for sign in told)) / len(told) if told else None


def taus(cells: dict, key: Callable[[dict], list], names=ORDER) -> list[float | None]:
    """Per seed the agreement of a list of steps with T over cells; None where nothing can be told.

    None on either side (it never came) is later than any step, and two nevers are in no order.
    """
    found = []
    for seed, row in enumerate(zip(*(cells[n]["first"] for n in names), strict=True)):
        pairs = [(key(cells[n])[seed], t) for n, t in zip(names, row, strict=True)]
        found.append(agreement([tuple(math.inf if v is None else v for v in pair) for pair in pairs]))
    return found


def judged_taus(found: list[float | None], level: float, note: str) -> Measurement:
    known = [t for t in found if t is not None]
    if not known:
        return Measurement(None, None, "inconclusive", 0, note)
    return told(spread(known), partly([None if t is None else t > level for t in found]), note)


def fourier_order(study: Study) -> Measurement:
    """C3: C_F rises to 30 times its start in the order of T; no pair of the known placements the other way in any seed."""
    cells = cells_of(study, "fourier")
    passes = "; ".join(f"{n} {steps(cells[n]['passes'])}" for n in ORDER)
    rises = "; ".join(f"{n} {steps(cells[n]['rises'])}" for n in ORDER)
    note = f"agreement with T, never last; C_F at 30 times its start: {rises}; at 1 (the paper's): {passes}"
    return judged_taus(taus(cells, lambda cell: cell["rises"]), 0.99, note)


def ends_periodic(study: Study) -> Measurement:
    """C4: the literal wording (C_F at least 1 at the end), C_F over 30 times its start, and the share of five frequencies.

    No LN is that of the decay sweep at lambda = 1, which trains on enough pairs to generalise within the budget.
    """
    cells = cells_of(study, "fourier") | {"off": cells_of(study, "fourier", "wd_sweep")["weight_decay=1"]}
    good, literal, least = [], [], []
    for seed in range(len(cells["off"]["seeds"])):
        curves = {n: cells[n]["seeds"][seed] for n in ORDER}
        came = {n: cells[n]["first"][seed] is not None for n in ORDER}
        ratios = {n: c["concentration"][-1] / c["concentration"][0] for n, c in curves.items()}
        good.append(all_of([ratios[n] >= 30 if came[n] else None for n in ORDER]))
        literal.append(all_of([curves[n]["concentration"][-1] >= 1 if came[n] else None for n in ORDER]))
        least.append(min(ratios[n] for n in ORDER if came[n]) if any(came.values()) else 0.0)
    ends = {n: [c["concentration"][-1] for c in cells[n]["seeds"]] for n in ORDER}
    shares = {n: [c["key_share"][-1] for c in cells[n]["seeds"]] for n in ORDER}
    note = "least C_F / start of a placement that generalised; at the end C_F, and share of 5 frequencies: "
    note += "; ".join(f"{n} {_numbers(ends[n])}, {_numbers(shares[n])}" for n in ORDER)
    note += f"; by the paper's wording (C_F >= 1): {partly(literal)}"
    return told(spread(least), partly(good), note)


def _numbers(values: list) -> str:
    return "/".join("-" if v is None else f"{v:.2f}" for v in values)


def after(curve: dict, key: str, step: float | None) -> list[float]:
    """Values of a curve from a step on."""
    return [v for s, v in zip(curve["steps"], curve[key], strict=True) if step is not None and s >= step]


def gap(curve: dict, key: str, other: str) -> float:
    """Largest distance between two curves of one seed, where both are known."""
    pairs = zip(curve[key], curve[other], strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def scale_is_read(study: Study) -> Measurement:
    """C5: scale-removed loss far above the train loss, up by a fifth while memorising, down by a fifth once it groks.

    No LN is that of the decay sweep at lambda = 1, which trains on enough pairs to generalise within the budget.
    """
    cell = cells_of(study, "sr_train", "wd_sweep")["weight_decay=1"]
    good, peaks, variants = [], [], []
    for curve, fit, first in zip(cell["seeds"], cell["times"]["t_train"], cell["times"]["first"], strict=True):
        values = after(curve, "train_unit_loss", fit)
        peak = max(values, default=0.0)
        far = all(v > 10 * t for v, t in zip(values, after(curve, "train_loss", fit), strict=True)) and peak > 1
        rises = bool(values) and peak > 1.2 * values[0]
        falls = values[-1] < 0.8 * peak if first is not None and values else None
        good.append(None if fit is None else all_of([far, rises, falls]))
        peaks.append(peak)
        variants.append(gap(curve, "train_mean_norm_loss", "train_loss"))
    ends = [curve["train_unit_loss"][-1] for curve in cell["seeds"]]
    note = f"largest loss with y / ||y|| after T_train, at the end {_numbers(ends)}; T {steps(cell['times']['first'])}; with "
    note += (
        f"the mean of ||y|| kept, the train loss moves by at most {max(variants):.2f}: what counts is the mean scale"
    )
    return told(spread(peaks), partly(good), note)


def paths_of_scale(study: Study) -> Measurement:
    """C6: A^v's scale-removed loss falls by less than a quarter from its peak to the end; judged on the same path."""
    cells = cells_of(study, "sr_train")

    def falls(name: str, mode: str) -> list[float]:
        return [
            1 - c[f"train_{mode}_loss"][-1] / max(after(c, f"train_{mode}_loss", 100)) for c in cells[name]["seeds"]
        ]

    same, code = falls("attn-pre-v", "unit"), falls("attn-pre-v", "code")
    exact = max(gap(c, "train_unit_loss", "train_loss") for c in cells["mlp-pre"]["seeds"])
    came = [t is not None for t in cells["attn-pre-v"]["times"]["first"]]
    note = f"fall of A^v's from its peak, same path; as the authors ran it, all norms dropped: {_numbers(code)}, "
    note += f"M {_numbers(falls('mlp-pre', 'code'))}; on the same path M's is its train loss (within {exact:.1g})"
    return told(spread(same), partly([f < 0.25 if c else None for f, c in zip(same, came, strict=True)]), note)


def value_path(study: Study) -> Measurement:
    """C7: T(M) <= T(A^v) <= T(No LN) / 2; a No LN that never came is no earlier than the budget."""
    cells, names = cells_of(study, "attn_paths"), ("mlp-pre", "attn-pre-v", "off")
    budget = cells["off"]["budget"]

    def half(v, off) -> bool | None:
        if LOST in (v, off) or (off is None and (v is None or v > budget / 2)):
            return None
        return v is not None and v <= (budget if off is None else off) / 2

    good = [all_of([no_later(m, v), half(v, off)]) for m, v, off in firsts(cells, *names)]
    return told(rate(good), partly(good), f"share of seeds; T: {crossings(cells, names)}")


def query_key_path(study: Study) -> Measurement:
    """C8: A^qk generalises no sooner than No LN; of two that never do, A^qk ends with the lower test accuracy."""
    cells, names = cells_of(study, "attn_paths"), ("attn-pre-qk", "off")
    ends = zip(*(cells[n]["final_accuracy"] for n in names), strict=True)
    good = [
        a < b if qk is None and off is None else no_later(off, qk)
        for (qk, off), (a, b) in zip(firsts(cells, *names), ends, strict=True)
    ]
    accuracy = "; ".join(f"{n} {_numbers(cells[n]['final_accuracy'])}" for n in names)
    return told(
        rate(good), partly(good), f"share of seeds; T: {crossings(cells, names)}; test accuracy at the end: {accuracy}"
    )


def entropy_order(study: Study) -> Measurement:
    """C9, head-averaged as in the paper: A^qk's mean entropy from step 200 on below No LN's; M ends within 5% of uniform."""
    result, cells = study.result("attention_entropy"), cells_of(study, "attention_entropy")

    def means(name: str, mode: str) -> list[float]:
        later = [after(c, mode, 200) or c[mode][-1:] for c in cells[name]["seeds"]]
        return [sum(values) / len(values) for values in later]

    gaps = [off - qk for qk, off in zip(means("attn-pre-qk", "paper"), means("off", "paper"), strict=True)]
    m = [c["paper"][-1] / result["uniform"] for c in cells["mlp-pre"]["seeds"]]
    used = [
        off - qk for qk, off in zip(means("attn-pre-qk", "per_head_last"), means("off", "per_head_last"), strict=True)
    ]
    note = f"No LN less A^qk, mean from step 200 on, nats; M at its end over ln 3: {_numbers(m)}; "
    note += f"per head, on the row that is used, No LN less A^qk: {_numbers(used)}"
    return told(spread(gaps), every([g > 0 and share > 0.95 for g, share in zip(gaps, m, strict=True)]), note)


def extremes(cells: dict, key: Callable[[str], float]) -> tuple[str, str]:
    """Names of the cells with the least and the largest value of an axis."""
    ordered = sorted(cells, key=key)
    return ordered[0], ordered[-1]


def value_in(name: str) -> float:
    """0.5 from alpha=0.5 or weight_decay=0.5."""
    return float(name.rpartition("=")[2])


def ends_of_sweep(study: Study, run: str, faster_is_larger: bool, extra: str = "") -> Measurement:
    """In each seed the extremes of an axis generalise in the claimed order; value: ratio of their T, the budget for never."""
    cells = cells_of(study, run, run)
    low, high = extremes(cells, value_in)
    fast, slow = (high, low) if faster_is_larger else (low, high)
    good = [sooner(a, b) for a, b in firsts(cells, fast, slow)]
    budget = cells[fast]["budget"]
    ratios = [(b or budget) / (a or budget) for a, b in firsts(cells, fast, slow)]
    note = f"T of {slow} over T of {fast} (budget for never); {crossings(cells, cells)}{extra}"
    return told(spread(ratios), partly(good), note)


def learning_rate(study: Study) -> Measurement:
    return ends_of_sweep(study, "lr_sweep", True)


def weight_decay(study: Study) -> Measurement:
    cells = cells_of(study, "wd_sweep", "wd_sweep")
    products = "; ".join(f"{n} {_numbers(cells[n]['decayed'])}" for n in cells)
    return ends_of_sweep(study, "wd_sweep", True, f"; T eta lambda: {products}")


def scaled_readout(study: Study) -> Measurement:
    return ends_of_sweep(study, "readout_scaled_lr", False)


def fixed_readout(study: Study) -> Measurement:
    """C13: per seed; the mean-curve statistics, which may say otherwise, are in the note."""
    cells = cells_of(study, "readout_fixed_lr", "readout_fixed_lr")
    paper = ", ".join(f"{n} {c['times']['gen_loss'] or 'never'}" for n, c in cells.items())
    half = ", ".join(f"{c['mean_loss_half_way']:.2g}" for c in cells.values())
    extra = f"; mean test loss first at 0.01: {paper}; mean test loss half-way: {half}"
    return ends_of_sweep(study, "readout_fixed_lr", True, extra)


def update_norms(study: Study) -> Measurement:
    """C14: largest over least ||update|| of step 1 across alpha: below 1.1 at fixed eta, above 5 under eta_0 / alpha^2."""
    spreads = []
    for run in ("readout_fixed_lr", "readout_scaled_lr"):
        rows = zip(*(c["update_norm"]["values"] for c in cells_of(study, run, run).values()), strict=True)
        spreads.append([max(row) / min(row) for row in rows])
    good = [fixed < 1.1 and scaled > 5 for fixed, scaled in zip(*spreads, strict=True)]
    note = f"largest over least at fixed eta; under eta_0 / alpha^2 {_numbers(spreads[1])}"
    return told(spread(spreads[0]), every(good), note)


def readout_identity(study: Study) -> Measurement:
    """C15: in float64 with epsilon 0 the twins' logits agree to 1e-9 after all steps, and a tripled loss changes nothing."""
    pairs = [p for p in study.result("readout_identity")["pairs"].values() if p["eps"] == 0]
    worst = [max(v) for v in columns(*(p[key][-1] for p in pairs for key in ("moved", "louder")))]
    plain = [max(v) for v in columns(*(p["plain"][-1] for p in pairs))]
    return told(spread(worst), verdict_below(worst, 1e-9), f"relative; from the run at alpha = 1: {_numbers(plain)}")


def compressed_in_order(study: Study) -> Measurement:
    """C16: per seed, tau between T and the "within 10%" steps of rank and exponent; at most one swap of four."""
    cells = cells_of(study, "compressibility")
    by_rank, by_exponent = (
        taus(cells, lambda cell, k=k: cell["within"][k]) for k in ("test_effective_rank", "test_alpha_pl")
    )
    lesser = [None if None in pair else min(pair) for pair in zip(by_rank, by_exponent, strict=True)]
    # Where a replica stopped with its rank still falling, its minimum, and so "within 10%" of it, is not known.
    cut = [any(stops) for stops in zip(*(cells[n]["at_stop"]["test_effective_rank"] for n in ORDER), strict=True)]
    judged = [None if stopped else value for value, stopped in zip(lesser, cut, strict=True)]
    medians = "; ".join(
        f"{n} {steps(cells[n]['within']['test_effective_rank'])} and {steps(cells[n]['within']['test_alpha_pl'])}"
        for n in ORDER
    )
    note = f"lesser agreement of the two; rank alone {_numbers(by_rank)}, exponent alone {_numbers(by_exponent)}; "
    note += f"steps: {medians}"
    note += (
        f"; in {sum(cut)} seeds a placement stopped with its rank still falling, and they tell nothing"
        if any(cut)
        else ""
    )
    known = [value for value in lesser if value is not None]
    if not known:
        return Measurement(None, None, "inconclusive", 0, note)
    return told(spread(known), partly([None if v is None else v > 0.6 for v in judged]), note)


def attention_norm_is_less_compressible(study: Study) -> Measurement:
    """C17: A*'s least effective rank is no lower than No LN's."""
    cells = cells_of(study, "compressibility")
    gaps, good = [], []
    names = ("attn-pre", "off")
    stops = zip(*(cells[n]["at_stop"]["test_effective_rank"] for n in names), strict=True)
    rows = zip(*(cells[n][k] for k in ("minimum", "first") for n in names), strict=True)
    for (a, off, *came), stopped in zip(rows, stops, strict=True):
        gaps.append(a - off)
        good.append(a >= off if None not in came and not any(stopped) else None)
    least = ", ".join(f"{n} {_numbers(cells[n]['minimum'])}" for n in ORDER)
    note = f"A* less No LN; least effective ranks: {least}"
    return told(spread(gaps), partly(good), note)


def decay_compresses(study: Study) -> Measurement:
    """C18: Spearman's rho between lambda and the effective rank at the end, per seed, below 0."""
    cells = cells_of(study, "wd_sweep", "wd_sweep")
    decays = [c["weight_decay"] for c in cells.values()]
    rows = columns(*(c["end_spectrum"]["test_effective_rank"] for c in cells.values()))
    rho = [float(stats.spearmanr(decays, row).statistic) for row in rows]
    means = ", ".join(
        f"{c['weight_decay']:g}: {c['end_spectrum']['test_effective_rank']['mean']:.1f}" for c in cells.values()
    )
    note = f"mean effective rank by lambda, each where it stopped: {means}"
    return told(spread(rho), verdict_below(rho, 0.0), note)


def from_on(curve: dict, key: str, step: int | None) -> float | None:
    """Value of one seed's curve at its first checkpoint from a step on; None without one."""
    return next(iter(after(curve, key, step)), None)


def no_lazy_phase(study: Study) -> Measurement:
    """C21: the kernel has left its start by more than five times its norm when No LN has fitted the train pairs."""
    cells = cells_of(study, "ntk")
    node = cells["off"]["at_fit"]
    if None in node["values"]:
        return Measurement(None, None, "inconclusive", 0, "a seed did not fit")
    others = "; ".join(f"{n} {_numbers(c['at_fit']['values'])}" for n, c in cells.items() if n != "off")
    sums = [from_on(c, "sum", t) for c, t in zip(cells["off"]["seeds"], cells["off"]["t_train"], strict=True)]
    note = "||K_t - K_0|| / ||K_0|| at the first checkpoint from T_train on, No LN; sum kernel, as the paper's: "
    return at_least(node, 5.0, f"{note}{_numbers(sums)}; {others}")


def subtraction_changes_little(study: Study) -> Measurement:
    """C22: T with the initial output subtracted within a factor 1.5 of T without, at alpha = 1 and each seed."""
    with_it = cells_of(study, "readout_fixed_lr_subtract", "readout_fixed_lr_subtract")
    without = cells_of(study, "readout_fixed_lr_eps0", "readout_fixed_lr_eps0")
    with_it, without = with_it["alpha=1"], without["alpha=1"]
    rows = list(zip(with_it["times"]["first"], without["times"]["first"], strict=True))
    budget = with_it["budget"]

    def close(a, b) -> bool | None:
        """None where a time beyond the budget may still be close to the other."""
        if None not in (a, b):
            return 1 / 1.5 < a / b < 1.5
        known = b if a is None else a
        return False if known is not None and budget > 1.5 * known else None

    ratios = [a / b for a, b in rows if None not in (a, b)]
    note = f"T with over T without; {steps([a for a, _ in rows])} and {steps([b for _, b in rows])}"
    if not ratios:
        return Measurement(None, None, "inconclusive", 0, note)
    return told(spread(ratios), partly([close(a, b) for a, b in rows]), note)


def also_without_epsilon(study: Study) -> Measurement:
    """C23: C12 and C13 again with kaiming weights and epsilon 0."""
    scaled = ends_of_sweep(study, "readout_scaled_lr_eps0", False)
    fixed = ends_of_sweep(study, "readout_fixed_lr_eps0", True)
    both = {scaled.verdict, fixed.verdict}
    verdict = both.pop() if len(both) == 1 else "inconclusive"
    note = f"eta_0 / alpha^2: {scaled.verdict}, {scaled.note}; fixed eta: {fixed.verdict}, {fixed.note}"
    return Measurement(scaled.value, scaled.error, verdict, scaled.seeds, note)


def both_norms(study: Study) -> Measurement:
    """C24: T(M+A^v) <= T(M)."""
    cells, names = cells_of(study, "attn_paths"), ("pre-v", "mlp-pre")
    good = [no_later(a, b) for a, b in firsts(cells, *names)]
    return told(rate(good), partly(good), f"share of seeds; T: {crossings(cells, names)}")


def plateau(study: Study, fraction: float) -> Measurement:
    """C25: A*'s plateau of test accuracy within a quarter of the train fraction, the share of pairs whose mirror is known."""
    cells = cells_of(study, "ln_position")
    node = cells["attn-pre"]["plateau_accuracy"]
    good = [None if v is None else abs(v / fraction - 1) < 0.25 for v in node["values"]]
    known = [v for v in node["values"] if v is not None]
    others = "; ".join(f"{n} {_numbers(cells[n]['plateau_accuracy']['values'])}" for n in ORDER if n != "attn-pre")
    note = f"A*'s median test accuracy from T_train half-way to T; train fraction {fraction:g}; {others}"
    return told(spread(known), partly(good), note) if known else Measurement(None, None, "inconclusive", 0, note)
