"""Which of the three paths a norm must sit on: queries and keys, values, or the MLP (paper Fig 3b; sheet C7, C8, C24)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("attn_paths", Sweep, analyse, draw, finding)
