"""Every shipped config, found by glob: it parses, has its header, and runs at smoke scale; every README command parses."""

import json
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from common import analysis, config, sweep
from common.config import UserError
from common.plain import from_yaml
from layernorm_grok import claims
from layernorm_grok.train import Config, main
from tests.layernorm_grok.conftest import RUNS, SMOKE
from tests.papers import ROOT, assert_command_exists, assert_header_is_whole, commands, flags, settings_class

HERE = ROOT / "layernorm_grok"
ANALYSES = sorted(p.stem for p in (HERE / "analysis").glob("*.py") if not p.stem.startswith("_"))
BASES = [p for p in sorted((HERE / "configs").glob("*.yaml")) if p.stem not in ANALYSES]
GRIDS = sorted((HERE / "configs/grids").glob("*.yaml"))
SWEEPS = sorted((HERE / "configs/sweeps").glob("*.yaml"))
TINY = {"data.P": 11, "model.d": 16, "train.steps": 4, "train.evaluate_every": 2, "train.save_every": 2, "seeds": [0]}


@pytest.mark.parametrize(
    "path", sorted((HERE / "configs").glob("**/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_header_says_paper_command_duration_and_expectation(path):
    assert_header_is_whole(path)


@pytest.mark.parametrize("path", [*BASES, *GRIDS], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_training_config_runs_for_a_few_steps(path, tmp_path):
    own = from_yaml(path.read_text())
    base = [] if "preset" in own else [f"--config={SMOKE}"]
    extra = TINY | {"root": str(tmp_path), "device": "cpu"}
    settings = config.parse(Config, [*base, f"--config={path}", *flags(extra)])
    main(settings)
    rows = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {1, 2, 4}


@pytest.mark.parametrize("name", ANALYSES)
def test_analysis_runs_on_the_smoke_study(name, smoke_study, monkeypatch, capsys):
    module, settings = settings_class("layernorm_grok", name)
    home = smoke_study / (name if name in RUNS else {"lazy_limit": "lazy_sgd"}.get(name, "main"))
    argv = [f"--config={HERE / 'configs' / name}.yaml", f"--run={home}", "--device=cpu", "--threads=1"]
    own = {f.name for f in fields(settings)}
    small = {"points": 3, "pairs": 20, "iterations": 6, "steps": 3, "runs": ["post"] if name == "ablations" else []}
    argv += flags({key: value for key, value in small.items() if key in own})
    parsed = config.parse(settings, argv)
    monkeypatch.setattr(analysis.config, "main", lambda function, _: function(parsed))
    module.perform(name, settings, module.analyse, module.draw, module.finding)
    result = json.loads((home / "results" / f"{name}.json").read_text())
    assert result["settings"]["run"] == str(home)
    assert (home / "figures" / f"{name}.png").stat().st_size > 2000
    assert capsys.readouterr().out.startswith(f"{name}: ")


@pytest.mark.parametrize("name", ANALYSES)
def test_analysis_config_says_every_setting_of_its_own(name):
    _, settings = settings_class("layernorm_grok", name)
    own = {f.name for f in fields(settings)} - {f.name for f in fields(analysis.Analysis)}
    assert own <= set(yaml.safe_load((HERE / f"configs/{name}.yaml").read_text()))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_sweep_names_runs_that_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for job in sweep.jobs(sweep.load(path)):
        _, program, *rest = job.command
        if Path(program).name == "train.py":
            parsed = config.parse(Config, rest)
            assert parsed.folder == job.folder
            assert parsed.preset == path.stem
        else:
            config.parse(settings_class("layernorm_grok", Path(program).stem)[1], rest)


def test_every_experiment_has_config_and_analysis_of_one_name_and_a_job_at_full_scale():
    jobs = {Path(job.command[1]).stem for job in sweep.jobs(sweep.load(HERE / "configs/sweeps/paper.yaml"))}
    for name in ANALYSES:
        assert (HERE / f"configs/{name}.yaml").is_file()
        assert name in jobs
    assert {p.stem for p in GRIDS} - {"lazy_sgd", "lazy_adamw"} <= set(ANALYSES)


def test_every_claim_of_the_sheet_is_there_once_and_every_command_is_shipped():
    assert [c.id for c in claims.CLAIMS] == [f"C{i}" for i in range(1, 26)]
    for claim in claims.CLAIMS:
        _, script, flag, path, *_ = shlex.split(claim.command)
        assert (ROOT / script).is_file() and flag == "--config" and (ROOT / path).is_file()


def test_claims_are_judged_on_the_smoke_study_and_never_reproduced_there(smoke_study, capsys):
    claims.main(claims.Judge(study=str(smoke_study)))
    rows = json.loads((smoke_study / "claims.json").read_text())
    assert len(rows) == 25
    assert {row["verdict"] for row in rows} == {"not at this scale"}
    assert "C25" in capsys.readouterr().out
    assert (smoke_study / "report.html").stat().st_size > 10_000


def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="make repro-grok"):
        claims.main(claims.Judge(study=str(tmp_path)))


@pytest.mark.parametrize("command", commands(HERE / "README.md"), ids=lambda c: c[:60])
def test_readme_command_is_one_that_exists(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert_command_exists(command)


def test_starting_train_imports_nothing_optional():
    code = (
        "import sys, layernorm_grok.train; "
        "print([m for m in ('wandb', 'cvxpy', 'datasets', 'transformers', 'sklearn', 'scipy', 'seaborn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
