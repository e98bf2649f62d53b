"""The front page: every command of it is one that exists."""

import pytest

from tests.papers import ROOT, assert_command_exists, commands


@pytest.mark.parametrize("command", commands(ROOT / "README.md"), ids=lambda c: c[:60])
def test_readme_command_is_one_that_exists(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert_command_exists(command)
