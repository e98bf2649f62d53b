"""Claims: every threshold frozen, and for every bound a made-up result on each side, the one that would fool it among them."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from abrupt_learning.analysis._beside_solver import measure
from abrupt_learning.claims import CLAIMS, PAPER
from abrupt_learning.data import Data, sample
from abrupt_learning.estimators.drop import find_drop
from common import config, experiment
from common.claims import Study, judge
from common.experiment import over_seeds
from common.report import VERDICTS
from tests.abrupt_learning.smoke import SMALL
from tests.papers import flags, home, script

BY_ID = {claim.id: claim for claim in CLAIMS}
END = "L_mask / Var at the end < 0.5"

EXPECTED = {
    "C1": "width / t_drop < 0.333; plateau L_mask / Var from 0.9 to 1.1; slope of the plateau from -0.15 to 0.15",
    "C2": "L_obs / Var < 0.02; mean |prediction| at hidden cells < 0.1; L_mask / that of predicting 0 from 0.97 to 1.03",
    "C3": "MSE to the shown value / Var < 0.05; L_obs / Var < 0.05",
    "C4": "L_obs < 0.02; L_mask / that of predicting 0 from 0.95 to 1.05",
    "C5": "L_mask / Var at the end < 0.25",
    "C6": "squared distance to the solver / to the truth, at hidden cells > 1; L(BERT) / L(solver) < 1",
    "C7": f"lesser of best row and column score / chance > 2; greater of the two on the plateau / chance < 1.5; {END}",
    "C8": "lesser score at 16/15 / at 14/15 > 1.25; lesser score at 16/15 / chance > 1.5; "
    f"greater score at 14/15 / chance < 1.5; {END}",
    "C9": f"share beyond chance, hidden rows or columns > 0.5; share beyond chance, the run's own masks > 0.25; {END}",
    "C10": "rise of L_mask / Var > 0.25; rise of L_obs / of L_mask < 0.333; "
    f"rise without as many other heads / without these < 0.5; {END}",
    "C11": f"way to X at hidden cells > 0.1; way at hidden cells beyond that at observed ones > 0.1; {END}",
    "C12": "layers from the lowest MSE to the nearer end > 0; lowest MSE / what the own token gives < 1; "
    f"lowest MSE / that on the plateau < 1; {END}",
    "C13": f"|cos| with u_1 beyond chance > 0.1; |cos| with u_1 beyond that on the plateau > 0; {END}",
    "C14": f"correlation of |e(v)| and |e(-v)| > 0.9; {END}",
    "C15": f"|r| with sign > 0.7; |r| with magnitude > 0.7; {END}",
    "C16": f"nearest neighbours in the same line / chance > 2; {END}",
    "C17": f"share of the tokens' structure > 0.5; share of the positions' structure > 0.5; {END}",
    "C18": f"L_mask / Var under random orders > 0.7; L_obs / Var under random orders < 0.1; {END}",
    "C19": f"lowest L_mask / Var of a hybrid > 0.7; {END}",
    "C20": "t(token) / t(attention) < 1; t(mlp) / t(attention) < 1; t(attention) / t(everything) < 1; "
    "t(everything) / t(position) < 1; share of t(token) at Var < 0.333; share of t(mlp) at Var < 0.333",
    "C21": "narrowest: L_mask / Var at the end > 0.9; widest: L_mask / Var at the end < 0.25; "
    "largest rise from a width to the next < 0.05",
    "C22": "t_drop of the deepest / of the shallowest < 1; largest t_drop / that of the next shallower < 1.1",
    "C23": "latest t_drop / steps trained < 1",
    "C24": "least gap of two drops / width of the earlier > 1; latest t_drop / steps trained < 1",
    "C25": "width / t_drop < 0.333; plateau L_mask / Var from 0.9 to 1.1; slope of the plateau from -0.15 to 0.15",
    "C26": "L / the solver's, fewer columns > 2; fewer columns / fewer rows > 2; L / the solver's, other ranks < 2; "
    f"L / the solver's, fewer rows < 2; {END}",
    "C27": "L_mask / that of predicting 0, the hardest law < 0.5",
    "C28": "accuracy at observed cells > 0.95; share of the steps to the drop within 3% of the first level > 0.25; "
    "accuracy at hidden cells beyond the most frequent value's < 0.25; loss / second level < 1.1",
    "C29": "best head's attention to the same cell > 0.5; that before the drop / after it < 0.5",
    "C30": "L(BERT) / least L over the weights < 1",
    "C31": "steps to 0.25 Var, [0, 1] / [-1, 1] < 0.5; share of the control's t_drop at Var < 0.333",
}
PRESETS = {
    **dict.fromkeys(EXPECTED, "quick medium gpu paper"),
    **dict.fromkeys(("C21", "C31"), "quick medium paper"),
    **dict.fromkeys(("C20", "C22", "C23", "C24", "C25"), "medium paper"),
}


def test_every_threshold_and_every_preset_is_the_frozen_one():
    assert {claim.id: claim.expected for claim in CLAIMS} == EXPECTED
    assert {claim.id: " ".join(claim.presets) for claim in CLAIMS} == PRESETS


def seeds(row: dict | list | float | None):
    """A made-up result: every number the same in three seeds."""
    return over_seeds([row] * 3)


STEPS = np.arange(20, 6001, 20)


def line(*points: tuple[float, float], zero_at: tuple[int, ...] = ()) -> dict:
    """The drop, over seeds, of L_mask / Var along straight lines between (step, value); rows at which it is 0."""
    values = np.interp(STEPS, *zip(*points, strict=True))
    values[list(zero_at)] = 0
    rows = pd.DataFrame({"step": STEPS, "loss": values, "loss_masked": values, "loss_observed": values})
    return seeds(asdict(find_drop(rows, 1.0)))


WIDTH, PLATEAU, SLOPE = (row["name"] for row in BY_ID["C1"].bounds)
FALL = ((2200, 0.1), (6000, 0.1))
SHAPES = {
    "a sharp drop": (line((2000, 1), *FALL), {}),
    "a sharp drop, with a zero row before it": (line((2000, 1), *FALL, zero_at=(40,)), {}),
    "a sharp drop, with zero rows at its time": (line((2000, 1), *FALL, zero_at=(97, 98, 99)), {}),
    "a flat curve with three rows at 0": (line((0, 1), (6000, 1), zero_at=(90, 91, 92)), {WIDTH}),
    "a flat curve that ends in three rows at 0": (line((0, 1), (6000, 1), zero_at=(297, 298, 299)), {WIDTH}),
    "a dip that comes back": (line((2000, 1), (2100, 0), (3900, 0), (4000, 1), (6000, 1)), {WIDTH}),
    "a flat half and a straight line to 0": (line((3000, 1), (6000, 0)), {WIDTH}),
    "a slow tail": (line((2000, 1), (2200, 0.3), (5000, 0.2)), {WIDTH}),
    "a plateau that falls": (line((0, 1.3), (2000, 0.95), *FALL), {SLOPE}),
    "a plateau that rises": (line((0, 0.7), (2000, 1.05), *FALL), {SLOPE}),
    "a plateau below Var, but for its end": (line((1750, 0.85), (1800, 0.95), (2000, 0.95), *FALL), {PLATEAU}),
    "a plateau above Var": (line((2000, 1.15), *FALL), {PLATEAU}),
}
DROPPED, NEVER = ({"levels": {"loss_masked": 1.0}, "end": seeds({"loss_masked": end})} for end in (0.1, 0.6))


def plateau(observed: float = 0.01, relative: float = 1.0, value: float = 0.05) -> dict:
    early = {"loss_observed": observed, "relative": relative, "mask_value": value}
    return {"early": seeds(early), "levels": {"loss_masked": 1.0}}


def copies(copy: float = 0.01, shown: float = 0.01, observed: float = 0.01, hidden: float = 1.0) -> dict:
    """The worst is what counts: another value at hidden cells is copied well."""
    good = {"copy_error": 0.0, "loss_observed": 0.0}
    low_rank = {"early": {"0.44": good, "mask": {"copy_error": copy, "loss_observed": shown}}}
    other = {"early": {"mask": {"loss_observed": observed, "loss_masked": hidden}}}
    return {
        "low_rank": seeds(low_rank),
        "incoherent": seeds(other),
        "variance": {"low_rank": 1.0},
        "zero": {"incoherent": 1.0},
    }


def solver(towards: float, noise: float = 0.0, error: float = 0.3) -> dict:
    """A BERT made of the solver's output: moved some of the way to the truth, with independent noise."""
    draws = torch.Generator().manual_seed(0)
    batch = sample(Data(sizes=[[4, 4]], rank=1), 256, draws)
    off, random = (torch.randn(batch.target.shape, generator=draws) for _ in range(2))
    solved = batch.target + error * off * ~batch.observed
    output = solved + towards * (batch.target - solved) + noise * random * ~batch.observed
    bert, itself = (measure(o, solved, batch, [4, 4]) for o in (output, solved))
    return {"at_training_p": {"bert": seeds(bert), "solver": itself}}


