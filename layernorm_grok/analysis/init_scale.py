"""All initial weights times a factor (ours; a comment in the authors' code: larger means more grokking)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("init_scale", Sweep, analyse, draw, finding)
