"""Progress is a bar on a terminal and rare lines elsewhere; a signal lets the step end first."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from common import progress
from common.progress import Progress, stop_signal


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a test moves it."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_off_a_terminal_lines_are_ten_seconds_apart_and_the_last_is_there(clock, capsys):
    shown = Progress(100)
    for step in range(1, 101):
        clock.seconds += 0.5
        shown.update(step, loss=1 / step)
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["20/100", "40/100", "60/100", "80/100", "100/100"]
    assert lines[0] == "step 20/100  loss 0.05  2.0 step/s  00:40 left"


def test_a_resumed_loop_counts_its_speed_from_where_it_began(clock, capsys):
    shown = Progress(100, initial=80)
    clock.seconds += 10
    shown.update(90)
    assert capsys.readouterr().err == "step 90/100  1.0 step/s  00:10 left\n"


def test_a_loop_without_a_step_has_no_speed(clock, capsys):
    Progress(100, initial=100).close()
    assert capsys.readouterr().err == "step 100/100  0.0 step/s  ? left\n"


def test_on_a_terminal_there_is_a_bar_with_the_scalars(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = Progress(10, unit="step")
    shown.update(4, loss=0.123456)
    shown.update(10, loss=0.5)
    shown.close()
    bar = capsys.readouterr().err
    assert "10/10" in bar and "loss=0.5" in bar


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with stop_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
