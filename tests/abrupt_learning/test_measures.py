"""Measures: on results that mean nothing they say nothing, and each known way to be right for a wrong reason is closed."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from abrupt_learning import measures
from abrupt_learning.claims import CLAIMS
from abrupt_learning.evaluate import Trained
from common import config
from common.claims import Study
from common.report import VERDICTS
from tests.abrupt_learning.analyses import HOMES
from tests.papers import settings_class

CONFIGS = Path(__file__).parents[2] / "abrupt_learning/configs"


def node(*values) -> dict:
    return {"values": list(values), "mean": None if None in values else sum(values) / len(values), "error": None}


class Results(Study):
    """A study of given results, all in one run."""

    def __init__(self, **results):
        self.results = results

    def result(self, name: str, run: str = "main") -> dict:
        return self.results[name]


DROPPED = {"levels": {"loss_masked": 1.0}, "end": {"loss_masked": node(0.1, 0.1, 0.1)}}
NEVER = {"levels": {"loss_masked": 1.0}, "end": {"loss_masked": node(0.1, 0.1, 1.0)}}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_no_claim_about_the_drop_is_reproduced_by_a_run_that_never_dropped(claim, smoke_measured):
    """The smoke study, judged as if it were quick: every measure runs, and only what precedes a drop could hold."""
    found = smoke_measured[claim.id]
    assert found["verdict"] in VERDICTS
    assert found["verdict"] != "reproduced"
    json.dumps(found)


@pytest.fixture(scope="module")
def smoke_measured(smoke_study) -> dict[str, dict]:
    """Verdict and note of every claim on the smoke study's results."""
    for name in {claim.command.split("/analysis/")[1].split(".py")[0] for claim in CLAIMS}:
        home = smoke_study / HOMES.get(name, "main")
        module, Settings = settings_class("abrupt_learning", name)
        siblings = ["--runs=[main, control]"] if "runs" in Settings.__dataclass_fields__ else []
        argv = [f"--config={CONFIGS / name}.yaml", f"--run={home}", "--device=cpu", *siblings]
        settings, trained = config.parse(Settings, argv), Trained(home, "cpu")
        result = {"seeds": trained.seeds, "settings": asdict(settings), **module.analyse(trained, settings)}
        trained.run.result(name, result)
    study = Study(smoke_study)
    rows = {claim.id: claim.measure(study) for claim in CLAIMS}
    return {name: {"verdict": m.verdict, "note": m.note, "value": m.value} for name, m in rows.items()}


def test_a_seed_that_never_dropped_takes_reproduced_away():
    ways = {way: {"loss_masked": node(1.0, 1.0, 1.0)} for way in ("pre_to_post", "post_to_pre")}
    parents = {"post": {"loss_masked": node(0.1, 0.1, 0.1)}}
    good = {"variance": 1.0, "parents": parents, "hybrids": {"att": ways, "mlp": ways}}
    assert measures.hybrids_fail(Results(hybrid=good, loss=DROPPED)).verdict == "reproduced"
    assert measures.hybrids_fail(Results(hybrid=good, loss=NEVER)).verdict == "inconclusive"


def test_ablation_that_harms_nothing_is_not_selective():
    def result(hidden: float) -> dict:
        intact = {"loss_masked": node(0.1, 0.1, 0.1), "loss_observed": node(1e-4, 1e-4, 1e-4)}
        row = {"loss_masked": node(*[0.1 + hidden] * 3), "loss_observed": node(*[1e-4 - 1e-6] * 3)}
        return {
            "variance": 1.0,
            "seeds": [0, 1, 2],
            "intact": intact,
            "ablated": {"uniform": {"row heads": row, "column heads": row}},
        }

    assert measures.selective_ablation(Results(ablation=result(1e-7), loss=DROPPED)).verdict == "contradicted"
    assert measures.selective_ablation(Results(ablation=result(0.8), loss=DROPPED)).verdict == "reproduced"


def test_a_component_run_that_ends_too_early_is_inconclusive():
    def runs(position, end: int) -> dict:
        halves = {"everything": 2000, "token": 10, "mlp": 20, "attention": 300, "position": position}
        return {"runs": {n: {"drop": {"half": node(*[h] * 3)}, "last_step": end} for n, h in halves.items()}}

    assert measures.component_order(Results(components=runs(None, 600))).verdict == "inconclusive"
    assert measures.component_order(Results(components=runs(None, 4000))).verdict == "reproduced"
    assert measures.component_order(Results(components=runs(1000, 4000))).verdict == "contradicted"


def test_widths_that_all_stay_on_the_plateau_show_nothing():
    assert not any(measures.wider_is_better({"a": ([None] * 3, [1.0] * 3), "b": ([None] * 3, [1.0] * 3)}))
    assert all(measures.wider_is_better({"a": ([None] * 3, [1.0] * 3), "b": ([9] * 3, [0.2] * 3)}))


def test_other_shapes_need_rows_near_the_solver():
    def result(rows: float, columns: float) -> dict:
        def point(ratio: float) -> dict:
            return {"value": 3, "bert": {"loss": node(*[ratio] * 3)}, "nuclear_norm": {"loss": 1.0}}

        return {"trained_on": {"rows": 4, "columns": 4}, "rows": [point(rows)], "columns": [point(columns)]}

    assert measures.other_shapes(Results(ood_shapes=result(1.2, 5.0), loss=DROPPED)).verdict == "reproduced"
    assert measures.other_shapes(Results(ood_shapes=result(50.0, 101.0), loss=DROPPED)).verdict == "contradicted"
    empty = {"trained_on": {"rows": 4, "columns": 4}, "rows": [], "columns": []}
    assert measures.other_shapes(Results(ood_shapes=empty, loss=DROPPED)).verdict == "inconclusive"


def test_laws_are_judged_against_their_own_hidden_entries():
    laws = {"uniform": {"zero": 0.1, "losses": {"loss_masked": node(0.095, 0.095, 0.095)}}}
    assert measures.other_laws(Results(ood={"laws": laws}, loss=DROPPED)).verdict == "contradicted"
