"""As readout_scaled_lr_eps0, trained on the change of the logits since the start (authors' script; sheet C22)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._readout import Readout, analyse, draw, finding

if __name__ == "__main__":
    perform("readout_scaled_lr_subtract", Readout, analyse, draw, finding)
