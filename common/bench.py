"""Timing two ways of doing one thing, in turn so that a busy machine slows both, and the machine's matrix rate."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from common.plain import write_json


class Seconds(float):
    """A median time in seconds, with `spread`: half the distance between its quartiles, in seconds."""

    spread: float

    @classmethod
    def median(cls, times: list[float]) -> "Seconds":
        lower, middle, upper = statistics.quantiles(times * 2 if len(times) == 1 else times, n=4, method="inclusive")
        seconds = cls(middle)
        seconds.spread = (upper - lower) / 2
        return seconds


def interleaved(ours: Callable, other: Callable, rounds: int = 20, warmup: int = 3) -> tuple[Seconds, Seconds]:
    """Median seconds of one call of each, called in turn (ours, other, ours, ...), after `warmup` calls of each."""
    for _ in range(warmup):
        ours()
        other()
    times = [(_seconds(ours), _seconds(other)) for _ in range(rounds)]
    return Seconds.median([ours for ours, _ in times]), Seconds.median([other for _, other in times])


def matrix_rate(device="cpu", dtype=torch.float32, threads: int = 0, size: int = 0, rounds: int = 10) -> float:
    """FLOP/s of a square matrix product, 2 size^3 over its median time: the roof over what a training step can reach.

    threads: on the CPU; 0 leaves the number as it is. size: 0 is 1024 on the CPU and 8192 elsewhere.
    """
    device = torch.device(device)
    size = size or (1024 if device.type == "cpu" else 8192)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        a, b = torch.randn(2, size, size, device=device).to(dtype)
        times = [_seconds(lambda: a @ b) for _ in range(rounds + 1)]
    finally:
        torch.set_num_threads(before)
    # The first product wakes the threads and the library.
    return 2 * size**3 / statistics.median(times[1:])


def row(name: str, ours: float, other: float, unit: str, target: float | None, machine_share=None) -> dict:
    """A row of bench.json, its ratio above 1 where ours is better: ours/other if the unit ends in /s, else other/ours.

    target: the ratio asked for, None if none is. machine_share: our FLOP/s over `matrix_rate`, from the same run.
    """
    ratio = ours / other if unit.endswith("/s") else other / ours
    return {
        "name": name,
        "ours": ours,
        "other": other,
        "unit": unit,
        "ratio": ratio,
        "target": target,
        "machine_share": machine_share,
    }


def help_row(script: Path, rounds: int = 5) -> dict:
    """A row for `script --help`, whole process, against the 3 seconds it may take."""
    command = [sys.executable, str(script), "--help"]
    times = [_seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(rounds)]
    return row(f"{script.name} --help, beside its budget", statistics.median(times), 3.0, "s", 1.0)


def table(rows: list[dict]) -> None:
    """Print the rows, and whether each reaches its target."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}}  {'ours':>10}  {'other':>10}  {'unit':<11} {'ratio':>7}  {'target':>6}  {'of machine':>10}")
    for row in rows:
        share = "" if row["machine_share"] is None else f"{row['machine_share']:.0%}"
        target = "" if row["target"] is None else f"{row['target']:g}"
        missed = "" if row["target"] is None or row["ratio"] >= row["target"] else "  below target"
        print(
            f"{row['name']:{width}}  {row['ours']:>10.4g}  {row['other']:>10.4g}  {row['unit']:<11} "
            f"{row['ratio']:>6.2f}x  {target:>6}  {share:>10}{missed}"
        )


def write(path: str | Path, rows: list[dict]) -> None:
    """Write the rows as a JSON list."""
    write_json(path, rows)


def _seconds(call: Callable) -> float:
    _synchronise()
    start = time.perf_counter()
    call()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    """Wait for the GPU, which works on after the call that gave it the work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