def distant(loss: float, to_solver: float, to_truth: float) -> dict:
    bert = {"loss": loss, "to_solver": to_solver, "loss_masked": to_truth}
    return {"at_training_p": {"bert": seeds(bert), "solver": {"loss": 1.0}}}


def attention(
    early=(1.2, 1.2), before=(1.2, 1.2), after=(2.5, 2.5), end=(3.0, 3.0), hidden=(0.9, 0.9), own=0.9
) -> dict:
    """Scores over a chance of 0.1; masses of a head that follows shown cells, over a chance of 0.5."""
    moments = {"early": early, "before": before, "after": after, "end": end}
    masses = dict(zip(("row", "col", "none"), (*hidden, own), strict=True))
    scores = {kind: {"end": {"observed_by_masked": [[0.0, mass]]}} for kind, mass in masses.items()}
    for at, (row, column) in moments.items():
        scores["none"].setdefault(at, {}).update(row=[[0.1 * row, 0.0]], column=[[0.0, 0.1 * column]])
    chance = {"row": 0.1, "column": 0.1, "observed_by_masked": 0.5}
    return {"chance": dict.fromkeys(masses, chance), "scores": [scores] * 3, "heads": [{"observed": [0, 1]}] * 3}


def ablation(
    hidden: float | None = 0.8, shown: float = 0.1, own: float | None = 0.8, others: float | None = 0.1
) -> dict:
    """Rises of L_mask and L_obs from 0.1 without row heads; column heads do nothing, or are not there either."""
    nothing = {"loss_masked": None if hidden is None else 0.1, "loss_observed": None if hidden is None else 0.1}
    rows = nothing if hidden is None else {"loss_masked": 0.1 + hidden, "loss_observed": 0.1 + shown}
    pair = {"own": None if own is None else 0.1 + own, "others": None if others is None else 0.1 + others}
    return {
        "seeds": [0, 1, 2],
        "variance": 1.0,
        "intact": seeds({"loss_masked": 0.1, "loss_observed": 0.1}),
        "ablated": {"uniform": seeds({"row heads": rows, "column heads": nothing})},
        "matched": seeds({"row": pair, "column": pair}),
    }


