"""Larger matrices and other ranks drop too (paper appendix I, sheet C23)."""

from abrupt_learning.analysis._curves import Curves, analyse, draw, finding
from abrupt_learning.analysis._driver import perform

if __name__ == "__main__":
    perform("size", Curves, analyse, draw, finding)
