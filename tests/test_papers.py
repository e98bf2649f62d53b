"""Every paper, found by glob: its configs parse, have their headers and run at smoke scale; its sweep, claims and README."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from common import config, experiment, sweep
from common.claims import Study, judge
from common.config import UserError
from common.plain import from_yaml, write_json
from common.publish import Judge, publish
from tests.papers import (
    PAPERS,
    ROOT,
    assert_command_exists,
    assert_header_is_whole,
    commands,
    experiments,
    flags,
    home,
    perform,
    script,
    smoke_of,
    train_of,
)  # fmt: skip

CONFIGS = [path for paper in PAPERS for path in sorted((ROOT / paper / "configs").glob("**/*.yaml"))]
EXPERIMENTS = [(paper, name) for paper in PAPERS for name in experiments(paper)]
NAMES = set(EXPERIMENTS)


def paper_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def trains(path: Path) -> bool:
    """A preset or an overlay, no sweep; an overlay may have the name of the experiment that its run serves."""
    sweeps = "program" in from_yaml(path.read_text(encoding="utf-8"))
    return path.parent.name == "overlays" or (paper_of(path), path.stem) not in NAMES and not sweeps


TRAINING = [path for path in CONFIGS if trains(path)]


def presets(paper: str) -> list[str]:
    """Presets that a paper's sweep can make."""
    found = (ROOT / paper / "configs").glob("*.yaml")
    return sorted(p.stem for p in found if "preset" in from_yaml(p.read_text(encoding="utf-8")))


PLANS = [(paper, preset) for paper in PAPERS for preset in presets(paper)]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CONFIGS, ids=ids)
def test_header_says_paper_command_duration_and_expectation(path):
    assert_header_is_whole(path)


@pytest.mark.parametrize("path", TRAINING, ids=ids)
def test_training_config_runs_for_a_few_steps(path, tmp_path, study_of):
    paper = paper_of(path)
    own = from_yaml(path.read_text(encoding="utf-8"))
    base = [] if "preset" in own else [f"--config={ROOT / paper / 'configs/smoke.yaml'}"]
    extra = smoke_of(paper).TINY | {"root": str(tmp_path), "device": "cpu", "precision": "fp32"}
    if "components" in own.get("train", {}):
        extra["train.start_from"] = str(study_of(paper) / "main")
    train = train_of(paper)
    settings = config.parse(train.Config, [*base, f"--config={path}", *flags(extra)])
    experiment.train(settings, train.fit)
    rows = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} >= {2, 4}


@pytest.mark.parametrize(("paper", "preset"), PLANS, ids=lambda value: value)
def test_a_run_is_refused_where_there_is_less_memory_than_it_needs_and_no_preset_needs_much(
    paper, preset, tmp_path, monkeypatch
):
    train = train_of(paper)
    argv = [f"--config={ROOT / paper / 'configs' / preset}.yaml", f"--root={tmp_path}", "--device=cpu"]
    settings = config.parse(train.Config, argv)
    limit = {"smoke": 2**28, "quick": 2**32, "medium": 2**32}.get(preset, 70 * 2**30)
    assert 2**15 < settings.memory() < limit
    monkeypatch.setattr(experiment, "free_memory", lambda device: settings.memory() - 1)
    with pytest.raises(UserError, match=r"found settings that need .* GiB or more on cpu, expected at most the .* GiB"):
        experiment.train(settings, train.fit)
    assert not (tmp_path / paper).exists()


