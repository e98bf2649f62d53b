"""Readout scales alpha with eta = eta_0 / alpha^2 (paper Fig 5a, 5b; sheet C12, C14)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._readout import Readout, analyse, draw, finding

if __name__ == "__main__":
    perform("readout_scaled_lr", Readout, analyse, draw, finding)
