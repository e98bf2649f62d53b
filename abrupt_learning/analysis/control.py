"""Why there is a plateau: with factors that are not centred it goes away (ours, sheet C31)."""

from abrupt_learning.analysis._curves import Curves, analyse, draw, finding
from abrupt_learning.analysis._driver import perform

if __name__ == "__main__":
    perform("control", Curves, analyse, draw, finding)
