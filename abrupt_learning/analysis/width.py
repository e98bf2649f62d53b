"""Width decides whether and when the drop comes (paper Fig 13, sheet C21)."""

from abrupt_learning.analysis._curves import Curves, analyse, draw, finding
from abrupt_learning.analysis._driver import perform

if __name__ == "__main__":
    perform("width", Curves, analyse, draw, finding)
