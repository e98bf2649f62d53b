"""Every shipped config, found by glob: it parses, has its header, and runs at smoke scale; every README command parses."""

import json
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from abrupt_learning import claims
from abrupt_learning.train import Config, main
from common import analysis, config, sweep
from tests.abrupt_learning.analyses import HOMES
from tests.papers import ROOT, assert_command_exists, assert_header_is_whole, commands, flags, settings_class

HERE = ROOT / "abrupt_learning"
ANALYSES = sorted(p.stem for p in (HERE / "analysis").glob("*.py") if not p.stem.startswith("_"))
CONFIGS = sorted((HERE / "configs").glob("*.yaml"))
TRAINING = [p for p in CONFIGS if p.stem not in ANALYSES]
SWEEPS = sorted((HERE / "configs/sweeps").glob("*.yaml"))
SMOKE = HERE / "configs/smoke.yaml"
TINY = {"train.steps": 4, "train.batch_size": 4, "train.save_every": 2, "train.log_every": 2, "train.warmup": 0,
        "model.hidden_size": 16, "model.n_layer": 2, "model.n_head": 2, "train.evaluate_batch": 4}  # fmt: skip


@pytest.mark.parametrize("path", sorted((HERE / "configs").glob("**/*.yaml")), ids=lambda p: p.stem)
def test_header_says_paper_command_duration_and_expectation(path):
    assert_header_is_whole(path)


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_training_config_runs_for_a_few_steps(path, tmp_path, smoke_run):
    own = yaml.safe_load(path.read_text())
    base = [] if "preset" in own else [f"--config={SMOKE}"]
    extra = TINY | {"root": str(tmp_path), "device": "cpu", "seeds": [0], "precision": "fp32"}
    if own.get("train", {}).get("evaluate_every"):
        extra["train.evaluate_every"] = 2
    if "components" in own.get("train", {}):
        extra["train.start_from"] = str(smoke_run)
    settings = config.parse(Config, [*base, f"--config={path}", *flags(extra)])
    main(settings)
    rows = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} >= {2, 4}


@pytest.mark.parametrize("name", ANALYSES)
def test_analysis_runs_on_the_smoke_study(name, smoke_study, monkeypatch, capsys):
    module, settings = settings_class("abrupt_learning", name)
    home = smoke_study / HOMES.get(name, "main")
    argv = [f"--config={HERE / 'configs' / name}.yaml", f"--run={home}", "--device=cpu"]
    if "runs" in [f.name for f in fields(settings)]:
        argv.append("--runs=[main, control]")
    parsed = config.parse(settings, argv)
    monkeypatch.setattr(analysis.config, "main", lambda function, _: function(parsed))
    module.perform(name, settings, module.analyse, module.draw, module.finding)
    result = json.loads((home / "results" / f"{name}.json").read_text())
    assert result["settings"]["run"] == str(home)
    assert (home / "figures" / f"{name}.png").stat().st_size > 2000
    assert capsys.readouterr().out.startswith(f"{name}: ")


@pytest.mark.parametrize("name", ANALYSES)
def test_analysis_config_says_every_setting_of_its_own(name):
    _, settings = settings_class("abrupt_learning", name)
    own = {f.name for f in fields(settings)} - {f.name for f in fields(analysis.Analysis)}
    assert own <= set(yaml.safe_load((HERE / f"configs/{name}.yaml").read_text()))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_sweep_names_runs_that_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for job in sweep.jobs(sweep.load(path)):
        _, program, *rest = job.command
        if program.endswith("train.py"):
            if any("start_from" in flag for flag in rest):
                rest = [flag for flag in rest if "resume" not in flag]
            parsed = config.parse(Config, rest)
            assert parsed.folder == job.folder
            assert parsed.preset == path.stem
        else:
            config.parse(settings_class("abrupt_learning", Path(program).stem)[1], rest)


def test_every_claim_of_the_sheet_is_there_once_and_every_command_is_shipped():
    assert [c.id for c in claims.CLAIMS] == [f"C{i}" for i in range(1, 32)]
    for claim in claims.CLAIMS:
        _, script, flag, path, *_ = shlex.split(claim.command)
        assert (ROOT / script).is_file() and flag == "--config" and (ROOT / path).is_file()


def test_claims_are_judged_on_the_smoke_study_and_never_reproduced_there(smoke_study, capsys):
    claims.main(claims.Judge(study=str(smoke_study)))
    rows = json.loads((smoke_study / "claims.json").read_text())
    assert len(rows) == 31
    assert {row["verdict"] for row in rows} == {"not at this scale"}
    assert "C31" in capsys.readouterr().out
    assert (smoke_study / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", commands(HERE / "README.md"), ids=lambda c: c[:60])
def test_readme_command_is_one_that_exists(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert_command_exists(command)


def test_starting_train_imports_nothing_optional():
    code = (
        "import sys, abrupt_learning.train; "
        "print([m for m in ('wandb', 'cvxpy', 'datasets', 'transformers', 'sklearn', 'seaborn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
