"""An effective-rank term in the loss, from a step on (ours; dead flags in the authors' code, sheet P11)."""

from layernorm_grok.analysis._driver import Analysis, perform
from layernorm_grok.analysis._ends import analyse, draw
from layernorm_grok.analysis._grokking import finding

if __name__ == "__main__":
    perform("er_loss", Analysis, analyse, draw, finding)
