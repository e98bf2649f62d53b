"""The smoke study of this paper and its main run, for tests that read one. Tests may add results to them."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smoke_study(study_of) -> Path:
    """Folder of the study: main, and the other runs that experiments read beside it."""
    return study_of("abrupt_learning")


@pytest.fixture(scope="session")
def smoke_run(smoke_study) -> Path:
    """Folder of the main run: three seeds, two layers of two heads, 4 x 4, no drop."""
    return smoke_study / "main"
