"""Settings layer, a mistake names its key, and what is saved loads again."""

import errno
import math
import operator
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from common import config
from common.config import UserError, dump, load, parse
from common.limits import Count, Distinct, Name, Positive, Share
from common.plain import difference, from_yaml, to_yaml, write_atomic

ROOT = Path(__file__).parents[2]


@dataclass
class Optimiser:
    lr: float = 1e-3
    """Learning rate of Adam."""
    warmup: int | None = None
    """Steps of warm-up."""


@dataclass
class Model:
    hidden_size: int = 64
    """Width of the residual stream."""
    kind: Literal["bert", "gpt"] = "bert"
    """Family of the architecture."""

    def __post_init__(self):
        if self.hidden_size % 4:
            raise ValueError("model.hidden_size must be a multiple of 4 heads")


@dataclass
class Train:
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds trained side by side."""
    sizes: list[tuple[int, int]] = field(default_factory=lambda: [(7, 7)])
    """Shapes of the matrices."""
    clip: float | None = 1.0
    """Largest norm of a gradient."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    """How weights move."""


@dataclass
class Config:
    name: str = "main"
    """Folder of the run."""
    resume: bool = False
    """Go on with a stopped run."""
    model: Model = field(default_factory=Model)
    """What is trained."""
    train: Train = field(default_factory=Train)
    """How it is trained."""


LEAVES = [
    "name", "resume", "model.hidden_size", "model.kind", "train.seeds", "train.sizes", "train.clip",
    "train.optimiser.lr", "train.optimiser.warmup",
]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    """A function that writes a YAML file and gives its path."""

    def write(text: str, name: str = "a.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def run_main(monkeypatch, capsys):
    """A function that calls main with flags and gives (exit code, stderr)."""

    def run(function, *flags: str):
        monkeypatch.setattr(sys, "argv", ["train.py", *flags])
        with pytest.raises(SystemExit) as left:
            config.main(function, Config)
        return left.value.code, capsys.readouterr().err

    return run


def nested(key: str, text: str) -> str:
    """YAML that sets a dotted key."""
    *groups, leaf = [f"{'  ' * depth}{name}:" for depth, name in enumerate(key.split("."))]
    return "\n".join([*groups, f"{leaf} {text}"])


def test_defaults_stand_alone():
    assert parse(Config, []) == Config()


def test_files_layer_from_left_to_right_and_flags_win(file):
    first = file("name: first\nmodel: {hidden_size: 8, kind: gpt}\ntrain: {optimiser: {lr: 0.5, warmup: 7}}\n")
    second = file("model: {hidden_size: 16}\ntrain: {optimiser: {lr: 0.25}}\n", "b.yaml")
    both = ["--config", first, f"--config={second}"]
    layered = Config("first", model=Model(16, "gpt"), train=Train(optimiser=Optimiser(0.25, 7)))
    assert parse(Config, both) == layered
    layered.model.hidden_size = 32
    assert parse(Config, [*both, "--model.hidden_size", "32"]) == layered
    assert parse(Config, ["--model.hidden_size", "32", *both]) == layered


def test_a_list_is_replaced_as_a_whole(file):
    layers = ["--config", file("train: {seeds: [1, 2, 3]}"), "--config", file("train: {seeds: [4]}", "b.yaml")]
    assert parse(Config, layers).train.seeds == [4]
    assert parse(Config, [*layers, "--train.seeds", "[0,1,2]"]).train.seeds == [0, 1, 2]


@pytest.mark.parametrize("key, text, value", [
    ("train.optimiser.lr", "1e-3", 1e-3),
    ("train.optimiser.lr", "3E+2", 300.0),
    ("train.optimiser.lr", "2", 2.0),
    ("train.optimiser.warmup", "null", None),
    ("train.optimiser.warmup", "None", None),
    ("train.optimiser.warmup", "5", 5),
    ("train.clip", "null", None),
    ("train.clip", "1e-2", 0.01),
    ("train.sizes", "[[4, 5], [6, 7]]", [(4, 5), (6, 7)]),
    ("model.kind", "gpt", "gpt"),
    ("resume", "true", True),
    ("resume", "True", True),
    ("resume", "false", False),
    ("name", "run-3", "run-3"),
])  # fmt: skip
def test_a_value_reads_alike_in_a_file_and_in_both_forms_of_a_flag(file, key, text, value):
    for argv in (["--config", file(nested(key, text))], [f"--{key}", text], [f"--{key}={text}"]):
        found = operator.attrgetter(key)(parse(Config, argv))
        assert found == value and type(found) is type(value)


def test_a_bool_flag_may_stand_alone():
    assert parse(Config, ["--resume"]).resume
    assert parse(Config, ["--resume", "--name", "x"]) == Config("x", True)


@pytest.mark.parametrize("argv, named", [
    (["--model.hiden_size", "64"], ["model.hiden_size", "model.hidden_size"]),
    (["--model.hiden_size=64"], ["model.hiden_size", "model.hidden_size"]),
    (["--hidden_size", "64"], ["hidden_size", "model.hidden_size"]),
    (["--modell", "3"], ["modell", "model.kind"]),
    (["--train.optimizer.lr", "1"], ["train.optimizer.lr", "train.optimiser.lr"]),
])  # fmt: skip
def test_an_unknown_flag_names_itself_and_the_nearest_key(run_main, argv, named):
    code, message = run_main(lambda settings: None, *argv)
    assert code == 2 and len(message.splitlines()) <= 2
    assert message.startswith(f"error: unknown key {named[0]}; did you mean {named[1]}?")


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_key_with_a_letter_missing_is_recognised(leaf):
    with pytest.raises(UserError, match=rf"did you mean {re.escape(leaf)}\?"):
        parse(Config, [f"--{leaf[:-2]}{leaf[-1]}", "1"])


def test_an_unknown_key_in_a_file_names_key_and_file(file):
    path = file("train:\n  optimiser:\n    learning_rate: 1\n")
    with pytest.raises(UserError, match="unknown key train.optimiser.learning_rate in .*a.yaml; did you mean train."):
        parse(Config, ["--config", path])


@pytest.mark.parametrize("key, text, value", [
    ("train.optimiser.warmup", "10.0", 10),
    ("train.optimiser.warmup", "1e3", 1000),
    ("train.optimiser.warmup", "010", 10),
    ("model.hidden_size", "16.0", 16),
    ("train.seeds", "3", [3]),
    ("train.seeds", "[1.0, 2]", [1, 2]),
    ("resume", "1", True),
    ("resume", "0", False),
])  # fmt: skip
def test_what_means_the_same_is_taken(file, key, text, value):
    for argv in (["--config", file(nested(key, text))], [f"--{key}={text}"], [f"--{key}", text]):
        assert operator.attrgetter(key)(parse(Config, argv)) == value


@pytest.mark.parametrize("text", [
    "{'hidden_size': 32, 'kind': 'gpt'}", '{"hidden_size": 32.0, "kind": "gpt"}', "{hidden_size: 32, kind: gpt}"
])  # fmt: skip
def test_a_group_may_be_given_as_one_mapping(text):
    assert parse(Config, [f"--model={text}"]).model == Model(32, "gpt")
    assert parse(Config, ["--train={'optimiser': {'lr': 0.5}}"]).train.optimiser.lr == 0.5
    with pytest.raises(UserError, match="unknown key model.depth; did you mean"):
        parse(Config, ["--model={'depth': 3}"])


def test_a_list_without_brackets_is_shown_the_form():
    with pytest.raises(UserError, match=r"train.seeds: found 0,1, expected list\[int\], such as \[0, 1\]"):
        parse(Config, ["--train.seeds", "0,1"])


@pytest.mark.parametrize(
    "key", ["name", "resume", "model.hidden_size", "model.kind", "train.seeds", "train.optimiser.lr"]
)
def test_null_is_refused_where_it_means_nothing(file, key):
    for argv in (["--config", file(nested(key, "null"))], [f"--{key}=null"]):
        # As a flag, null may be a text.
        if key != "name" or argv[0] == "--config":
            with pytest.raises(UserError, match=f"{key}: found "):
                parse(Config, argv)


@dataclass
class Limited:
    count: Count = 3
    """A count."""
    shares: Annotated[list[Share], Distinct(1)] = field(default_factory=lambda: [0.5])
    """Shares."""
    rate: Positive | None = None
    """A rate, or none."""
    name: Name = "main"
    """A name."""


@pytest.mark.parametrize("key, text, expected", [
    ("count", "0", "int from 1 to 1e+09"),
    ("count", "true", "int"),
    ("count", str(2**63), "int from 1 to 1e+09"),
    ("shares", "[]", "at least 1, each once"),
    ("shares", "[0.5, 0.5]", "at least 1, each once"),
    ("shares", "[0.5, 1.5]", "float from 0 to 1"),
    ("shares", "[.nan]", "float from 0 to 1"),
    ("rate", "0", "float above 0"),
    ("rate", ".inf", "float above 0"),
    ("rate", "1e400", "float above 0"),
    ("name", "..", "a name of 1 to 120 characters"),
    ("name", "a/b", "a name of 1 to 120 characters"),
    ("name", "", "a name of 1 to 120 characters"),
    ("name", "x" * 300, "a name of 1 to 120 characters"),
])  # fmt: skip
def test_a_value_beyond_its_limits_is_told_with_them(file, key, text, expected):
    for argv in (["--config", file(f"{key}: {text or repr(text)}")], [f"--{key}={text}"]):
        with pytest.raises(UserError) as error:
            parse(Limited, argv)
        message = str(error.value)
        assert message.startswith(f"{key}: found ") and expected in message and len(message) < 300


def test_help_says_the_limits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse(Limited, ["--help"])
    told = capsys.readouterr().out
    assert "A count. (type: int, from 1 to 1e+09, default: 3)" in told and "Annotated" not in told


@pytest.mark.parametrize("text, told", [
    ("train: {clip: 1}\nname: x\ntrain: {clip: 2}", "train stands twice, again in line 3"),
    ("model:\n  kind: gpt\n  kind: bert", "kind stands twice, again in line 3"),
    ("model: {hidden_size: !!int abc}", "no such value"),
    ("name: &a [*a]", "name: found"),
])  # fmt: skip
def test_yaml_that_says_two_things_or_nothing_is_told(file, text, told):
    with pytest.raises(UserError) as error:
        parse(Config, ["--config", file(text)])
    assert told in str(error.value) and "\n" not in str(error.value)


def test_words_that_other_readers_take_for_more_are_words(file):
    assert parse(Config, ["--config", file("name: 2026-13-45")]).name == "2026-13-45"
    assert parse(Config, ["--config", file("name: off")]).name == "off"
    # What a YAML 1.1 reader, such as W&B's, makes of an unquoted off.
    assert parse(Config, ["--config", file("name: false")]).name == "off"
    with pytest.raises(UserError, match="train.seeds: found"):
        parse(Config, ["--config", file("train: {seeds: [010, 1:30]}")])


def test_files_are_utf8_whatever_the_locale(tmp_path):
    (tmp_path / "a.yaml").write_text("# Gödel\nname: naïve\n", encoding="utf-8")
    code = "import sys; from common.config import parse; from tests.common.test_config import Config\n"
    code += "assert parse(Config, sys.argv[1:]).name == 'na\\xefve'"
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, f"--config={tmp_path}/a.yaml"], cwd=ROOT, env=env, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_closes_the_pipe_ends_it_quietly():
    code = "from common import config; from tests.common.test_config import Config\nimport sys; sys.argv = ['x']\n"
    code += "config.main(lambda settings: [print('line ' * 1000) for _ in range(1000)] and None, Config)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 141


def test_a_deleted_working_directory_is_one_line(tmp_path):
    code = "import os; os.rmdir(os.getcwd())\nfrom common import config\nfrom tests.common.test_config import Config\n"
    code += "config.main(print, Config)"
    (tmp_path / "here").mkdir()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "here", env=env, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: found no working directory")
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("key, text, found, expected", [
    ("train.optimiser.lr", "fast", "fast", "float"),
    ("train.optimiser.warmup", "3.5", "3.5", "int or null"),
    ("train.clip", "much", "much", "float or null"),
    ("model.kind", "rnn", "rnn", "one of bert, gpt"),
    ("model.hidden_size", "16.5", "16.5", "int"),
    ("train.seeds", "[a]", "a", "list[int]"),
    ("resume", "maybe", "maybe", "bool"),
])  # fmt: skip
def test_a_wrong_type_names_key_value_and_type(file, key, text, found, expected):
    for argv in (["--config", file(nested(key, text))], [f"--{key}={text}"]):
        with pytest.raises(UserError) as error:
            parse(Config, argv)
        message = str(error.value)
        assert message.startswith(f"{key}: found ") and f"expected {expected}" in message
        assert found in message or text in message
        assert "\n" not in message


@pytest.mark.parametrize("text, told", [
    ("train: [1, 2", "no valid YAML"),
    ("- 1\n- 2", "found list"),
    ("just words", "found str"),
    ("model: 3", "model: found 3, expected its keys"),
    ("model:\n", "model: found None, expected its keys"),
])  # fmt: skip
def test_a_file_of_the_wrong_shape_is_told_in_a_line(file, text, told):
    with pytest.raises(UserError) as error:
        parse(Config, ["--config", file(text)])
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(run_main, tmp_path):
    code, message = run_main(lambda settings: None, "--config", str(tmp_path / "none.yaml"))
    assert code == 2 and "none.yaml" in message and message.count("\n") == 1
    code, message = run_main(lambda settings: None, "--config")
    assert code == 2 and "--config FILE" in message


def test_a_stray_word_is_a_mistake(run_main):
    code, message = run_main(lambda settings: None, "quick.yaml")
    assert code == 2 and "quick.yaml" in message


def test_a_value_that_the_dataclass_refuses_is_a_mistake(run_main):
    code, message = run_main(lambda settings: None, "--model.hidden_size", "6")
    assert (code, message) == (2, "error: model.hidden_size must be a multiple of 4 heads\n")


@pytest.mark.parametrize("name", ["None", "null", "1e-3", "true", "", "12", "a: b", "- x", "2024-01-01", "naïve #1"])
def test_a_saved_config_loads_again_to_an_equal_one(file, name):
    optimiser = Optimiser(1.2345678901234567e-05, None)
    settings = Config(name, True, Model(8, "gpt"), Train([0, 1, 2], [(4, 5), (6, 7)], math.inf, optimiser))
    assert load(Config, file(dump(settings))) == settings


def test_the_printed_config_is_a_config(file, capsys):
    flags = ["--name", "None", "--train.clip", "null", "--train.sizes", "[[4, 5]]"]
    with pytest.raises(SystemExit) as left:
        parse(Config, [*flags, "--print_config"])
    assert left.value.code == 0
    assert load(Config, file(capsys.readouterr().out)) == parse(Config, flags)


def test_help_shows_every_key_with_its_docstring_and_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        parse(Config, ["--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0
    assert all(f"--{leaf}" in told for leaf in LEAVES)
    assert "Width of the residual stream. (type: int, default: 64)" in told
    assert "Learning rate of Adam. (type: float, default: 0.001)" in told
    assert "what is saved loads again" in told and "(name: str" not in told


@pytest.mark.parametrize("answer", [None, 0, 3])
def test_main_leaves_with_the_exit_code_of_the_function(run_main, answer):
    assert run_main(lambda settings: answer) == (answer or 0, "")


def test_main_hands_over_the_parsed_config(run_main):
    seen = []
    run_main(seen.append, "--name", "x")
    assert seen == [Config("x")]


def test_an_interruption_leaves_with_130(run_main):
    def interrupted(settings):
        raise KeyboardInterrupt

    assert run_main(interrupted) == (130, "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_storage_trouble_is_one_line_that_names_the_file(run_main, number):
    def fails(settings):
        raise OSError(number, "trouble", "runs/x/metrics.jsonl")

    code, message = run_main(fails)
    assert code == 2 and message.startswith("error: runs/x/metrics.jsonl: ") and message.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_line(run_main):
    code, message = run_main(lambda settings: Path("/dev/full").write_text("x"))
    assert code == 2 and "no space left" in message and message.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can make a folder")
def test_a_place_that_takes_no_folder_is_one_line(run_main):
    code, message = run_main(lambda settings: write_atomic("/proc/runs/main/config.yaml", ""))
    assert (
        code == 2
        and message.startswith("error: /proc/runs/main: no right to read or write")
        and message.count("\n") == 1
    )


def test_a_file_where_a_folder_should_be_is_one_line(run_main, tmp_path):
    (tmp_path / "runs").write_text("")
    code, message = run_main(lambda settings: write_atomic(tmp_path / "runs" / "main" / "config.yaml", ""))
    assert code == 2 and "runs" in message and "in the way" in message
    code, message = run_main(lambda settings: (tmp_path / "runs").mkdir())
    assert code == 2 and "in the way" in message


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no such file"), ZeroDivisionError()])
def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, error):
    def fails(settings):
        raise error

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(type(error)):
        config.main(fails, Config)


def test_difference_names_the_first_key_that_differs():
    old = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}
    assert difference(old, from_yaml(to_yaml(old))) is None
    assert difference(old, {"a": 1, "b": {"c": 2, "d": {"e": 4}}}) == ("b.d.e", 3, 4)
    assert difference(old, {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": 0}) == ("f", None, 0)
    assert difference(old, {"b": old["b"]}) == ("a", 1, None)


def test_config_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'transformers', 'wandb', 'jsonargparse'}"
    code = f"import sys, common.config, common.run, common.mirror; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
