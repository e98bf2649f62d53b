"""Gaussian factors drop as well (paper Fig 18, sheet C25)."""

from abrupt_learning.analysis._curves import Curves, analyse, draw, finding
from abrupt_learning.analysis._driver import perform

if __name__ == "__main__":
    perform("gaussian", Curves, analyse, draw, finding)
