"""A finished smoke run for every test that reads one."""

from pathlib import Path

import pytest

from abrupt_learning.train import Config, main
from common import config
from tests.papers import flags

SMOKE = Path(__file__).parents[2] / "abrupt_learning/configs/smoke.yaml"


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """Folder of the smoke run: three seeds, two layers of two heads, 4 x 4, no drop. Tests may add results to it."""
    root = tmp_path_factory.mktemp("runs")
    settings = config.parse(Config, [f"--config={SMOKE}", f"--root={root}", "--device=cpu", "--threads=1"])
    main(settings)
    return settings.folder


@pytest.fixture(scope="session")
def smoke_study(smoke_run) -> Path:
    """The smoke run with the other runs that analyses read beside it."""
    shared = {"root": str(smoke_run.parents[2]), "device": "cpu", "train.steps": 10, "train.save_every": 5}
    runs = {
        "gpt": {"model.kind": "gpt", "train.evaluate_every": 5},
        "control": {"data.low": 0.0},
        "mixture": {"data.sizes": [[3, 3], [4, 4]], "train.evaluate_every": 5},
        "components": {
            "train.components": ["token", "position", "attention", "mlp"],
            "train.start_from": str(smoke_run),
        },
    }
    for name, changes in runs.items():
        main(config.parse(Config, [f"--config={SMOKE}", *flags(shared | changes | {"name": name})]))
    return smoke_run.parent
