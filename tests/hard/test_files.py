"""Every file of a run damaged in every way, before the commands that read it: the right result, or exit 2 and one line."""

import importlib
import json
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

from common import claims, config, experiment, publish
from tests.papers import PAPERS, ROOT, assert_same_run, experiments, flags, home, perform, script, smoke_of, train_of

DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "torn": lambda content: content[:-1] if len(content) > 1 else b"",
    "null": lambda content: b"null\n",
    "list": lambda content: b"[1, 2]\n",
    "mapping": lambda content: b"{}\n",
    "number": lambda content: b"3\n",
    "garbage": lambda content: bytes(range(256)) * 4,
    "twice": lambda content: content + content,
    "line gone": lambda content: b"".join(content.splitlines(keepends=True)[1:]),
    "line twice": lambda content: b"".join(content.splitlines(keepends=True)[:1]) + content,
}


def damage(path: Path, kind: str) -> None:
    """Damage a file; `gone` deletes it, `folder` puts a folder in its place."""
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.write_bytes(DAMAGES[kind](content))


KINDS = [*DAMAGES, "gone", "folder"]
QUICK = ("half", "mapping", "gone")
MARKED = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]

OTHERS = list(zip(PAPERS, [*PAPERS[1:], PAPERS[0]], strict=True))


def experiment_of(paper: str) -> str:
    """An experiment that reads the main run: the smoke study's cheapest where it names one, else the first."""
    reads_main = [name for name in experiments(paper) if home(paper, name) == "main"]
    return getattr(smoke_of(paper), "CHEAPEST", reads_main[0])


def call(function, capsys, *argv: str) -> tuple[int, str]:
    """(exit code, stderr) of a program's main, called in this process."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", ["program.py", *argv])
        try:
            code = function()
        except SystemExit as left:
            code = left.code
    return code or 0, capsys.readouterr().err


def assert_told(code: int, err: str, what) -> None:
    assert code in (0, 2), (what, code, err)
    if code == 2:
        told = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(told) == 1 and len(told[0]) < 700, (what, err)


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, study_of):
    """A function: paper -> folder of a smoke run that stopped two thirds of the way, and its argv."""
    made = {}

    def run(paper: str):
        if paper not in made:
            train, root = train_of(paper), tmp_path_factory.mktemp("stopped")
            argv = [f"--config={ROOT / paper / 'configs/smoke.yaml'}", f"--root={root}"]
            argv += ["--device=cpu", "--threads=1", "--seeds=[0]"]
            settings = config.parse(train.Config, argv)
            real, after = experiment.save, {"left": 4}

            def save(run, checkpoints, step, weights, state):
                real(run, checkpoints, step, weights, state)
                after["left"] -= 1
                if after["left"] == 0:
                    raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(experiment, "save", save)
                experiment.train(settings, train.fit)
            made[paper] = settings.folder, [*argv, "--resume"]
        return made[paper]

    return run


@pytest.fixture(scope="session")
def whole(tmp_path_factory, stopped):
    """A function: paper -> the run of `stopped`, never stopped."""
    made = {}

    def run(paper: str):
        if paper not in made:
            train, root = train_of(paper), tmp_path_factory.mktemp("whole")
            argv = [flag for flag in stopped(paper)[1] if not flag.startswith(("--root", "--resume"))]
            settings = config.parse(train.Config, [*argv, f"--root={root}"])
            experiment.train(settings, train.fit)
            made[paper] = settings.folder
        return made[paper]

    return run


def resume(paper: str, folder: Path, argv: list[str], tmp_path: Path, capsys) -> tuple[int, str, Path]:
    """Resume a copy of a run, in another root than it was started in."""
    there = tmp_path / folder.relative_to(folder.parents[2])
    train = train_of(paper)
    moved = [*(flag for flag in argv if not flag.startswith("--root")), f"--root={tmp_path}"]
    code, err = call(lambda: config.main(train.main, train.Config), capsys, *moved)
    return code, err, there


def files_of(folder: Path) -> list[Path]:
    """Files of a run, of the checkpoints those of the newest two."""
    newest = sorted(path.name for path in (folder / "checkpoints").iterdir())[-2:]
    read = {".json", ".yaml", ".jsonl", ".safetensors", ".pt"}
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in read]
    return [p.relative_to(folder) for p in kept if p.parts[-3] != "checkpoints" or p.parts[-2] in newest]


def analyse(paper: str, name: str, run: Path, capsys) -> tuple[int, str]:
    """Run an experiment on a run as its script does, with cheap settings."""
    module = script(paper, name)
    small = {key: value for key, value in smoke_of(paper).SMALL.items() if key in module.Settings.__dataclass_fields__}
    argv = [
        f"--config={ROOT / paper / 'configs' / name}.yaml",
        f"--run={run}",
        "--device=cpu",
        "--threads=1",
        *flags(small),
    ]
    act = partial(experiment.perform, module, name)
    return call(lambda: config.main(act, module.Settings), capsys, *argv)


def judge(paper: str, study: Path, capsys) -> tuple[int, str]:
    """Judge a study as the paper's claims.py does."""
    module = importlib.import_module(f"{paper}.claims")
    return call(lambda: publish.main(module.PAPER, module.CLAIMS), capsys, f"--study={study}")