def patch(hidden: float = 0.5, observed: float = 0.1) -> dict:
    return {"original": seeds({"moved_masked": hidden, "moved_observed": observed})}


def probe(after=(0.9, 0.7, 0.8), before=(0.9, 0.9, 0.9), late=0.7, early=0.5, end=0.1) -> dict:
    """MSE of the row per layer over what the own token gives; |cos| of the best layer, chance 0.4."""

    def layers(errors: tuple, cosine: float) -> list:
        return [{"row": {"mse": 0.75 * e}, "column": {"mse": 0.8}, "projector": {"cosine": cosine}} for e in errors]

    return {
        "seeds": [0, 1, 2],
        "size": [4, 4],
        "variance": 1.0,
        "end": seeds(end),
        "zero": {"row": 1.0, "column": 1.0},
        "chance": {"projector": 0.4},
        "layers": seeds({"end": layers(after, late), "early": layers(before, early)}),
    }


def embeddings(symmetry=0.95, sign=0.9, magnitude=0.9, line=0.8, tokens=(0, 0.1, 1, 1.2), positions=(0.2, 0.3, 0.9, 1.0),
               hidden=0.9, shown=0.01) -> dict:  # fmt: skip
    """tokens: sign + magnitude, and positions: purity by row, at the four moments."""
    moments = ("early", "middle", "after", "late")
    tokens = {at: {"own_axes": {"sign": v / 2, "magnitude": v / 2}} for at, v in zip(moments, tokens, strict=True)}
    purity = {at: {"row": v, "column": 0.0} for at, v in zip(moments, positions, strict=True)}
    end = {"symmetry": symmetry, "own_axes": {"sign": sign, "magnitude": magnitude}}
    return {
        "variance": 1.0,
        "chance": {"row": 0.2, "column": 0.2},
        "tokens": {at: seeds(row) for at, row in (tokens | {"end": end}).items()},
        "positions": seeds(purity | {"end": {"row": 0.1, "column": line}}),
        "permute": {"random": seeds({"loss_masked": hidden, "loss_observed": shown})},
    }


