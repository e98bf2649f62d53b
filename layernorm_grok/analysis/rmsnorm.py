"""The same picture with RMSNorm in the place of LayerNorm (paper Fig 7; sheet C19)."""

from common.config import UserError
from layernorm_grok.analysis import _grokking
from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, draw, finding
from layernorm_grok.evaluate import Trained


def analyse(trained: Trained, settings: Sweep) -> dict:
    """As _grokking.analyse, of a run with RMSNorm."""
    found = trained.config.model.norm
    if found != "rms":
        raise UserError(f"found model.norm {found} in {trained.run.path}, expected rms; give another --run")
    return _grokking.analyse(trained, settings)


if __name__ == "__main__":
    perform("rmsnorm", Sweep, analyse, draw, finding)
