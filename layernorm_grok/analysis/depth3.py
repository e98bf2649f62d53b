"""Three layers of half the width: the same order, many more slingshots (paper Fig 8; sheet C20)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("depth3", Sweep, analyse, draw, finding)
