"""Weight decays at one learning rate: times, and how compressible the end is (paper Figs 4c, 4d, 9; sheet C11, C18)."""

from layernorm_grok.analysis._driver import Analysis, perform
from layernorm_grok.analysis._ends import analyse, draw
from layernorm_grok.analysis._grokking import finding

if __name__ == "__main__":
    perform("wd_sweep", Analysis, analyse, draw, finding)
