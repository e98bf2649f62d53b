"""All initial weights times a factor (ours; a comment in the authors' code: larger means more grokking)."""

from layernorm_grok.analysis._driver import Analysis, perform
from layernorm_grok.analysis._ends import analyse, draw
from layernorm_grok.analysis._grokking import finding

if __name__ == "__main__":
    perform("init_scale", Analysis, analyse, draw, finding)
