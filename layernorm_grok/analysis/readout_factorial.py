"""alpha, learning rate and decay crossed: which of them slows large alpha in Fig 5a (ours)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("readout_factorial", Sweep, analyse, draw, finding)
