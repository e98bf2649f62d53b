"""More layers, earlier drop (paper Fig 14, sheet C22)."""

from abrupt_learning.analysis._curves import Curves, analyse, draw, finding
from abrupt_learning.analysis._driver import perform

if __name__ == "__main__":
    perform("depth", Curves, analyse, draw, finding)
