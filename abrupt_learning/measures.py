"""How each claim of the paper is measured in a study: one function per claim, from results to a Measurement.

The thresholds stand here and in the texts of claims.py. Which of them moved after a run had been seen, and what the verdict
would have been, is in the README ("Thresholds that moved").
"""

from collections.abc import Callable

from common.claims import Measurement, Study, verdict_above, verdict_below
from common.measures import at_least, columns, earlier, every, spread, steps, told


def completed(study: Study) -> list[bool]:
    """Per seed: does the model complete at all (L_mask below Var / 2 at the end)? What follows the drop needs it."""
    result = study.result("loss")
    return [v < 0.5 * result["levels"]["loss_masked"] for v in result["end"]["loss_masked"]["values"]]


def after_drop(study: Study, node: dict, good: list[bool], note: str = "") -> Measurement:
    """A measurement on trained models: each seed must be good, and have dropped."""
    done = completed(study)
    note += "" if all(done) else "; seeds that never dropped count against it"
    return told(node, every([g and d for g, d in zip(good, done, strict=True)]), note)


def abrupt(study: Study) -> Measurement:
    """The sheet's acceptance: a plateau within 3% of p Var, a drop, and A3 below one half; A4 is told in the note."""
    result = study.result("loss")
    drop, level = result["drop"], result["levels"]["loss"]
    seeds = columns(drop["plateau_loss"], drop["half"], drop["sharpness"])
    good = [abs(p / level - 1) < 0.03 and h is not None and s is not None and s < 0.5 for p, h, s in seeds]
    note = f"t_drop at {steps(drop['half']['values'])}; plateau L / (p Var) {drop['plateau_loss']['mean'] / level:.3f}; slope "
    note += ", ".join("none" if v is None else f"{v:+.1%}" for v in drop["slope"]["values"])
    return told(drop["sharpness"], every(good), note)


def copying_plateau(study: Study) -> Measurement:
    """At 4/15 t_drop, the paper's step 4000, on fixed matrices; L_mask against predicting 0 at the same cells."""
    result = study.result("loss")
    early, variance = result["early"], result["levels"]["loss_masked"]
    seeds = columns(early["loss_observed"], early["relative"], early["mask_value"])
    good = [o < 0.02 * variance and abs(r - 1) < 0.03 and v < 0.1 for o, r, v in seeds]
    note = f"L_mask over predicting 0 {early['relative']['mean']:.3f}; mean abs prediction at hidden cells "
    note += f"{early['mask_value']['mean']:.3f}"
    return told(early["loss_observed"], every(good), note)


def worst_copy(rows: dict, name: str, moments: tuple, shown=None) -> list[float]:
    """Per seed the largest error of a kind over moments of the plateau and over what is shown at hidden cells."""
    cells = [row[what][name]["values"] for at, row in rows.items() if at in moments for what in (shown or row)]
    return [max(values) for values in zip(*cells, strict=True)]


def copies_anything(study: Study) -> Measurement:
    """At 4/15 t_drop; the paper's other two steps are in the note, since here the drop begins and ends nearer to them."""
    result = study.result("copy_check")
    rows, limit = result["low_rank"], 0.05 * result["variance"]["low_rank"]
    copies, shown = (worst_copy(rows, name, ("early",)) for name in ("copy_error", "loss_observed"))
    good = [c < limit and o < limit for c, o in zip(copies, shown, strict=True)]
    first, before = (max(worst_copy(rows, "copy_error", (at,))) for at in ("first", "before"))
    note = f"worst of MASK, 0.44, -0.24; threshold {limit:.4f}; at 1/15 and 14/15 t_drop {first:.4f} and {before:.4f}"
    return told(spread(copies), every(good), note)


def copies_incoherent(study: Study) -> Measurement:
    result = study.result("copy_check")
    level, rows = result["zero"]["incoherent"], result["incoherent"]
    shown, hidden = (worst_copy(rows, name, ("early",), ["mask"]) for name in ("loss_observed", "loss_masked"))
    good = [o < 0.02 and abs(m / level - 1) < 0.05 for o, m in zip(shown, hidden, strict=True)]
    mean = sum(hidden) / len(hidden)
    return told(spread(shown), every(good), f"L_mask {mean:.4f}, predicting 0 at the same cells {level:.4f}")