def hybrids(authors: float = 1.0, finer: float = 1.0) -> dict:
    ways = {part: {"pre_to_post": {"loss_masked": 1.2}, "post_to_pre": {"loss_masked": low}}
            for part, low in {"att": authors, "mlp": 1.0, "readout": finer}.items()}  # fmt: skip
    return {"variance": 1.0, "hybrids": seeds(ways)}


def runs(**given: dict) -> dict:
    """Runs as curves have them: variance 1, their last step `last`, fields of their drop."""
    return {
        "runs": {
            name: {"variance": 1.0, "steps": [20, run.get("last", 6000)], "drop": seeds({"final": 0.1} | run)}
            for name, run in given.items()
        }
    }


def parts(token=100, mlp=100, attention=500, everything=2000, position=4000, last=6000, at_level=0.1, mlp_at_level=0.1):
    halves = {"token": token, "attention": attention, "position": position}
    return runs(
        everything={"half": everything, "at_level": 0.9},
        mlp={"half": mlp, "at_level": mlp_at_level, "last": last},
        **{name: {"half": half, "at_level": at_level, "last": last} for name, half in halves.items()},
    )


def widths(*ends: float) -> dict:
    return runs(**{f"width_{i}": {"half": None, "final": end} for i, end in enumerate(ends)})


def depths(*halves: int | None, last: int = 6000) -> dict:
    return runs(**{f"depth_{i}": {"half": half, "last": last} for i, half in enumerate(halves)})


def control(quarter=800, main=2500, at_level=0.2, last=6000) -> dict:
    return runs(
        main={"half": 2000, "quarter": main},
        control={"half": 400, "quarter": quarter, "at_level": at_level, "last": last},
    )


def mixture(*drops: tuple[int | None, int | None]) -> dict:
    return runs(**{f"{i}x{i}": {"half": half, "width": width} for i, (half, width) in enumerate(drops)})


def shapes(ranks: float = 1.5, rows: float = 1.2, columns: float = 5.0, larger: float = 1.0) -> dict:
    def point(value: int, ratio: float) -> dict:
        return {"value": value, "bert": seeds({"loss": ratio}), "solver": {"loss": 1.0}}

    return {
        "trained_on": {"ranks": 1, "rows": 4, "columns": 4},
        "positions": 100,
        "skipped": [],
        "ranks": [point(1, 0.5), point(2, ranks)],
        "rows": [point(3, rows), point(4, 0.5), point(5, larger)],
        "columns": [point(3, columns), point(4, 0.5), point(5, larger)],
    }


def laws(uniform: float = 0.1, laplace: float = 0.4) -> dict:
    """Against predicting 0 at the same hidden cells, 0.1."""
    relative = {"uniform": uniform, "laplace": laplace}
    return {"laws": {n: {"zero": 0.1, "losses": seeds({"loss_masked": 0.1 * v})} for n, v in relative.items()}}


def gpt(observed=0.99, hidden=0.3, loss=3.0, stood=0.5) -> dict:
    end = {"accuracy_observed": observed, "accuracy_masked": hidden, "loss": loss}
    return {"frequent": 0.2, "levels": [4.74, 2.9], "plateau": seeds(stood), "half": seeds(500), "end": seeds(end)}


def heads(before: float = 0.1, after: float = 0.7) -> dict:
    identity = {at: {"identity": [[0.05, value]]} for at, value in (("before", before), ("after", after))}
    return {"scores": seeds(identity)}


def lambdas(best: float) -> dict:
    return {"rows": [{"loss": 5.0}, {"loss": best}], "bert": seeds({"loss": 1.0})}


