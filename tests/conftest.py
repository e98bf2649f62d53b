"""A finished smoke study of every paper, made once."""

import os

# Before torch is imported, and for the processes that tests start: threads of runs this small only wait for each other, and on
# a busy machine for minutes.
os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import pytest

from tests.papers import make_study


@pytest.fixture(scope="session")
def study_of(tmp_path_factory):
    """A function: name of a paper -> folder of its smoke study. Tests may add results to it."""
    made: dict[str, Path] = {}

    def study(paper: str) -> Path:
        if paper not in made:
            made[paper] = make_study(paper, tmp_path_factory.mktemp("runs"))
        return made[paper]

    return study