def completes(study: Study) -> Measurement:
    result = study.result("loss")
    variance = result["levels"]["loss_masked"]
    relative = [v / variance for v in result["end"]["loss_masked"]["values"]]
    return told(spread(relative), verdict_below(relative, 0.25), "L_mask / Var at the end, on 4096 fresh matrices")


def beats_nuclear_norm(study: Study) -> Measurement:
    rows = study.result("compare_nuclear_norm")["at_training_p"]
    ratio = [b / rows["nuclear_norm"]["loss"] for b in rows["bert"]["loss"]["values"]]
    truth, solver = rows["truth"]["nuclear"], rows["nuclear_norm"]["nuclear"]
    nearer = [abs(b - truth) < abs(solver - truth) for b in rows["bert"]["nuclear"]["values"]]
    note = f"nuclear norm: truth {truth:.3f}, solver {solver:.3f}, BERT {rows['bert']['nuclear']['mean']:.3f}"
    good = [r < 1 and n for r, n in zip(ratio, nearer, strict=True)]
    return told(spread(ratio), every(good), note)


def best_heads(study: Study, at: str) -> list[tuple]:
    """Per seed the best row and column score, over chance."""
    result = study.result("attention_maps")
    level, rows = result["chance"]["none"], result["maximum"]["none"][at]
    return [(r / level["row"], c / level["column"]) for r, c in columns(rows["row"], rows["column"])]


def structured_heads(study: Study) -> Measurement:
    after, before = best_heads(study, "end"), best_heads(study, "early")
    lower = [min(pair) for pair in after]
    good = [low > 2 and max(early) < 1.5 for low, early in zip(lower, before, strict=True)]
    early = sum(max(pair) for pair in before) / len(before)
    note = f"lesser of best row and best column score over chance; the greater on the plateau {early:.2f}"
    return after_drop(study, spread(lower), good, note)


def attention_evolves(study: Study) -> Measurement:
    before, after = best_heads(study, "early"), best_heads(study, "after")
    jumps = [min(late) / min(early) for early, late in zip(before, after, strict=True)]
    close = best_heads(study, "before")
    note = "lesser of best row and column score just after the drop over that on the plateau; over the value at 14/15 t_drop "
    note += ", ".join(f"{min(late) / min(early):.2f}" for early, late in zip(close, after, strict=True))
    return told(spread(jumps), verdict_above(jumps, 1.25), note)


def observed_mass(study: Study) -> Measurement:
    result = study.result("attention_maps")
    gains = []
    for kind in ("row", "col"):
        level = result["chance"][kind]["observed_by_masked"]
        mass = result["followed"][kind]["end"]["observed"]["observed_by_masked"]["values"]
        gains.append([(value - level) / (1 - level) for value in mass])
    worst = [min(pair) for pair in zip(*gains, strict=True)]
    note = (
        "attention of hidden cells to shown ones under hidden rows and columns, the worse: 0 at chance, 1 for all of it"
    )
    return told(spread(worst), verdict_above(worst, 0.5), note)


def selective_ablation(study: Study) -> Measurement:
    result = study.result("ablation")
    intact, ablated, limit = result["intact"], result["ablated"]["uniform"], 0.25 * result["variance"]
    rows, good = [], []
    for seed in range(len(result["seeds"])):
        harms = []
        for name in ("row heads", "column heads"):
            lost = [ablated[name][part]["values"][seed] for part in ("loss_masked", "loss_observed")]
            if None not in lost:
                kept = [intact[part]["values"][seed] for part in ("loss_masked", "loss_observed")]
                harms.append([a - b for a, b in zip(lost, kept, strict=True)])
        hidden, shown = max(harms, default=(0.0, 0.0))
        rows.append(hidden / result["variance"])
        good.append(hidden > limit and hidden > 3 * shown)
    return after_drop(
        study, spread(rows), good, "rise of L_mask / Var without the row or the column heads, the worse of the two"
    )


def patching(study: Study) -> Measurement:
    row = study.result("patch")["original"]
    margin = [m - o for m, o in columns(row["moved_masked"], row["moved_observed"])]
    note = (
        f"way to X: hidden cells {row['moved_masked']['mean']:.2f}, observed cells {row['moved_observed']['mean']:.2f}"
    )
    return after_drop(study, spread(margin), [m > 0.1 for m in margin], note)


