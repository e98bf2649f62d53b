"""Sweeps: the runs that a file means, the commands they become, and how a pool runs them."""

import json
import math
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from common import experiment, sweep
from common.plain import to_yaml
from common.run import UserError

ROOT = Path(__file__).parents[2]

# Stands for a paper's train.py: obeys --fail, --sleep (at its first start) and --save (seconds that its last checkpoint takes
# when it is asked to stop), counts its starts, leaves a finished run.
TRAIN = """
import json, os, pathlib, signal, sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path("runs/paper", flags["study"], flags["name"])
folder.mkdir(parents=True, exist_ok=True)
def save(number, frame):
    time.sleep(float(flags["save"]))
    (folder / "saved").touch()
    sys.exit(130)
if "save" in flags:
    signal.signal(signal.SIGTERM, save)
with open(folder / "starts", "a") as starts:
    print(os.getpid(), os.environ["OMP_NUM_THREADS"], os.getppid(), "resume" in flags, file=starts)
if "save" in flags and not (folder / "saved").exists():
    time.sleep(600)
if "sleep" in flags and "resume" not in flags:
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


def lay(tmp_path, monkeypatch):
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


@pytest.fixture
def paper(tmp_path, monkeypatch):
    return lay(tmp_path, monkeypatch)


def commands(path, seed=0, preset=None, study=None, seeds=None):
    return [list(job.command) for job in sweep.jobs(sweep.load(path, preset, study), seed, seeds)]


def starts(name):
    """A line per start of a run: process, threads, parent, whether it was resumed."""
    file = Path("runs/paper/width", name, "starts")
    return file.read_text().splitlines() if file.exists() else []


def touch(*paths):
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


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
    touch("quick.yaml", "more.yaml", "probe.yaml")
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
        {"name": "curves", "program": "paper/analysis/probe.py", "run": "runs/paper/width/main", "after": "wide"},
        {"name": "copied", "config": ["runs/paper/width/wide/config.yaml"]},
    ]
    touch("runs/paper/width/main_not.yaml")
    made = {job.name: job for job in sweep.jobs(sweep.load(paper(method="list", runs=runs)))}
    waits = {name: job.after for name, job in made.items()}
    assert waits == {
        "main": (),
        "wide": (),
        "component": ("main",),
        "mainland": (),
        "curves": ("main", "wide"),
        "copied": ("wide",),
    }
    assert not any("after" in word for word in made["curves"].command)


LIST, GRID, RANDOM_ONE = {"method": "list"}, {"method": "grid"}, {"method": "random", "run_cap": 1}
LOG = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}
STEPS = {"distribution": "q_uniform", "min": 0, "max": 1}


def one(**entry):
    """A list of one run."""
    return LIST | {"runs": [{"name": "main"} | entry]}


def drawn(**spec):
    """A random sweep over lr."""
    return RANDOM_ONE | {"parameters": {"lr": spec}}


# What is wrong with a file, and the start of what is told.
MISTAKES = [
    ("unknown key methods", {"methods": "grid"}),
    ("found no method", {}),
    ("method: found 'bayes'", {"method": "bayes", "parameters": {}}),
    ("method: found ", {"method": ["grid"]}),
    ("method: found null", {"method": None}),
    ("program: found 3", one() | {"program": 3}),
    ("found no program gone.py", one(program="gone.py")),
    ("program: found ", one(program=["paper/train.py"])),
    ("base: found 3", one() | {"base": 3}),
    ("found no config gone.yaml", one() | {"base": "gone.yaml"}),
    ("name: found 'a/b'", one() | {"name": "a/b"}),
    ("name: found '..'", one() | {"name": ".."}),
    ("name: found 3 ", one() | {"name": 3}),
    ("study: found 3", one() | {"study": 3}),
    ("study: found '../other'", one() | {"study": "../other"}),
    ("slurm: found 3", one() | {"slurm": 3}),
    ("run_cap: found -1", one() | {"run_cap": -1}),
    ("run_cap: found 0", one() | {"run_cap": 0}),
    ("run_cap: found 'ten'", one() | {"run_cap": "ten"}),
    ("run_cap: found 1.5", one() | {"run_cap": 1.5}),
    ("run_cap: found true", one() | {"run_cap": True}),
    ("run_cap: found 10000000000", one() | {"run_cap": 10**10}),
    ("command: found 3", one() | {"command": 3}),
    ("command: found []", one() | {"command": []}),
    ("command: found ", one() | {"command": [["a"]]}),
    ("found ${args_json} in command", one() | {"command": ["${args_json}"]}),
    ("found command ", one() | {"command": ["${interpreter}", "${program}"]}),
    ("found gone-program at the head of command", one() | {"command": ["gone-program", "${args}"]}),
    # The runs of a list
    ("found no runs", LIST),
    ("runs: found 3", LIST | {"runs": 3}),
    ("runs: found {}", LIST | {"runs": {}}),
    ("runs: found []", LIST | {"runs": []}),
    ("runs: found [3]", LIST | {"runs": [3]}),
    ("runs: found [None]", LIST | {"runs": [None]}),
    ("found runs", GRID | {"parameters": {"lr": {"value": 1}}, "runs": [{"name": "main"}]}),
    ("found parameters", one() | {"parameters": {"lr": {"value": 1}}}),
    ("found several runs named main", LIST | {"runs": [{"name": "main"}, {"name": "main"}]}),
    ("found no name in run", LIST | {"runs": [{"lr": 1}]}),
    ("name: found 'a/b'", one(name="a/b")),
    ("name: found '..'", one(name="..")),
    ("name: found ''", one(name="")),
    ("name: found 3 ", one(name=3)),
    ("name: found null", one(name=None)),
    ("name: found 'aaaa", one(name="a" * 130)),
    ("found a training run named logs", one(name="logs")),
    ("study: found '..'", one(study="..")),
    ("after: found 3", one(after=3)),
    ("after: found [3]", one(after=[3])),
    ("found x under after", one(after=["x"])),
    ("found wide under after", LIST | {"runs": [{"name": "main", "after": ["wide"]}, {"name": "wide"}]}),
    ("presets: found 3", one(presets=3)),
    ("presets: found []", one(presets=[])),
    ("config: found 3", one(config=3)),
    ("config: found ", one(config={"a": 1})),
    ("found no config gone.yaml", one(config=["gone.yaml"])),
    ("experiment: found 3", one(experiment=3)),
    ("experiment: found '../../x'", one(experiment="../../x")),
    ("run: found '../other/main'", one(experiment="loss", run="../other/main")),
    ("found no experiment loss", one(experiment="loss")),
    ("runs: found '--lr'", one(**{"--lr": 1})),
    ("runs: found 'lr=1 '", one(**{"lr=1 ": 1})),
    ("runs.1.lr: found nan", one(lr=math.nan)),
    ("runs.1.lr: found 'a\\x00b'", one(lr="a\0b")),
    ("runs.1.lr: found '\\ud800'", one(lr="\ud800")),
    ("runs.1.law: found {'a'}", one(law={"a"})),
    # The parameters of a grid and of random draws
    ("parameters: found 3", GRID | {"parameters": 3}),
    ("parameters: found {}", GRID | {"parameters": {}}),
    ("found no run_cap", {"method": "random", "parameters": {"lr": {"value": 1}}}),
    ("found 3 in parameter lr", GRID | {"parameters": {"lr": 3}}),
    ("parameters.lr.values: found 3", GRID | {"parameters": {"lr": {"values": 3}}}),
    ("parameters.lr.values: found []", GRID | {"parameters": {"lr": {"values": []}}}),
    ("parameters.lr.values: found []", drawn(values=[])),
    ("found distribution 'beta' in parameter lr", GRID | {"parameters": {"lr": {"distribution": "beta"}}}),
    ("found distribution ['a'] in parameter lr", GRID | {"parameters": {"lr": {"distribution": ["a"]}}}),
    ("found distribution uniform", GRID | {"parameters": {"lr": {"min": 0.1, "max": 0.2}}}),
    ("unknown key parameters in parameter model", GRID | {"parameters": {"model": {"parameters": {}}}}),
    ("parameters: found 'a b'", GRID | {"parameters": {"a b": {"value": 1}}}),
    ("found 1000000 runs", GRID | {"parameters": {key: {"values": list(range(10))} for key in "abcdef"}}),
    ("name: found ", GRID | {"parameters": {"lr": {"values": ["a" * 130]}}}),
    ("after: found 3", GRID | {"parameters": {"after": {"value": 3}}}),
    ("found no max in parameter lr", drawn(min=0.1)),
    ("unknown key min in parameter lr", drawn(value=1, min=0)),
    ("unknown key q in parameter lr", drawn(min=0.0, max=1.0, q=0.1)),
    ("parameters.lr: found min 2 above max 1", drawn(min=2, max=1)),
    ("parameters.lr: found min 0.2 above max 0.1", drawn(min=0.2, max=0.1)),
    ("parameters.lr.min: found 'a'", drawn(min="a", max=1)),
    ("parameters.lr.max: found null", drawn(min=0.1, max=None)),
    ("parameters.lr.min: found true", drawn(min=True, max=3)),
    ("parameters.lr.min: found nan", drawn(min=math.nan, max=1.0)),
    ("parameters.lr.max: found inf", drawn(min=0.0, max=math.inf)),
    ("parameters.lr.max: found 1000", drawn(min=0.5, max=10**400)),
    ("parameters.lr.min: found 0.5", drawn(distribution="int_uniform", min=0.5, max=3)),
    ("parameters.lr.min: found -0.1", drawn(**LOG | {"min": -0.1})),
    ("parameters.lr.min: found 0", drawn(**LOG | {"min": 0})),
    ("parameters.lr.max: found 0.0", drawn(**LOG | {"max": 0.0})),
    ("parameters.lr.q: found 0", drawn(**STEPS, q=0)),
    ("parameters.lr.q: found -1", drawn(**STEPS, q=-1)),
    ("parameters.lr.q: found 'a'", drawn(**STEPS, q="a")),
]


def is_mistake(argv, told, capsys):
    """Whether the sweep ends with 2 and one line that begins as told, starting nothing."""
    assert sweep.main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {told}") and err.count("\n") == 1 and len(err) < 600, err
    return not out and not Path("runs").exists()


@pytest.mark.parametrize(("told", "keys"), MISTAKES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_ends_with_2_and_a_line_that_names_it(paper, told, keys, capsys):
    text = yaml.dump({"program": "paper/train.py"} | keys, sort_keys=False)
    Path("width.yaml").write_text(text, encoding="utf-8")
    assert is_mistake(["width.yaml"], told, capsys)


ODD = [None, True, -1, 0.5, math.nan, -math.inf, 10**400, "", "a", "..", "a/b", "{preset}", "${args}", "a\0b", "\ud800"]
ODD += ["é" * 200, [], [[]], [3], [None], {}, {"a": 1}, {3: 4}]
WHOLE = [
    {
        **{"program": "paper/train.py", "base": "paper/{preset}.yaml", "name": "width", "study": "s", "run_cap": 9},
        **{"method": "list", "command": ["${interpreter}", "${program}", "${args}"], "slurm": {"timeout_min": 5}},
        "runs": [
            {"name": "main", "config": ["paper/a.yaml"], "model.d": 3, "sizes": [[5, 5]], "borrow": {"lr=1": "b"}},
            {"program": "paper/analysis/probe.py", "run": "runs/s/main", "after": ["main"], "presets": ["quick"]},
            {"experiment": "loss", "run": "main", "name": "l", "runs": ["main"]},
        ],
    },
    {
        **{"program": "paper/train.py", "method": "grid"},
        "parameters": {"lr": {"values": [1, 2]}, "d": {"value": "x"}, "study": {"value": "s"}},
    },
    {
        **{"program": "paper/train.py", "method": "random", "run_cap": 3},
        "parameters": RANDOM | {"k": {"distribution": "int_uniform", "min": 1, "max": 9}},
    },
]


def places(value, path=()):
    """Paths of all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


