"""Timing: calls alternate, medians are exact on a known clock, ratios point the right way."""

import itertools
import json

import pytest
import torch

from common import bench


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a test moves it."""
    now = [0.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    return now


def test_calls_alternate_and_warm_up_is_not_timed(clock):
    calls = []

    def ours():
        calls.append("A")
        clock[0] += 100.0 if len(calls) <= 4 else 2.0

    def other():
        calls.append("B")
        clock[0] += 100.0 if len(calls) <= 4 else 3.0

    seconds = bench.interleaved(ours, other, rounds=5, warmup=2)
    assert "".join(calls) == "AB" * 7
    assert seconds == (2.0, 3.0)


def test_one_slow_call_moves_neither_median_nor_spread(clock):
    durations = itertools.cycle([1.0, 1.0, 1.0, 50.0, 1.0, 1.0, 1.0])

    def ours():
        clock[0] += next(durations)

    median, _ = bench.interleaved(ours, lambda: None, rounds=7, warmup=0)
    assert (median, median.spread) == (1.0, 0.0)


def test_spread_is_half_the_distance_between_quartiles():
    median = bench.Seconds.median([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (median, median.spread) == (3.0, 1.0)


def test_matrix_rate_counts_two_operations_per_multiply_add(monkeypatch):
    monkeypatch.setattr(bench, "_seconds", lambda product: 0.5)
    assert bench.matrix_rate(size=64, rounds=3) == 2 * 64**3 / 0.5


def test_matrix_rate_gives_the_threads_back():
    before = torch.get_num_threads()
    assert bench.matrix_rate(threads=before + 1, size=32, rounds=2) > 0
    assert torch.get_num_threads() == before


def test_ratio_is_above_one_where_ours_is_better():
    assert bench.row("step", 2.0, 3.0, "ms", 1.4)["ratio"] == 1.5
    assert bench.row("solver", 30.0, 20.0, "matrices/s", 1.4)["ratio"] == 1.5


def test_file_is_a_list_of_rows_with_exactly_the_agreed_keys(tmp_path, capsys):
    rows = [
        bench.row("step", bench.Seconds(2.0), bench.Seconds(3.0), "s", 1.4, 0.61),
        bench.row("solver", 1.0, 2.0, "1/s", 20),
    ]
    bench.write(tmp_path / "bench.json", rows)
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert saved == rows
    assert {tuple(row) for row in saved} == {("name", "ours", "other", "unit", "ratio", "target", "machine_share")}
    bench.table(rows)
    step, solver = capsys.readouterr().out.splitlines()[1:]
    assert "1.50x" in step and "61%" in step and "below target" not in step
    assert "below target" in solver
