"""Masks that hide the most coherent cells: ours, beyond the paper (sheet 4, extras)."""

from abrupt_learning.analysis._curves import Curves, analyse, draw, finding
from abrupt_learning.analysis._driver import perform

if __name__ == "__main__":
    perform("coherence", Curves, analyse, draw, finding)
