"""A finished smoke run for every test that reads one."""

from pathlib import Path

import pytest

SMOKE = Path(__file__).parents[2] / "layernorm_grok/configs/smoke.yaml"


@pytest.fixture(scope="session")
def smoke_run(study_of) -> Path:
    """Folder of the smoke run: seven placements, three seeds, no grokking; beside it the runs of tests/.../smoke.py."""
    return study_of("layernorm_grok") / "main"
