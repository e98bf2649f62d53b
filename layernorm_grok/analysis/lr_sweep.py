"""Learning rates at constant effective decay eta lambda (paper Fig 4a, 4b; sheet C10)."""

from common.config import UserError
from layernorm_grok.analysis import _grokking
from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, draw, finding
from layernorm_grok.evaluate import Trained


def analyse(trained: Trained, settings: Sweep) -> dict:
    """As _grokking.analyse, of a run that varies the learning rate."""
    found = ", ".join(trained.cells)
    if not all(name.startswith("lr=") for name in trained.cells):
        raise UserError(f"found cells {found} in {trained.run.path}, expected some lr=...; give another --run")
    return _grokking.analyse(trained, settings)


if __name__ == "__main__":
    perform("lr_sweep", Sweep, analyse, draw, finding)