def probe_rows(study: Study, target: str, metric: str, at: str = "end") -> list[list[float]]:
    """Per seed a probe's score at every layer."""
    rows = study.result("probe")["layers"][at]
    return [list(values) for values in zip(*(row[target][metric]["values"] for row in rows), strict=True)]


def row_probe(study: Study) -> Measurement:
    """A square problem is its own mirror image, so a seed may read columns where the paper's reads rows: the better counts.

    A cell's own token gives 1/n of its row away, so the level to beat is (n - 1)/n of predicting 0, and the plateau's probe.
    """
    result = study.result("probe")
    zero = result["zero"]["row"]

    def best_lines(at: str) -> list[list[float]]:
        lines = [probe_rows(study, name, "mse", at) for name in ("row", "column")]
        return [min(pair, key=min) for pair in zip(*lines, strict=True)]

    after, before = best_lines("end"), best_lines("early")
    columns_of = study.result("attention_maps")["size"][1]
    level = zero * (columns_of - 1) / columns_of
    places = [row.index(min(row)) for row in after]
    good = [
        0 < place < len(row) - 1 and min(row) < min(level, min(early))
        for place, row, early in zip(places, after, before, strict=True)
    ]
    note = f"lowest MSE over that of predicting 0, row or column; at layers {steps(places)} of {len(after[0]) - 1}"
    return after_drop(study, spread([min(row) / zero for row in after]), good, note)


def other_probes(study: Study) -> Measurement:
    chance = study.result("probe")["chance"]["projector"]
    after, before = (probe_rows(study, "projector", "cosine", at) for at in ("end", "early"))
    best = [max(row) for row in after]
    good = [b > chance + 0.1 and b > max(early) for b, early in zip(best, before, strict=True)]
    plateau = sum(max(row) for row in before) / len(before)
    note = f"|cos| with u_1 at the best layer, sign-free probe; chance {chance:.3f}, on the plateau {plateau:.3f}"
    return after_drop(study, spread(best), good, note)


def norm_symmetry(study: Study) -> Measurement:
    return at_least(study.result("embeddings")["token_norm"]["symmetry"], 0.9)


def sign_and_magnitude(study: Study) -> Measurement:
    rows = study.result("embeddings")["token_pca"]
    lesser = [min(pair) for pair in columns(rows["sign"], rows["magnitude"])]
    note = f"|r| with sign {rows['sign']['mean']:.2f}, with magnitude {rows['magnitude']['mean']:.2f}; the lesser is judged"
    return told(spread(lesser), verdict_above(lesser, 0.7), note)


def position_clusters(study: Study) -> Measurement:
    """By row or by column: in a square problem the two are mirror images, and each seed takes one."""
    rows = study.result("embeddings")["position_tsne"]
    better = [max(pair) for pair in columns(rows["column"], rows["row"])]
    kinds = ", ".join("column" if c > r else "row" for c, r in columns(rows["column"], rows["row"]))
    note = f"1-NN in the same line, by seed: {kinds}; chance {rows['chance']['column']:.2f}"
    return told(spread(better), verdict_above(better, 2 * rows["chance"]["column"]), note)


def formed_together(study: Study) -> Measurement:
    """Share of each score's rise from `early` to `late` that falls between 10 and 16 fifteenths of t_drop; the lesser."""
    result = study.result("embeddings")
    tokens, places = result["token_progress"]["scores"], result["position_progress"]["scores"]

    def score(at: str, kind: str) -> list[float]:
        if kind == "tokens":
            return [
                sum(values) for values in columns(tokens[at]["own_axes"]["sign"], tokens[at]["own_axes"]["magnitude"])
            ]
        return [max(values) for values in columns(places[at]["row"], places[at]["column"])]

    shares = {}
    for kind in ("tokens", "positions"):
        early, middle, after, late = (score(at, kind) for at in ("early", "middle", "after", "late"))
        rows = zip(early, middle, after, late, strict=True)
        shares[kind] = [(a - m) / (e2 - e1) if e2 - e1 > 0.1 else 0.0 for e1, m, a, e2 in rows]
    lesser = [min(pair) for pair in zip(*shares.values(), strict=True)]
    note = "share of the rise across the drop: " + ", ".join(f"{k} {sum(v) / len(v):.2f}" for k, v in shares.items())
    return after_drop(study, spread(lesser), [v > 0.5 for v in lesser], note)


