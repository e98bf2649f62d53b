"""Readout scales alpha at one learning rate (paper Fig 5c, 5d; sheet C13, C14)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._readout import Readout, analyse, draw, finding

if __name__ == "__main__":
    perform("readout_fixed_lr", Readout, analyse, draw, finding)
