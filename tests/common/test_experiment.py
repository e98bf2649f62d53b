"""What stands around an experiment and around a training loop."""

import sys
from dataclasses import dataclass, field

import pytest
from matplotlib.figure import Figure

from common import config, experiment
from common.config import UserError
from common.experiment import Analysis, Trained, Training, over_seeds
from common.run import Run


@dataclass
class Steps:
    steps: int = 4
    """Steps."""
    save_every: int = 2
    """Steps between checkpoints."""
    save_at: list[int] = field(default_factory=list)
    """Further steps."""


@dataclass
class Config(Training):
    PAPER = "paper"
    train: Steps = field(default_factory=Steps)


class Read(Trained):
    CONFIG = Config


@dataclass
class Settings(Analysis):
    READS = Read
    scale: float = 2.0
    """A factor."""


def analyse(trained, settings):
    """steps: checkpoints times the scale."""
    return {"steps": [settings.scale * step for step in trained.steps]}


def draw(result):
    return Figure()


def finding(result):
    return f"{len(result['steps'])} steps"


def fit(settings, run, device):
    import torch

    saved = experiment.checkpointer(settings, run)
    for step in (0, 2, 3, 4):
        saved.save(step, {"w": torch.ones(1)}, {})
        run.log(step, loss=1.0)


def trained(tmp_path, **changes):
    settings = Config(preset="quick", root=str(tmp_path / "runs"), seeds=[3, 4], device="cpu", **changes)
    experiment.train(settings, fit)
    return settings


def test_a_run_lies_where_its_head_says(monkeypatch):
    assert Config(preset="quick").folder.as_posix() == "runs/paper/quick/main"
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert Config(preset="quick", study="wide").folder.as_posix() == "runs/paper/wide/abc"
    assert Config(name="main").folder.name == "main"


@pytest.mark.parametrize("seeds", ["[]", "[1, 1]"])
def test_seeds_are_at_least_one_and_each_once(seeds):
    with pytest.raises(UserError, match=r"seeds: found .* at least 1, each once"):
        config.parse(Config, [f"--seeds={seeds}"])


def test_a_finished_run_says_so_and_is_left_alone(tmp_path, capsys):
    settings = trained(tmp_path)
    settings.resume = True
    experiment.train(settings, lambda *_: 1 / 0)
    assert "is finished: nothing to do" in capsys.readouterr().out


def test_checkpoints_go_where_the_config_says_and_are_found_there(tmp_path):
    settings = trained(tmp_path, checkpoints="memory://bucket/prefix/")
    assert not (settings.folder / "checkpoints").exists()
    run = Read(settings.folder)
    assert run.checkpoints.steps() == [0, 2, 3, 4]
    assert "bucket/prefix/paper/quick/main" in str(run.checkpoints.place)


def test_checkpoints_that_an_interruption_made_are_no_part_of_the_schedule(tmp_path):
    assert Read(trained(tmp_path).folder).steps == [0, 2, 4]


def test_result_and_figure_carry_the_name_of_the_config(tmp_path, monkeypatch, capsys):
    folder = trained(tmp_path).folder
    path = tmp_path / "width.yaml"
    path.write_text("scale: 3.0\n")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["curves.py", f"--config={path}", f"--run={folder}"])
    with pytest.raises(SystemExit) as ended:
        experiment.main(__name__)
    assert ended.value.code in (0, None)
    result = Run.open(folder).read("width")
    assert result["seeds"] == [3, 4] and result["settings"]["scale"] == 3.0 and result["steps"] == [0, 6, 12]
    assert (folder / "figures/width.png").exists() and capsys.readouterr().out == "width: 3 steps\n"


def test_without_a_config_the_script_names_the_result(tmp_path, monkeypatch):
    folder = trained(tmp_path).folder
    monkeypatch.setattr(sys, "argv", ["curves.py", f"--run={folder}"])
    with pytest.raises(SystemExit):
        experiment.main(__name__)
    assert (folder / "results/test_experiment.json").exists()


def test_the_header_of_a_config_names_its_script(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    (tmp_path / "paper/configs").mkdir(parents=True)
    (tmp_path / "paper/configs/width.yaml").write_text(
        "# Width.\n#   python paper/analysis/curves.py --config x\na: 1\n"
    )
    expected = "python paper/analysis/curves.py --config paper/configs/width.yaml --run runs/paper/quick/wide"
    assert experiment.command("paper", "wide/width", "runs/paper/quick") == expected
    with pytest.raises(UserError, match="no experiment depth"):
        experiment.script_of("paper", "depth")


def test_over_seeds_keeps_the_shape_and_leaves_texts_alone():
    rows = [{"a": 1.0, "b": ["x", 2]}, {"a": 3.0, "b": ["x", None]}]
    found = over_seeds(rows)
    assert found["a"]["values"] == [1.0, 3.0] and found["a"]["mean"] == 2.0
    assert found["b"] == ["x", {"values": [2.0, None], "mean": None, "error": None}]


def test_settings_are_parsed_with_their_own_and_those_of_every_experiment():
    parsed = config.parse(Settings, ["--scale=1e-3", "--run", "runs/x"])
    assert (parsed.scale, parsed.run, parsed.device) == (1e-3, "runs/x", "auto")