def permuted_positions(study: Study) -> Measurement:
    result = study.result("embeddings")
    variance, rows = result["variance"], result["permute"]["random"]
    hidden = [v / variance for v in rows["loss_masked"]["values"]]
    shown = [v / variance for v in rows["loss_observed"]["values"]]
    good = [h > 0.7 and o < 0.1 for h, o in zip(hidden, shown, strict=True)]
    note = f"L_mask / Var under random orders; L_obs / Var {sum(shown) / len(shown):.3f}"
    return after_drop(study, spread(hidden), good, note)


def hybrids_fail(study: Study) -> Measurement:
    result = study.result("hybrid")
    parents = result["parents"]["post"]["loss_masked"]["values"]
    ways = [way["loss_masked"]["values"] for part in ("att", "mlp") for way in result["hybrids"][part].values()]
    best = [min(values) / result["variance"] for values in zip(*ways, strict=True)]
    after = sum(parents) / len(parents) / result["variance"]
    note = f"L_mask / Var of the best of four hybrids; {after:.2f} for the model itself"
    return after_drop(study, spread(best), [b > 0.7 for b in best], note)


def component_order(study: Study) -> Measurement:
    """A part that never dropped is later than its run's last step, and no more than that is known of it."""
    runs = study.result("components", "components")["runs"]
    half = {name: run["drop"]["half"]["values"] for name, run in runs.items()}
    end = runs["token"]["last_step"]

    def first(a: str, b: str, seed: int) -> bool | None:
        """Is a before b? None where the runs cannot tell."""
        one, other = half[a][seed], half[b][seed]
        if one is not None and other is not None:
            return one < other
        if one is None and other is None:
            return None
        known = one if one is not None else other
        return (one is not None) if known < end else None

    order = [("token", "attention"), ("mlp", "attention"), ("attention", "everything"), ("everything", "position")]
    seen = [[first(a, b, seed) for a, b in order] for seed in range(len(half["token"]))]
    note = (
        "t_drop: " + "; ".join(f"{name} {steps(values)}" for name, values in half.items()) + f"; parts ran {end} steps"
    )
    right = [sum(answer is True for answer in answers) for answers in seen]
    verdict = every([all(answers) for answers in seen])
    if verdict == "contradicted" and not all(any(answer is False for answer in answers) for answers in seen):
        verdict = "inconclusive"
    return told(spread(right), verdict, f"of four orders, seen as claimed; {note}")


def ordered_runs(study: Study, name: str, expect: Callable[[dict], list[bool]]) -> Measurement:
    """A verdict from the drops and ends of several runs; expect: run name -> (drops, ends) to a truth per seed."""
    runs = study.result(name)["runs"]
    table = {
        n: (r["drop"]["half"]["values"], [v / r["variance"] for v in r["drop"]["final"]["values"]])
        for n, r in runs.items()
    }
    ends = [max(values) for values in zip(*(end for _, end in table.values()), strict=True)]
    note = "; ".join(f"{n}: drop {steps(half)}, end {sum(e) / len(e):.2f} Var" for n, (half, e) in table.items())
    return told(spread(ends), every(expect(table)), note)


def wider_is_better(table: dict) -> list[bool]:
    """Widths in rising order: the narrowest stays on the plateau, the widest completes, none is worse than a narrower one."""
    seeds = zip(*(end for _, end in table.values()), strict=True)
    return [s[0] > 0.9 and s[-1] < 0.25 and all(a >= b - 0.05 for a, b in zip(s, s[1:], strict=False)) for s in seeds]


def deeper_is_earlier(table: dict) -> list[bool]:
    drops = [half for half, _ in table.values()]
    return earlier(drops[-1], drops[0])


def all_drop(table: dict) -> list[bool]:
    return [all(h is not None for h in seed) for seed in zip(*(half for half, _ in table.values()), strict=True)]


