"""An effective-rank term in the loss, from a step on (ours; dead flags in the authors' code, sheet P11)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("er_loss", Sweep, analyse, draw, finding)
