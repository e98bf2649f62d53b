"""The runs of a study that an experiment compares."""

from capacity_reasoning.evaluate import Trained
from common.config import UserError


def siblings(trained: Trained, prefix: str, own: bool = False) -> list[Trained]:
    """Finished runs of the study whose names begin with `prefix`, in the order of P, then N; `own`: with `trained` itself.

    Raises UserError where there is none, and where one has other seeds.
    """
    folder = trained.run.path.parent
    names = [
        path.name for path in folder.glob("*") if path.name.startswith(prefix) and (path / "config.yaml").is_file()
    ]
    found = [trained.sibling(name) for name in names if folder / name != trained.run.path] + [trained] * own
    found = [run for run in found if run.run.finished]
    if not found:
        raise UserError(
            f"found no finished run {prefix}* in {folder}, expected those that this experiment compares; mend: make them with "
            "python -m common.sweep capacity_reasoning/configs/sweep.yaml --preset gpu (quick has not all)"
        )
    if other := [run for run in found if run.seeds != trained.seeds]:
        raise UserError(
            f"found seeds {other[0].seeds} in {other[0].run.path} and {trained.seeds} in {trained.run.path}, expected one; "
            "train one of them anew with the seeds of the other"
        )
    return sorted(found, key=lambda run: (run.P, run.N))
