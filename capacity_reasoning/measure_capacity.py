"""Bits that a run's models hold, by kind of question, storage and selection scheme (Johnston & Belrose, arXiv 2502.03490).

    python capacity_reasoning/measure_capacity.py --run runs/capacity_reasoning/quick/main --scheme corrected

One row each: content in bits, the dataset's bits and the baseline under the same assumptions, bits per parameter. Behind +- is
half of the 95% interval over seeds; `asked` is the standard error of bits per parameter from the questions asked, 0 for all.
"""

import common.process  # noqa: F401

from collections.abc import Iterable
from dataclasses import dataclass

from capacity_reasoning.capacity import Row, check, contents
from capacity_reasoning.estimators.content import bits_per_parameter
from capacity_reasoning.evaluate import Analysis, Trained
from common import config
from common.experiment import interval
from common.limits import Natural

HEAD = ("questions", "storage", "scheme", "content", "dataset", "baseline", "bits / param", "asked")


@dataclass
class Config(Analysis):
    storage: str | None = None
    """one_hop, double or big_hash; null: all that fit the run."""
    scheme: str | None = None
    """optimal, enumerate, independent, independent_as_published or corrected; null: all."""
    step: Natural | None = None
    """Step of a checkpoint; null: the last."""
    by_subject: bool = False
    """Content of each subject too, its share of the names included."""


def measured(values: Iterable[float], digits: int = 0) -> str:
    """Mean +- half of the 95% interval, which a single seed has not."""
    mean, error = interval(list(values))
    return f"{mean:,.{digits}f}" + ("" if error is None else f" +- {error:,.{digits}f}")


def cells(rows: tuple[Row, ...], P: int) -> list[str]:
    """A line of the table; rows: of every seed."""
    found, first = [row.found for row in rows], rows[0]
    means = [interval(values)[0] for values in ([one.dataset for one in found], [one.selection.sum() for one in found])]
    ratios, errors = zip(*(bits_per_parameter(one, P) for one in found), strict=True)
    return [first.hops, first.storage, first.scheme, measured(one.bits for one in found),
            *(f"{mean:,.0f}" for mean in means), measured(ratios, 3), f"{interval(errors)[0]:.3f}"]  # fmt: skip


def subject_cells(rows: tuple[Row, ...], subjects: tuple[str, ...]) -> list[list[str]]:
    """A line for each subject, under that of all."""
    shares = zip(*(row.found.per_subject for row in rows), strict=True)
    return [["", "", f"  {name}", measured(share)] for name, share in zip(subjects, shares, strict=True)]


def table(lines: list[list[str]]) -> str:
    """Columns as wide as their widest cell, words to the left and numbers to the right."""
    lines = [line + [""] * (len(HEAD) - len(line)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(w) if place < 3 else cell.rjust(w) for place, (cell, w) in enumerate(zip(line, widths, strict=True))]
              for line in lines]  # fmt: skip
    return "\n".join("  ".join(line).rstrip() for line in padded)


def near_chance(rows: tuple[Row, ...], subjects: tuple[str, ...]) -> set[str]:
    """Subjects whose two-hop loss is too near chance to be inverted, for any seed."""
    return {name for row in rows for name, is_near in zip(subjects, row.found.suspicious, strict=True) if is_near}


def main(settings: Config) -> None:
    """Print the table; raises UserError for a storage or scheme that does not fit the run, or a checkpoint it has not."""
    trained = Trained(settings.run, settings.device, settings.threads)
    check(trained, settings.storage, settings.scheme)
    found = list(zip(*contents(trained, settings.most, settings.step), strict=True))
    lines = [list(HEAD)]
    for rows in found:
        if settings.storage in (None, rows[0].storage) and settings.scheme in (None, rows[0].scheme):
            lines.append(cells(rows, trained.P))
            if settings.by_subject:
                lines += subject_cells(rows, trained.support[0].subjects)
    print(f"N = {trained.N:,}, R = {trained.R}, P = {trained.P:,}, {len(trained.seeds)} seeds, bits")
    print(table(lines))
    near = sorted({name for rows in found for name in near_chance(rows, trained.support[0].subjects)})
    if near:
        print(f"two-hop losses near chance, where double says little: {', '.join(near)}")


if __name__ == "__main__":
    config.main(main, Config)