@pytest.mark.parametrize(("paper", "name"), EXPERIMENTS, ids=lambda value: value)
def test_experiment_runs_on_the_smoke_study(paper, name, study_of, capsys):
    run = study_of(paper) / home(paper, name)
    capsys.readouterr()
    perform(paper, name, study_of(paper))
    result = json.loads((run / "results" / f"{name}.json").read_text())
    assert result["settings"]["run"] == str(run) and result["seeds"] == [0, 1, 2]
    assert (run / "figures" / f"{name}.png").stat().st_size > 2000
    assert re.search(rf"^{name}: ", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(("paper", "name"), EXPERIMENTS, ids=lambda value: value)
def test_experiment_config_says_every_setting_of_its_own(paper, name):
    shared = {field.name for field in fields(experiment.Analysis)}
    own = {field.name for field in fields(script(paper, name).Settings)} - shared
    assert own <= set(from_yaml((ROOT / paper / "configs" / f"{name}.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_script_documents_its_result_and_its_own_claims(paper):
    for path in sorted((ROOT / paper / "analysis").glob("[!_]*.py")):
        names = [
            name for name in experiments(paper) if experiment.script_of(paper, name) == f"{paper}/analysis/{path.name}"
        ]
        assert names, f"no config names {path.name}"
        assert script(paper, names[0]).analyse.__doc__


@pytest.mark.parametrize(("paper", "preset"), PLANS, ids=lambda value: value)
def test_sweep_names_runs_that_parse(paper, preset, monkeypatch):
    monkeypatch.chdir(ROOT)
    for job in sweep.jobs(sweep.load(ROOT / paper / "configs/sweep.yaml", preset)):
        _, program, *rest = job.command
        if Path(program).name == "train.py":
            parsed = config.parse(train_of(paper).Config, [flag for flag in rest if not flag.startswith("--resume")])
            assert parsed.folder == job.folder
            assert parsed.preset == preset
        else:
            name = Path(next(flag for flag in rest if flag.startswith("--config")).partition("=")[2]).stem
            config.parse(script(paper, name).Settings, rest)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_experiment_has_a_job_in_some_preset(paper, monkeypatch):
    monkeypatch.chdir(ROOT)
    plans = [sweep.jobs(sweep.load(ROOT / paper / "configs/sweep.yaml", preset)) for preset in presets(paper)]
    made = {Path(flag).stem for plan in plans for job in plan for flag in job.command if flag.startswith("--config")}
    assert set(experiments(paper)) <= made


@pytest.mark.parametrize("paper", PAPERS)
def test_every_need_of_a_claim_is_made_in_every_preset_that_can_test_it(paper, monkeypatch):
    monkeypatch.chdir(ROOT)
    claims = claims_of(paper)
    for preset in presets(paper):
        jobs = [" ".join(job.command) for job in sweep.jobs(sweep.load(ROOT / paper / "configs/sweep.yaml", preset))]
        for claim in claims.CLAIMS:
            for need in claim.needs if preset in claim.presets else ():
                run, _, name = need.rpartition("/")
                wanted = f"configs/{name}.yaml", f"/{preset}/{run or 'main'}"
                assert any(wanted[0] in job and re.search(rf"--run=\S*{wanted[1]}(\s|$)", job) for job in jobs), (
                    claim.id,
                    need,
                )


def claims_of(paper: str):
    return __import__(f"{paper}.claims", fromlist=["claims"])


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_are_judged_on_the_smoke_study_and_never_reproduced_there(paper, study_of, capsys):
    claims, study = claims_of(paper), study_of(paper)
    publish(claims.PAPER, claims.CLAIMS, Judge(study=str(study)))
    rows = json.loads((study / "claims.json").read_text())
    assert [row["id"] for row in rows] == [f"C{number}" for number in range(1, len(rows) + 1)]
    assert {row["verdict"] for row in rows} == {"not at this scale"} and all(row["reduced"] for row in rows)
    assert f"C{len(rows)}" in capsys.readouterr().out
    assert (study / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_is_measured_on_a_study_without_an_error(paper, study_of, monkeypatch):
    """As if smoke could test them all: a number, or a reason; never a traceback."""
    claims, study = claims_of(paper), Study(study_of(paper))
    for name in experiments(paper):
        if not (study.path / home(paper, name) / "results" / f"{name}.json").exists():
            perform(paper, name, study.path)
    for preset in sorted({preset for claim in claims.CLAIMS for preset in claim.presets}):
        monkeypatch.setattr(Study, "preset", preset)
        for row in judge(claims.PAPER, claims.CLAIMS, study):
            assert row["verdict"] != "reproduced" or row["values"]


@pytest.mark.parametrize("paper", PAPERS)
def test_results_with_other_numbers_of_seeds_are_inconclusive_and_say_so(paper, tmp_path, monkeypatch):
    """Main with two seeds beside a run with three."""
    claims, study = claims_of(paper), Study(tmp_path / paper / "first")
    monkeypatch.setattr(Study, "preset", "paper")
    several = [claim for claim in claims.CLAIMS if len(claim.needs) > 1 and "paper" in claim.presets]
    if not several:
        pytest.skip("no claim of this paper reads several results")
    for claim in several:
        for number, need in enumerate(claim.needs):
            write_json(study.file(need, "results", "json"), {"seeds": [3, 4, 5][: 3 - (number > 0)]})
        (row,) = judge(claims.PAPER, [claim], study)
        assert row["verdict"] == "inconclusive" and "3 seeds in" in row["note"]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_page_is_written_where_runs_have_other_numbers_of_seeds(paper, tmp_path, study_of, monkeypatch, capsys):
    """Main's results as if it had two seeds, those of other runs with three: never a traceback."""
    claims, study = claims_of(paper), Study(shutil.copytree(study_of(paper), tmp_path / paper / "first"))
    for path in study.path.glob("main/results/*.json"):
        write_json(path, two_seeds(json.loads(path.read_text())))
    monkeypatch.setattr(Study, "preset", "paper")
    publish(claims.PAPER, claims.CLAIMS, Judge(study=str(study.path)))
    assert (study.path / "report.html").exists()


def two_seeds(value):
    """A result with every list of three cut to two."""
    if isinstance(value, dict):
        return {key: two_seeds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [two_seeds(item) for item in (value[:2] if len(value) == 3 else value)]
    return value


@pytest.mark.parametrize("paper", PAPERS)
def test_a_study_that_is_not_there_is_told(paper, tmp_path):
    claims = claims_of(paper)
    with pytest.raises(UserError, match=claims.PAPER.target):
        publish(claims.PAPER, claims.CLAIMS, Judge(study=str(tmp_path)))


READMES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / paper / "README.md" for paper in PAPERS)]


@pytest.mark.parametrize(
    ("readme", "command"), [(readme, command) for readme in READMES for command in commands(readme)],
    ids=lambda value: value[:60] if isinstance(value, str) else value.parent.name,
)  # fmt: skip
def test_readme_command_is_one_that_exists(readme, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert_command_exists(command)


@pytest.mark.parametrize("paper", PAPERS)
def test_starting_train_imports_nothing_optional(paper):
    lazy = ("wandb", "cvxpy", "datasets", "transformers", "sklearn", "scipy", "seaborn", "matplotlib", "pandas")
    code = f"import sys, {paper}.train; print([m for m in {lazy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