@pytest.mark.parametrize("kind", MARKED)
@pytest.mark.parametrize("paper", PAPERS)
def test_a_damaged_run_resumes_to_the_same_end_or_is_told(paper, kind, stopped, whole, tmp_path, capsys):
    folder, argv = stopped(paper)
    codes = []
    for number, file in enumerate(files_of(folder)):
        root = tmp_path / str(number)
        copy = root / folder.relative_to(folder.parents[2])
        shutil.copytree(folder, copy)
        damage(copy / file, kind)
        code, err, there = resume(paper, folder, argv, root, capsys)
        assert_told(code, err, (file, kind))
        if code == 0:
            assert_same_run(there, whole(paper))
        codes.append(code)
    assert 0 in codes


@pytest.mark.parametrize("paper", PAPERS)
def test_a_run_resumes_elsewhere_past_strange_neighbours(paper, stopped, whole, tmp_path, capsys):
    folder, argv = stopped(paper)
    copy = tmp_path / folder.relative_to(folder.parents[2])
    shutil.copytree(folder, copy)
    newest = sorted((copy / "checkpoints").iterdir())[-1]
    shutil.copytree(newest, newest.with_name(f"{newest.name}_backup"))
    (copy / "checkpoints" / "notes.txt").write_text("mine")
    (copy / ".manifest.json.999999999").write_text("{")
    code, err, there = resume(paper, folder, argv, tmp_path, capsys)
    assert code == 0, err
    assert_same_run(there, whole(paper))
    assert not (copy / ".manifest.json.999999999").exists()


@pytest.mark.parametrize("paper", PAPERS)
def test_a_checkpoint_in_the_place_of_a_later_one_is_not_believed(paper, stopped, whole, tmp_path, capsys):
    folder, argv = stopped(paper)
    copy = tmp_path / folder.relative_to(folder.parents[2])
    shutil.copytree(folder, copy)
    older, newest = sorted((copy / "checkpoints").iterdir())[-2:]
    shutil.rmtree(newest)
    shutil.copytree(older, newest)
    code, err, there = resume(paper, folder, argv, tmp_path, capsys)
    assert code == 0, err
    assert_same_run(there, whole(paper))


@pytest.mark.parametrize(("paper", "other"), OTHERS)
def test_a_checkpoint_of_another_paper_is_not_believed(paper, other, stopped, whole, tmp_path, capsys):
    folder, argv = stopped(paper)
    copy = tmp_path / folder.relative_to(folder.parents[2])
    shutil.copytree(folder, copy)
    newest = sorted((copy / "checkpoints").iterdir())[-1]
    theirs = sorted((stopped(other)[0] / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    shutil.copytree(theirs, newest)
    record = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps(record | {"step": int(newest.name.removeprefix("step_"))}))
    code, err, there = resume(paper, folder, argv, tmp_path, capsys)
    assert code == 0, err
    assert_same_run(there, whole(paper))


@pytest.mark.parametrize("paper", PAPERS)
def test_without_any_checkpoint_a_run_is_told_and_keeps_its_record(paper, stopped, tmp_path, capsys):
    folder, argv = stopped(paper)
    for number, put in enumerate((lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x"))):
        root = tmp_path / str(number)
        copy = root / folder.relative_to(folder.parents[2])
        shutil.copytree(folder, copy)
        before = (copy / "metrics.jsonl").read_bytes()
        shutil.rmtree(copy / "checkpoints")
        put(copy / "checkpoints")
        code, err, _ = resume(paper, folder, argv, root, capsys)
        assert code == 2 and (copy / "metrics.jsonl").read_bytes() == before, err


@pytest.mark.parametrize("kind", MARKED)
@pytest.mark.parametrize("paper", PAPERS)
def test_a_damaged_run_is_analysed_right_or_told(paper, kind, study_of, tmp_path, capsys):
    name = experiment_of(paper)
    perform(paper, name, study_of(paper))
    source = study_of(paper) / "main"
    right = (source / "results" / f"{name}.json").read_bytes()
    for number, file in enumerate(file for file in files_of(source) if file.parts[0] not in ("results", "figures")):
        copy = tmp_path / str(number) / "main"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("results", "figures"))
        damage(copy / file, kind)
        code, err = analyse(paper, name, copy, capsys)
        assert_told(code, err, (file, kind))
        if code == 0:
            result = (copy / "results" / f"{name}.json").read_bytes()
            assert result.replace(str(copy).encode(), b"") == right.replace(str(source).encode(), b""), (file, kind)


@pytest.mark.parametrize("kind", MARKED)
@pytest.mark.parametrize("paper", PAPERS)
def test_damaged_results_are_judged_as_missing_or_told(paper, kind, study_of, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, study = experiment_of(paper), tmp_path / paper / "study"
    perform(paper, name, study_of(paper))
    shutil.copytree(study_of(paper), study, ignore=shutil.ignore_patterns("checkpoints", "figures"))
    damage(study / "main" / "results" / f"{name}.json", kind)
    assert_told(*judge(paper, study, capsys), kind)
    for file in ("main/manifest.json", "main/config.yaml"):
        damage(study / file, kind)
        assert_told(*judge(paper, study, capsys), (file, kind))
        if (study / file).is_dir():
            (study / file).rmdir()
        shutil.copy(study_of(paper) / file, study / file)
    assert judge(paper, study, capsys)[0] == 0
    damage(study / "claims.json", kind)
    code, err = call(lambda: claims.main([str(tmp_path)]), capsys)
    assert code in (0, 2) and err.count("\n") <= 2, (kind, err)


@pytest.mark.parametrize(("paper", "other"), OTHERS)
def test_a_study_of_another_paper_is_refused(paper, other, study_of, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code, err in (
        judge(paper, study_of(other), capsys),
        analyse(paper, experiments(paper)[0], study_of(other) / "main", capsys),
    ):
        assert code == 2 and f"found a run of {other}" in err