def changed(value, path, odd):
    """The value with another one at a place."""
    if not path:
        return odd
    items = dict(value) if isinstance(value, dict) else list(value)
    items[path[0]] = changed(value[path[0]], path[1:], odd)
    return items


@pytest.mark.parametrize("keys", WHOLE, ids=lambda keys: keys["method"])
def test_an_odd_value_anywhere_is_taken_or_told_in_a_line(paper, tmp_path, monkeypatch, keys, capsys):
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    touch("paper/quick.yaml", "paper/a.yaml")
    (tmp_path / "paper/configs").mkdir()
    (tmp_path / "paper/configs/loss.yaml").write_text("#   python paper/analysis/probe.py --config x\n")
    codes = Counter()
    for place in places(keys):
        for odd in ODD:
            Path("odd.yaml").write_text(yaml.dump(changed(keys, place, odd), sort_keys=False), encoding="utf-8")
            code = sweep.main(["odd.yaml", "--dry_run", "--preset=quick"])
            err, expected = capsys.readouterr().err, {0: 0, 2: 1}
            assert err.count("\n") == expected[code] and len(err) < 900, (place, odd, err)
            codes[code] += 1
    assert codes[2] > codes[0]


@pytest.mark.parametrize(
    ("told", "content"),
    [
        ("found null in", b""),
        ("found 3 in", b"3"),
        ("found ['a'] in", b"- a"),
        ("found no readable sweep file width.yaml (no UTF-8 text)", "name: größe".encode("latin-1")),
        ("found no valid YAML in width.yaml: method stands twice", b"method: list\nmethod: grid"),
        ("found no valid YAML", b"runs: [a"),
        ("found no valid YAML", b"name: a\x00b"),
        ("found no valid YAML", b"[" * 10000),
        ("runs.1.lr.1", b"method: list\nruns: [{name: a, lr: &loop [*loop]}]"),
        ("unknown key 3", b"3: a"),
        (
            "runs.1.day: found datetime.date(2026, 1, 2)",
            b"method: list\nruns: [{name: a, day: !!timestamp 2026-01-02}]",
        ),
        (
            "runs.1: found the key datetime.date(2026, 1, 2)",
            b"method: list\nruns: [{name: a, ? !!timestamp 2026-01-02 : 1}]",
        ),
    ],
)
def test_a_file_that_is_no_sweep_ends_with_2_and_one_line(paper, told, content, capsys):
    Path("width.yaml").write_bytes(content)
    assert is_mistake(["width.yaml"], told, capsys)


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        *((f"argument --workers: found {text}", [f"--workers={text}"]) for text in ("0", "-1", "1.5", "x", "5000", "")),
        *((f"argument --threads: found {text}", ["--threads", text]) for text in ("0", "-1", "4097", "1e3")),
        *((f"argument --seeds: found {text}", ["--seeds", text]) for text in ("x", "[]", "[1, 1]", "[-1]", "1.5", "{")),
        ("argument --seed: found -1", ["--seed", "-1"]),
        ("argument --workers: expected one argument", ["--workers"]),
        ("unrecognized arguments: --colour", ["--colour"]),
        ("--study: found 'a/b'", ["--study", "a/b"]),
        ("--study: found ''", ["--study", ""]),
        ("--preset: found '..'", ["--preset", ".."]),
    ],
)
def test_a_wrong_flag_ends_with_2_and_one_line(paper, told, flags, capsys):
    assert is_mistake([str(paper(**one())), *flags], told, capsys)