CASES = [
    *(("C1", what, ({"drop": drop, "levels": {"loss_masked": 1.0}},), fails) for what, (drop, fails) in SHAPES.items()),
    ("C2", "a copy", (plateau(),), {}),
    ("C2", "observed cells off", (plateau(observed=0.03),), {"L_obs / Var"}),
    ("C2", "hidden cells half computed", (plateau(relative=0.96),), {"L_mask / that of predicting 0"}),
    ("C2", "hidden cells wrong", (plateau(relative=1.04),), {"L_mask / that of predicting 0"}),
    ("C2", "hidden cells guessed", (plateau(value=0.2),), {"mean |prediction| at hidden cells"}),
    ("C3", "a copy", (copies(),), {}),
    ("C3", "the mask is not copied as 0, one value is", (copies(copy=0.06),), {"MSE to the shown value / Var"}),
    ("C3", "observed cells off", (copies(shown=0.06),), {"L_obs / Var"}),
    ("C4", "a copy", (copies(),), {}),
    ("C4", "observed cells off", (copies(observed=0.03),), {"L_obs"}),
    ("C4", "hidden cells below predicting 0", (copies(hidden=0.94),), {"L_mask / that of predicting 0"}),
    ("C4", "hidden cells above it", (copies(hidden=1.06),), {"L_mask / that of predicting 0"}),
    ("C5", "a drop", (DROPPED,), {}),
    ("C5", "half a drop", (NEVER,), {"L_mask / Var at the end"}),
    ("C6", "another method, better", (distant(0.5, 0.6, 0.5),), {}),
    ("C6", "another method, worse", (distant(1.1, 1.5, 1.1),), {"L(BERT) / L(solver)"}),
    ("C6", "the solver, 40% nearer to the truth", (solver(0.4),),
     {"squared distance to the solver / to the truth, at hidden cells"}),
    ("C6", "the solver and noise", (solver(0.0, noise=0.1),),
     {"squared distance to the solver / to the truth, at hidden cells", "L(BERT) / L(solver)"}),
    ("C6", "the solver and much noise", (solver(0.0, noise=1.0),),
     {"squared distance to the solver / to the truth, at hidden cells", "L(BERT) / L(solver)"}),
    ("C7", "row and column heads", (attention(), DROPPED), {}),
    ("C7", "row heads alone", (attention(end=(5.0, 1.5)), DROPPED), {"lesser of best row and column score / chance"}),
    ("C7", "column heads on the plateau", (attention(early=(1.0, 1.6)), DROPPED),
     {"greater of the two on the plateau / chance"}),
    ("C7", "no drop", (attention(), NEVER), {"L_mask / Var at the end"}),
    ("C8", "structure with the drop", (attention(), DROPPED), {}),
    ("C8", "structure before it", (attention(before=(2.0, 2.0), after=(3.0, 3.0)), DROPPED),
     {"greater score at 14/15 / chance"}),
    ("C8", "row structure before it", (attention(before=(3.0, 1.0), after=(3.0, 3.0)), DROPPED),
     {"greater score at 14/15 / chance"}),
    ("C8", "no jump", (attention(before=(1.4, 1.4), after=(1.6, 1.6)), DROPPED), {"lesser score at 16/15 / at 14/15"}),
    ("C8", "a jump to no structure", (attention(before=(1.0, 1.0), after=(1.4, 1.4)), DROPPED),
     {"lesser score at 16/15 / chance"}),
    ("C8", "no drop", (attention(), NEVER), {"L_mask / Var at the end"}),
    ("C9", "a head that looks for shown cells", (attention(), DROPPED), {}),
    ("C9", "under hidden rows alone", (attention(hidden=(0.9, 0.7)), DROPPED), {"share beyond chance, hidden rows or columns"}),
    ("C9", "a head that looks at one cell, always shown there", (attention(own=0.55), DROPPED),
     {"share beyond chance, the run's own masks"}),
    ("C9", "no drop", (attention(), NEVER), {"L_mask / Var at the end"}),
    ("C10", "row heads matter", (ablation(), DROPPED), {}),
    ("C10", "they hardly matter", (ablation(hidden=0.2, shown=0.01), DROPPED), {"rise of L_mask / Var"}),
    ("C10", "copying goes too", (ablation(shown=0.4), DROPPED), {"rise of L_obs / of L_mask"}),
    ("C10", "any heads matter as much", (ablation(others=0.8), DROPPED), {"rise without as many other heads / without these"}),
    ("C10", "others alone matter", (ablation(own=-0.01), DROPPED), {"rise without as many other heads / without these"}),
    ("C10", "no row or column heads", (ablation(hidden=None), DROPPED), {"rise of L_mask / Var"}),
    ("C10", "no drop", (ablation(), NEVER), {"L_mask / Var at the end"}),
    ("C11", "hidden cells move", (patch(), DROPPED), {}),
    ("C11", "all cells move", (patch(observed=0.45), DROPPED), {"way at hidden cells beyond that at observed ones"}),
    ("C11", "observed cells move away", (patch(hidden=0.05, observed=-0.3), DROPPED), {"way to X at hidden cells"}),
    ("C11", "no drop", (patch(), NEVER), {"L_mask / Var at the end"}),
    ("C12", "an inner layer", (probe(),), {}),
    ("C12", "the last layer", (probe(after=(0.9, 0.8, 0.7)),), {"layers from the lowest MSE to the nearer end"}),
    ("C12", "the embeddings", (probe(after=(0.6, 0.7, 0.7)),), {"layers from the lowest MSE to the nearer end"}),
    ("C12", "the own token", (probe(after=(1.1, 1.01, 1.05), before=(1.1, 1.06, 1.06)),),
     {"lowest MSE / what the own token gives"}),
    ("C12", "as on the plateau", (probe(before=(0.9, 0.65, 0.9)),), {"lowest MSE / that on the plateau"}),
    ("C12", "no drop", (probe(end=0.6),), {"L_mask / Var at the end"}),
    ("C13", "read after the drop", (probe(),), {}),
    ("C13", "near chance", (probe(late=0.49, early=0.4),), {"|cos| with u_1 beyond chance"}),
    ("C13", "as on the plateau", (probe(early=0.7),), {"|cos| with u_1 beyond that on the plateau"}),
    ("C13", "no drop", (probe(end=0.6),), {"L_mask / Var at the end"}),
    ("C14", "symmetric", (embeddings(), DROPPED), {}),
    ("C14", "not symmetric", (embeddings(symmetry=0.85), DROPPED), {"correlation of |e(v)| and |e(-v)|"}),
    ("C14", "no drop", (embeddings(), NEVER), {"L_mask / Var at the end"}),
    ("C15", "both", (embeddings(), DROPPED), {}),
    ("C15", "magnitude alone", (embeddings(sign=0.6), DROPPED), {"|r| with sign"}),
    ("C15", "sign alone", (embeddings(magnitude=0.6), DROPPED), {"|r| with magnitude"}),
    ("C15", "no drop", (embeddings(), NEVER), {"L_mask / Var at the end"}),
    ("C16", "columns", (embeddings(), DROPPED), {}),
    ("C16", "no lines", (embeddings(line=0.35), DROPPED), {"nearest neighbours in the same line / chance"}),
    ("C16", "no drop", (embeddings(), NEVER), {"L_mask / Var at the end"}),
    ("C17", "with the drop", (embeddings(), DROPPED), {}),
    ("C17", "tokens before it", (embeddings(tokens=(0.0, 1.0, 1.1, 1.2)), DROPPED), {"share of the tokens' structure"}),
    ("C17", "tokens that stood before", (embeddings(tokens=(1.8, 1.8, 1.85, 1.85)), DROPPED),
     {"share of the tokens' structure"}),
    ("C17", "positions after it", (embeddings(positions=(0.2, 0.2, 0.3, 1.0)), DROPPED), {"share of the positions' structure"}),
    ("C17", "no drop", (embeddings(), NEVER), {"L_mask / Var at the end"}),
    ("C18", "positions matter", (embeddings(), DROPPED), {}),
    ("C18", "half of them", (embeddings(hidden=0.6), DROPPED), {"L_mask / Var under random orders"}),
    ("C18", "copying goes too", (embeddings(shown=0.2), DROPPED), {"L_obs / Var under random orders"}),
    ("C18", "no drop", (embeddings(), NEVER), {"L_mask / Var at the end"}),
    ("C19", "none completes", (hybrids(), DROPPED), {}),
    ("C19", "one of the authors' four does", (hybrids(authors=0.5), DROPPED), {"lowest L_mask / Var of a hybrid"}),
    ("C19", "one of the finer does", (hybrids(finer=0.39), DROPPED), {"lowest L_mask / Var of a hybrid"}),
    ("C19", "no drop", (hybrids(), NEVER), {"L_mask / Var at the end"}),
    ("C20", "the paper's order", (parts(),), {}),
    ("C20", "positions never drop, in a longer run", (parts(position=None),), {}),
    ("C20", "tokens after attention", (parts(token=600),), {"t(token) / t(attention)"}),
    ("C20", "MLPs after attention", (parts(mlp=600),), {"t(mlp) / t(attention)"}),
    ("C20", "attention last", (parts(attention=2500),), {"t(attention) / t(everything)"}),
    ("C20", "attention never, in a longer run", (parts(attention=None),), {"t(attention) / t(everything)"}),
    ("C20", "positions before everything", (parts(position=1500),), {"t(everything) / t(position)"}),
    ("C20", "tokens with a short plateau of their own", (parts(at_level=0.8),), {"share of t(token) at Var"}),
    ("C20", "MLPs with one", (parts(mlp_at_level=0.8),), {"share of t(mlp) at Var"}),
    ("C21", "wider is better", (widths(0.95, 0.4, 0.2),), {}),
    ("C21", "all solve it", (widths(0.3, 0.25, 0.2),), {"narrowest: L_mask / Var at the end"}),
    ("C21", "none does", (widths(1.0, 1.0, 1.0),), {"widest: L_mask / Var at the end"}),
    ("C21", "the middle one is worse", (widths(0.95, 1.05, 0.2),), {"largest rise from a width to the next"}),
    ("C22", "earlier and earlier", (depths(3000, 2000, 2100),), {}),
    ("C22", "the shallowest never, in a longer run", (depths(None, 2000, 1900),), {}),
    ("C22", "at one step", (depths(2000, 2000, 2000),), {"t_drop of the deepest / of the shallowest"}),
    ("C22", "the middle one late", (depths(2500, 5000, 2000),), {"largest t_drop / that of the next shallower"}),
    ("C22", "the middle one never", (depths(2500, None, 2000),), {"largest t_drop / that of the next shallower"}),
    ("C23", "all drop", (depths(2000, 5000),), {}),
    ("C23", "one drops with its last row alone", (depths(2000, 6000),), {"latest t_drop / steps trained"}),
    ("C23", "one never drops", (depths(2000, None),), {"latest t_drop / steps trained"}),
    ("C24", "size by size", (mixture((1000, 200), (1500, 300), (2000, 300)),), {}),
    ("C24", "a row apart", (mixture((1000, 200), (1100, 300), (2000, 300)),),
     {"least gap of two drops / width of the earlier"}),
    ("C24", "at once", (mixture((1000, 200), (1000, 200)),), {"least gap of two drops / width of the earlier"}),
    ("C24", "one size never", (mixture((1000, 200), (None, None)),), {"latest t_drop / steps trained"}),
    *(("C25", what, (runs(gaussian={}) | {"runs": {"gaussian": {"variance": 1.0, "drop": drop}}},), fails)
      for what, (drop, fails) in SHAPES.items()),
    ("C26", "as in the paper", (shapes(), DROPPED), {}),
    ("C26", "larger shapes, whose positions were never trained, are not judged", (shapes(larger=50.0), DROPPED), {}),
    ("C26", "ranks far off", (shapes(ranks=2.5), DROPPED), {"L / the solver's, other ranks"}),
    ("C26", "rows far off", (shapes(rows=2.1), DROPPED), {"L / the solver's, fewer rows"}),
    ("C26", "columns better than the solver", (shapes(rows=0.3, columns=0.7), DROPPED), {"L / the solver's, fewer columns"}),
    ("C26", "columns no worse than rows", (shapes(rows=1.9, columns=2.5), DROPPED), {"fewer columns / fewer rows"}),
    ("C26", "no drop", (shapes(), NEVER), {"L_mask / Var at the end"}),
    ("C27", "every law", (laws(),), {}),
    ("C27", "one law hardly", (laws(laplace=0.6),), {"L_mask / that of predicting 0, the hardest law"}),
    ("C28", "as in the paper", (gpt(),), {}),
    ("C28", "a smooth curve through the first level", (gpt(stood=0.13),),
     {"share of the steps to the drop within 3% of the first level"}),
    ("C28", "no copy", (gpt(observed=0.9),), {"accuracy at observed cells"}),
    ("C28", "hidden cells half solved", (gpt(hidden=0.55),), {"accuracy at hidden cells beyond the most frequent value's"}),
    ("C28", "half a drop", (gpt(loss=3.5),), {"loss / second level"}),
    ("C29", "a copying head", (heads(),), {}),
    ("C29", "no head", (heads(after=0.4),), {"best head's attention to the same cell"}),
    ("C29", "a head from the start", (heads(before=0.6),), {"that before the drop / after it"}),
    ("C30", "no weight", (lambdas(1.1),), {}),
    ("C30", "one weight", (lambdas(0.9),), {"L(BERT) / least L over the weights"}),
    ("C31", "at once", (control(),), {}),
    ("C31", "main never completes", (control(main=None),), {}),
    ("C31", "to 0.43 Var at once, as a linear fit, then as late", (control(quarter=2000),),
     {"steps to 0.25 Var, [0, 1] / [-1, 1]"}),
    ("C31", "to 0.43 Var at once, then never", (control(quarter=None),), {"steps to 0.25 Var, [0, 1] / [-1, 1]"}),
    ("C31", "a short plateau is one", (control(at_level=0.7),), {"share of the control's t_drop at Var"}),
]  # fmt: skip

