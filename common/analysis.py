"""What every analysis does around its science: save the result, draw it, say the finding."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from common import config
from common.claims import interval


@dataclass
class Analysis:
    run: str = "runs/<paper>/quick/main"
    """Run folder to analyse."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 leaves the machine's own choice."""


def over_seeds(rows: list) -> dict:
    """Per-seed results of one shape -> the same shape, each number as {values, mean, error}.

    Dicts and lists are walked; error is the half-width of the 95% t-interval over seeds (None for one seed).
    """
    first = rows[0]
    if isinstance(first, dict):
        return {key: over_seeds([row[key] for row in rows]) for key in first}
    if isinstance(first, list | tuple):
        return [over_seeds(list(group)) for group in zip(*rows, strict=True)]
    if isinstance(first, str):
        return first
    values = [None if value is None else float(value) for value in rows]
    mean, error = interval(values) if None not in values else (None, None)
    return {"values": values, "mean": mean, "error": error}


def perform(name: str, Settings: type, read: Callable, analyse: Callable, draw: Callable, finding: Callable) -> None:
    """Entry point of an analysis: read(settings) -> trained, a run with `run` and `seeds`; analyse(trained, settings) -> dict;
    draw(result) -> figure; finding(result) -> a line.
    """

    def main(settings) -> None:
        trained = read(settings)
        result = {"seeds": trained.seeds, "settings": asdict(settings), **analyse(trained, settings)}
        trained.run.result(name, result)
        trained.run.figure(name, draw(result), result)
        print(f"{name}: {finding(result)}")

    config.main(main, Settings)