def mixture_drops(study: Study) -> Measurement:
    sizes = study.result("mixture", "mixture")["sizes"]
    halves = {name: size["half"]["values"] for name, size in sizes.items()}
    good = [all(v is not None for v in seed) and len(set(seed)) > 1 for seed in zip(*halves.values(), strict=True)]
    worst = [max(seed) for seed in zip(*(size["final"]["values"] for size in sizes.values()), strict=True)]
    return told(spread(worst), every(good), "; ".join(f"{n} at {steps(v)}" for n, v in halves.items()))


def other_shapes(study: Study) -> Measurement:
    """Per seed the mean MSE over the solver's, at other row counts and at other column counts than trained on."""
    result = study.result("ood_shapes")

    def ratios(sweep: str) -> list[float] | None:
        points = [p for p in result[sweep] if p["bert"] and p["value"] != result["trained_on"][sweep]]
        rows = [[v / p["nuclear_norm"]["loss"] for v in p["bert"]["loss"]["values"]] for p in points]
        return [sum(seed) / len(seed) for seed in zip(*rows, strict=True)] or None

    near, far = ratios("rows"), ratios("columns")
    if not near or not far:
        return Measurement(None, None, "inconclusive", 0, "no other shape has few enough cells for the position table")
    good = [n < 2 and f > 2 * n for n, f in zip(near, far, strict=True)]
    return after_drop(
        study, spread(far), good, f"MSE over the solver's at other columns; at other rows {sum(near) / len(near):.2f}"
    )


def other_laws(study: Study) -> Measurement:
    laws = study.result("ood")["laws"]
    relative = {n: [v / law["zero"] for v in law["losses"]["loss_masked"]["values"]] for n, law in laws.items()}
    worst = [max(seed) for seed in zip(*relative.values(), strict=True)]
    note = "L_mask over predicting 0: " + ", ".join(f"{n} {sum(v) / len(v):.2f}" for n, v in relative.items())
    return after_drop(study, spread(worst), [w < 0.9 for w in worst], note)


def gpt_copies(study: Study) -> Measurement:
    result = study.result("gpt", "gpt")
    end, (start, level) = result["end"], result["levels"]
    stood = [any(abs(loss / start - 1) < 0.03 for loss in losses) for losses in result["loss"]]
    seeds = zip(columns(end["accuracy_observed"], end["accuracy_masked"], end["loss"]), stood, strict=True)
    good = [o > 0.95 and m < 0.6 and loss < 1.1 * level and s for (o, m, loss), s in seeds]
    hidden, loss = end["accuracy_masked"]["mean"], end["loss"]["mean"]
    note = (
        f"greedy accuracy at observed cells; hidden ones {hidden:.2f}; loss {loss:.2f}, levels {start:.2f}, {level:.2f}"
    )
    return told(end["accuracy_observed"], every(good), note)


def gpt_attends(study: Study) -> Measurement:
    scores = study.result("gpt_attention", "gpt")["scores"]

    def best(at: str) -> list[float]:
        heads = [head["values"] for layer in scores[at]["identity"] for head in layer]
        return [max(seed) for seed in zip(*heads, strict=True)]

    after, before = best("after"), best("before")
    good = [late > 0.5 and early < late / 2 for early, late in zip(before, after, strict=True)]
    return told(
        spread(after),
        every(good),
        f"attention to the same cell of the input, best head; {sum(before) / len(before):.2f} before the drop",
    )


def regularised_loses(study: Study) -> Measurement:
    result = study.result("regularised_nuclear_norm")
    rows = {row["lam"]: row["loss"] for row in result["rows"]}
    lam = min(rows, key=rows.get)
    ratio = [b / rows[lam] for b in result["bert"]["loss"]["values"]]
    return told(
        spread(ratio),
        verdict_below(ratio, 1.0),
        f"BERT's L over the best of {len(rows)} lambdas ({lam:g}: L {rows[lam]:.4f})",
    )


def plateau_needs_symmetry(study: Study) -> Measurement:
    runs = study.result("control", "control")["runs"]
    main, control = (runs[name]["drop"]["half"]["values"] for name in ("main", "control"))
    ratio = [c / m for c, m in zip(control, main, strict=True) if c and m]
    good = [c is not None and m is not None and c < 0.5 * m for c, m in zip(control, main, strict=True)]
    node = spread(ratio) if ratio else {"values": good, "mean": None, "error": None}
    return told(node, every(good), f"t_drop: centred {steps(main)}; factors on [0, 1] {steps(control)}")
