"""Sweeps: the runs that a file means, the commands they become, and how a pool runs them."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import experiment, pool, sweep
from common.plain import to_yaml
from common.run import UserError

ROOT = Path(__file__).parents[2]

# Stands for a paper's train.py: obeys --fail and --sleep, counts its starts, leaves a finished run.
TRAIN = """
import json, os, pathlib, sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path("runs/paper", flags["study"], flags["name"])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "starts", "a") as starts:
    print(os.getpid(), os.environ["OMP_NUM_THREADS"], file=starts)
if "sleep" in flags:
    time.sleep(float(flags["sleep"]))
if "fail" in flags:
    sys.exit("error: asked to fail")
(folder / "manifest.json").write_text(json.dumps({"state": "finished"}))
print("trained", flags["name"])
"""
# Stands for an analysis: fails where the run it reads is not finished.
PROBE = """
import json, pathlib, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
run = pathlib.Path(flags["run"])
assert json.loads((run / "manifest.json").read_text())["state"] == "finished"
with open(run / "probes", "a") as probes:
    print(flags, file=probes)
"""


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A folder with one paper, as the current one; gives a function that writes a sweep file there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "paper" / "analysis").mkdir(parents=True)
    (tmp_path / "paper" / "train.py").write_text(TRAIN)
    (tmp_path / "paper" / "analysis" / "probe.py").write_text(PROBE)

    def write(**keys):
        path = tmp_path / "width.yaml"
        path.write_text(to_yaml({"program": "paper/train.py"} | keys))
        return path

    return write


def commands(path, seed=0, preset=None, study=None, seeds=None):
    return [list(job.command) for job in sweep.jobs(sweep.load(path, preset, study), seed, seeds)]


def starts(name):
    return Path("runs/paper/width", name, "starts").read_text().splitlines()


def test_grid_is_every_combination_once_named_by_what_varies(paper):
    parameters = {"model.d": {"values": [32, 64]}, "lr": {"values": [1e-3, "x y"]}, "n": {"value": 4}}
    expected = [
        f"python paper/train.py --model.d={d} --lr={lr} --n=4 --study=width --name=width_d={d}_lr={short}"
        for d in (32, 64)
        for lr, short in ((0.001, "0.001"), ("x y", "x-y"))
    ]
    assert [" ".join(words) for words in commands(paper(method="grid", parameters=parameters))] == expected


def test_keys_with_one_last_part_keep_their_full_names(paper):
    path = paper(method="grid", parameters={"a.lr": {"values": [1, 2]}, "b.lr": {"values": [3]}})
    assert [run["name"] for run in sweep.runs(sweep.load(path))] == ["width_a.lr=1_b.lr=3", "width_a.lr=2_b.lr=3"]


def test_flags_are_those_that_wandb_agent_sends(paper):
    agent = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    values = {"model.d": 64, "lr": 1e-5, "law": "gaussian", "study": "widths"}
    path = paper(method="grid", parameters={key: {"value": value} for key, value in values.items()})
    expected = agent.create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})[
        "args"
    ]
    assert commands(path) == [["python", "paper/train.py", *expected, "--name=width"]]


RANDOM = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
    "p": {"min": 0.1, "max": 0.6},
    "n": {"min": 3, "max": 6},
    "d": {"distribution": "q_uniform", "min": 0.2, "max": 0.8, "q": 0.2},
    "law": {"values": ["uniform", "gaussian"]},
}


def test_random_draws_follow_their_distributions(paper):
    drawn = sweep.runs(sweep.load(paper(method="random", run_cap=2000, parameters=RANDOM)), seed=1)
    assert len(drawn) == 2000
    assert all(1e-4 <= run["lr"] <= 1e-2 and 0.1 <= run["p"] <= 0.6 for run in drawn)
    assert {run["n"] for run in drawn} == {3, 4, 5, 6}
    assert {run["d"] for run in drawn} == {0.2, 0.4, 0.6, 0.8}
    assert {run["law"] for run in drawn} == {"uniform", "gaussian"}
    # log10(lr) is uniform on [-4, -2]: mean -3, standard error 2 / sqrt(12 * 2000) = 0.013.
    assert abs(sum(math.log10(run["lr"]) for run in drawn) / 2000 + 3) < 0.065


def test_random_draws_come_from_the_seed_alone(paper):
    path = paper(method="random", run_cap=5, parameters=RANDOM)
    assert commands(path, seed=3) == commands(path, seed=3) != commands(path, seed=4)


def test_list_entries_become_their_own_commands(paper):
    main = {"name": "main", "config": ["quick.yaml", "more.yaml"], "train.steps": 10, "resume": None, "tied": True}
    probe = {"program": "paper/analysis/probe.py", "config": "probe.yaml", "run": "runs/paper/quick/main"}
    made = sweep.jobs(sweep.load(paper(method="list", study="quick", runs=[main, probe])))
    flags = (
        "--config=quick.yaml --config=more.yaml --train.steps=10 --resume=null --tied=true --study=quick --name=main"
    )
    assert shlex.join(made[0].command) == f"python paper/train.py {flags}"
    assert (
        shlex.join(made[1].command) == "python paper/analysis/probe.py --config=probe.yaml --run=runs/paper/quick/main"
    )
    assert [job.log for job in made] == [
        Path("runs/paper/quick/logs/main.log"),
        Path("runs/paper/quick/logs/probe.log"),
    ]
    assert (made[1].folder, made[1].after) == (None, ("main",))


def test_command_of_the_file_is_used_and_shared_with_wandb(paper):
    path = paper(
        method="grid",
        command=["${env}", "nice", "${interpreter}", "-O", "${program}", "${args}", "--fixed=1"],
        parameters={"d": {"values": [8]}},
    )
    assert commands(path) == [
        ["nice", "python", "-O", "paper/train.py", "--d=8", "--study=width", "--name=width_d=8", "--fixed=1"]
    ]


def test_a_job_waits_for_what_it_reads_and_for_what_it_names(paper):
    runs = [
        {"name": "main"},
        {"name": "wide"},
        {"name": "component", "train.start_from": "runs/paper/width/main/checkpoints"},
        {"name": "mainland", "config": "runs/paper/width/main_not.yaml"},
        {"name": "curves", "program": "paper/analysis/probe.py", "run": "runs/paper/width/main", "after": ["wide"]},
    ]
    made = {job.name: job for job in sweep.jobs(sweep.load(paper(method="list", runs=runs)))}
    waits = {name: job.after for name, job in made.items()}
    assert waits == {"main": (), "wide": (), "component": ("main",), "mainland": (), "curves": ("main", "wide")}
    assert not any("after" in word for word in made["curves"].command)


MISTAKES = {
    "found wide under after": {"method": "list", "runs": [{"name": "main", "after": ["wide"]}, {"name": "wide"}]},
    "unknown key methods": {"methods": "grid"},
    "found no method": {},
    "found method bayes": {"method": "bayes", "parameters": {}},
    "found no run_cap": {"method": "random", "parameters": {}},
    "found distribution beta in parameter lr": {"method": "grid", "parameters": {"lr": {"distribution": "beta"}}},
    "found no max in parameter lr": {"method": "random", "run_cap": 1, "parameters": {"lr": {"min": 0.1}}},
    "found distribution uniform": {"method": "grid", "parameters": {"lr": {"min": 0.1, "max": 0.2}}},
    "unknown key parameters in parameter model": {"method": "grid", "parameters": {"model": {"parameters": {}}}},
    "several runs named main": {"method": "list", "runs": [{"name": "main"}, {"name": "main"}]},
    "found no name in run": {"method": "list", "runs": [{"lr": 1}]},
    "found no program gone.py": {"method": "list", "runs": [{"program": "gone.py"}]},
    r"found \$\{args_json\} in command": {"method": "list", "runs": [{"name": "a"}], "command": ["${args_json}"]},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_named(paper, message):
    with pytest.raises(UserError, match=message):
        commands(paper(**MISTAKES[message]))


def test_a_mistake_exits_2_in_one_line(paper, capsys):
    assert sweep.main([str(paper(method="bayes"))]) == 2
    assert sweep.main(["gone.yaml"]) == 2
    bayes, gone = capsys.readouterr().err.splitlines()
    assert "bayes" in bayes and "gone.yaml" in gone


def test_dry_run_prints_the_commands_and_starts_none(paper, capsys):
    path = paper(method="grid", parameters={"law": {"values": ["x y", "z"]}})
    assert sweep.main([str(path), "--dry_run"]) == 0
    assert [shlex.split(line) for line in capsys.readouterr().out.splitlines()] == commands(path)
    assert not Path("runs").exists()


def test_a_failure_stops_only_what_waits_for_it(paper, capsys):
    runs = [
        {"name": "bad", "fail": True},
        {"name": "good"},
        {"name": "of_bad", "program": "paper/analysis/probe.py", "run": "runs/paper/width/bad"},
        {"name": "of_good", "program": "paper/analysis/probe.py", "run": "runs/paper/width/good"},
    ]
    assert sweep.main([str(paper(method="list", runs=runs)), "--workers=4", "--threads=3"]) == 1
    out = capsys.readouterr().out
    assert "bad: exit 1" in out and "asked to fail" in out and "of_bad: left out" in out
    assert "of_good: done" in out and "2 done and 2 failed" in out
    assert Path("runs/paper/width/logs/good.log").read_text() == "trained good\n"
    assert starts("good")[0].split()[1] == "3"


def test_finished_runs_are_skipped_begun_ones_resumed_and_analyses_repeated(paper, capsys):
    probe = {"name": "probe", "program": "paper/analysis/probe.py", "run": "runs/paper/width/main"}
    path = paper(method="list", runs=[{"name": "main"}, probe])
    assert [sweep.main([str(path)]) for _ in range(2)] == [0, 0]
    assert "# finished: runs/paper/width/main" in capsys.readouterr().out
    assert len(starts("main")) == 1
    assert len(Path("runs/paper/width/main/probes").read_text().splitlines()) == 2
    Path("runs/paper/width/main/manifest.json").write_text(json.dumps({"state": "interrupted"}))
    assert "--resume=true" in commands(path)[0]


class Counted:
    """A process that ends at its third poll; counts how many live at once."""

    alive, most = 0, 0

    def __init__(self, job):
        self.polls = 0
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def poll(self):
        self.polls += 1
        Counted.alive -= self.polls == 3
        return 0 if self.polls == 3 else None


def test_pool_never_runs_more_than_its_workers():
    jobs = [pool.Job(str(number), (), Path("unused")) for number in range(7)]
    assert pool.run(jobs, [], Counted, workers=3) == dict.fromkeys("0123456", 0)
    assert (Counted.most, Counted.alive) == (3, 0)


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_child_behind(paper, number):
    path = paper(method="grid", parameters={"sleep": {"values": [600, 601]}})
    swept = subprocess.Popen([sys.executable, "-m", "common.sweep", str(path)], stdout=subprocess.DEVNULL)
    files = [Path(f"runs/paper/width/width_sleep={seconds}/starts") for seconds in (600, 601)]
    wait_until(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
    swept.send_signal(number)
    assert swept.wait(30) == 130
    assert all(gone(int(file.read_text().split()[0])) for file in files)


def test_slurm_runs_the_same_commands(paper):
    pytest.importorskip("submitit")
    jobs = sweep.jobs(sweep.load(paper(method="list", runs=[{"name": "good"}, {"name": "bad", "fail": True}])))
    # submitit's local cluster stands for Slurm: same files, same pickled call.
    start = pool.slurm(Path("runs/submitit"), threads=2, settings={"timeout_min": 1}, cluster="local")
    assert pool.run(jobs, [], start, workers=2) == {"good": 0, "bad": 1}
    assert starts("good")[0].split()[1] == "2"
    assert "asked to fail" in Path("runs/paper/width/logs/bad.log").read_text()


def test_slurm_settings_that_submitit_does_not_know_are_a_mistake(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match="slurm: .*colour"):
        pool.slurm(tmp_path, threads=1, settings={"colour": "blue"}, cluster="local")


# One file for all presets


def test_preset_and_study_are_filled_in_and_base_lies_under_every_training_run(paper):
    runs = [{"name": "main"}, {"name": "parts", "config": "paper/parts.yaml", "start": "runs/paper/{study}/main"}]
    path = paper(method="list", base="paper/{preset}.yaml", runs=runs)
    assert [" ".join(words) for words in commands(path, preset="quick", study="second", seeds="[6, 7]")] == [
        "python paper/train.py --config=paper/quick.yaml --study=second --name=main --seeds=[6, 7]",
        "python paper/train.py --config=paper/quick.yaml --config=paper/parts.yaml --start=runs/paper/second/main "
        "--study=second --name=parts --seeds=[6, 7]",
    ]
    assert all("--study=quick" in words for words in commands(path, preset="quick"))
    with pytest.raises(UserError, match="--preset quick"):
        commands(path)


def test_an_entry_with_presets_belongs_to_those_alone(paper):
    runs = [{"name": "main"}, {"name": "wide", "presets": ["medium", "paper"]}]
    path = paper(method="list", runs=runs)
    assert len(commands(path, preset="quick")) == 1
    assert len(commands(path, preset="paper")) == 2
    assert not any("presets" in word for words in commands(path, preset="paper") for word in words)


def test_an_experiment_entry_is_the_script_that_its_config_names_on_a_run_of_the_study(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    (tmp_path / "paper/configs").mkdir()
    (tmp_path / "paper/configs/width.yaml").write_text("# Width\n#   python paper/analysis/probe.py --config x\n")
    path = paper(
        method="list",
        runs=[{"name": "wide"}, {"experiment": "width", "run": "wide"}, {"experiment": "width", "name": "w"}],
    )
    first, second = sweep.jobs(sweep.load(path, "quick"))[1:]
    assert " ".join(first.command) == (
        "python paper/analysis/probe.py --config=paper/configs/width.yaml --run=runs/paper/quick/wide"
    )
    assert first.after == ("wide",) and (first.name, second.name) == ("analyse_width", "w")
    assert second.command[-1] == "--run=runs/paper/quick/main"
    with pytest.raises(UserError, match="no experiment depth"):
        commands(paper(method="list", runs=[{"experiment": "depth"}]))
