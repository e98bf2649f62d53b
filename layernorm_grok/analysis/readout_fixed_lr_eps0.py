"""As readout_fixed_lr, with kaiming weights and AdamW's epsilon 0 (authors' notebooks; sheet C23)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._readout import Readout, analyse, draw, finding

if __name__ == "__main__":
    perform("readout_fixed_lr_eps0", Readout, analyse, draw, finding)
