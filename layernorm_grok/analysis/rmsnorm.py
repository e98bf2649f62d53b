"""The same picture with RMSNorm in the place of LayerNorm (paper Fig 7; sheet C19)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("rmsnorm", Sweep, analyse, draw, finding)
