"""Post, peri and final norms, tied embeddings, GLU, the activation, epsilon, frozen norms (ours)."""

from layernorm_grok.analysis._driver import perform
from layernorm_grok.analysis._grokking import Sweep, analyse, draw, finding

if __name__ == "__main__":
    perform("ablations", Sweep, analyse, draw, finding)