OPEN = [
    ("C10", "no other heads to compare with", (ablation(own=None, others=None), DROPPED)),
    ("C17", "no structure at all", (embeddings(tokens=(0.0, 0.0, 0.05, 0.05)), DROPPED)),
    ("C20", "parts that ran 400 steps", (parts(attention=None, position=None, last=400),)),
    ("C22", "no depth drops", (depths(None, None),)),
    ("C22", "a shallow run that ends too early", (runs(a={"half": None, "last": 1000}, b={"half": 2000}),)),
    ("C24", "a drop whose width is not known", (mixture((1000, None), (2000, 300)),)),
    ("C31", "a control that ends too early", (control(quarter=None, last=1000),)),
]


def missed(claim, results: tuple) -> set[str]:
    """Names of the bounds that the first seed does not meet, each judged alone."""
    values, names = claim.values(*results), set()
    for row in claim.bounds:
        alone = dict.fromkeys(("above", "below", "within")) | {row["kind"]: {row["name"]: row["value"]}}
        if replace(claim, **alone).met([values[row["name"]][0]]) is False:
            names.add(row["name"])
    return names


@pytest.mark.parametrize(("name", "what", "results", "fails"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_a_made_up_result_is_judged_as_it_should_be(name, what, results, fails):
    claim = BY_ID[name]
    assert missed(claim, results) == set(fails)
    assert claim.verdict(claim.values(*results)) == ("contradicted" if fails else "reproduced")


@pytest.mark.parametrize(("name", "what", "results"), OPEN, ids=[f"{c[0]} {c[1]}" for c in OPEN])
def test_a_result_that_cannot_tell_leaves_the_claim_open(name, what, results):
    claim = BY_ID[name]
    assert missed(claim, results) == set()
    assert claim.verdict(claim.values(*results)) == "inconclusive"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_bound_has_a_result_that_it_alone_refuses_and_the_claim_one_that_holds(claim):
    sets = [set(fails) for name, _, _, fails in CASES if name == claim.id]
    assert set() in sets
    assert {row["name"] for row in claim.bounds} == {name for fails in sets if len(fails) == 1 for name in fails}


@pytest.fixture(scope="module")
def smoke_rows(study_of) -> dict[str, dict]:
    """The smoke study, judged as if it were quick: every number and every note is made."""
    study = study_of("abrupt_learning")
    for name in {need.rpartition("/")[2] for claim in CLAIMS for need in claim.needs}:
        run = study / home("abrupt_learning", name)
        if not (run / "results" / f"{name}.json").exists():
            module = script("abrupt_learning", name)
            own = {key: value for key, value in SMALL.items() if key in module.Settings.__dataclass_fields__}
            argv = [f"--config={experiment.ROOT}/abrupt_learning/configs/{name}.yaml", f"--run={run}", "--device=cpu"]
            experiment.perform(module, name, config.parse(module.Settings, [*argv, *flags(own)]))
    rows = judge(PAPER, [replace(claim, presets=("smoke",)) for claim in CLAIMS], Study(study))
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_no_claim_is_reproduced_by_a_run_that_never_dropped(claim, smoke_rows):
    row = smoke_rows[claim.id]
    assert row["verdict"] in VERDICTS
    assert row["verdict"] != "reproduced"
    assert row["values"] or claim.id == "C25", row["note"]
