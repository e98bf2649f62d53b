"""Learning rates at constant effective decay eta lambda (paper Fig 4a, 4b; sheet C10)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("lr_sweep", Sweep, analyse, draw, finding)