def test_a_file_that_is_not_there_ends_with_2_and_one_line(paper, capsys):
    assert is_mistake(["gone.yaml"], "found no readable sweep file gone.yaml (No such file", capsys)
    assert is_mistake(["paper"], "found no readable sweep file paper (Is a directory", capsys)
    assert is_mistake([], "the following arguments are required: file", capsys)


def test_a_file_in_the_place_of_the_runs_ends_with_2(paper, capsys):
    Path("runs").touch()
    assert sweep.main([str(paper(**one()))]) == 2
    assert "stands in the way" in capsys.readouterr().err


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_a_file_is_read_as_utf_8_whatever_the_locale(paper, locale):
    path = paper(**one(law="größe"))
    path.write_text(path.read_text(), encoding="utf-8")
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "common.sweep", str(path), "--dry_run"]
    swept = subprocess.run(command, env=os.environ | plain, capture_output=True, text=True)
    assert (swept.returncode, swept.stderr) == (0, "")
    assert "--law=gr" in swept.stdout


def test_a_preset_that_no_entry_has_or_that_has_no_config_is_told(paper):
    runs = [{"name": "main", "presets": ["quick", "paper"]}]
    with pytest.raises(UserError, match="found no run for preset quik .*, expected one of paper, quick"):
        commands(paper(method="list", runs=runs), preset="quik")
    touch("paper/quick.yaml")
    with pytest.raises(UserError, match="presets: found no paper/paper.yaml"):
        commands(paper(method="list", base="paper/{preset}.yaml", runs=runs), preset="quick")


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
    assert Path("runs/paper/width/logs/good.log").read_text().endswith(" --name=good\ntrained good\n")
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


# One file for all presets


def test_preset_and_study_are_filled_in_and_base_lies_under_every_training_run(paper):
    runs = [{"name": "main"}, {"name": "parts", "config": "paper/parts.yaml", "start": "runs/paper/{study}/main"}]
    path = paper(method="list", base="paper/{preset}.yaml", runs=runs)
    touch("paper/quick.yaml", "paper/parts.yaml")
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
