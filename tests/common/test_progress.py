"""Progress is a bar on a terminal and rare lines elsewhere; a signal lets the step end first."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from common import progress
from common.progress import STOP_SIGNALS, Progress, stop_signal


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


@pytest.fixture
def usual():
    """Signals as a shell in the foreground hands them on, whatever the tests were started with."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_warnings_of_clusters_and_terminals_are_among_the_signals():
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2} == set(STOP_SIGNALS)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_noted_and_ctrl_c_after_it_interrupts(usual, number):
    with stop_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [number for number in STOP_SIGNALS if number != signal.SIGINT])
def test_what_asks_again_does_not_cut_the_last_checkpoint_short(usual, number):
    with stop_signal() as stop:
        for again in (signal.SIGTERM, number, number):
            os.kill(os.getpid(), again)
    assert stop


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(usual, number):
    signal.signal(number, signal.SIG_IGN)
    with stop_signal() as stop:
        os.kill(os.getpid(), number)
        assert not stop
    assert signal.getsignal(number) is signal.SIG_IGN
