"""A finished smoke run for every test that reads one."""

from pathlib import Path

import pytest

from abrupt_learning.train import Config, main
from common import config

SMOKE = Path(__file__).parents[2] / "abrupt_learning/configs/smoke.yaml"


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """Folder of the smoke run: three seeds, two layers of two heads, 4 x 4, no drop. Tests may add results to it."""
    root = tmp_path_factory.mktemp("runs")
    settings = config.parse(Config, [f"--config={SMOKE}", f"--root={root}", "--device=cpu", "--threads=1"])
    main(settings)
    return settings.folder
