"""Which part holds the drop back (paper Fig 8): one part trained afresh, the rest at its final weights."""

import common.process  # noqa: F401

from abrupt_learning.analysis._judging import LONG, time_ratios
from abrupt_learning.analysis.curves import curve, finding
from abrupt_learning.analysis.curves import draw as draw
from abrupt_learning.evaluate import Analysis, Trained
from common import experiment
from common.claims import Claim
from common.config import UserError

Settings = Analysis
EARLIER = (("token", "attention"), ("mlp", "attention"), ("attention", "everything"), ("everything", "position"))
RATIOS = {f"t({one}) / t({other})": (one, other) for one, other in EARLIER}
SHARES = {f"share of t({part}) at Var": part for part in ("token", "mlp")}


def analyse(trained: Trained, settings: Settings) -> dict:
    """Keys: runs -> everything, or a part -> as in `curves`."""
    if not trained.config.train.start_from:
        raise UserError(
            f"found no train.start_from in {trained.run.path}; give the run that trained components: --run ..."
        )
    whole = Trained(trained.config.train.start_from, trained.device.type)
    return {
        "runs": {"everything": curve(whole)} | {part: curve(trained, part) for part in trained.config.train.components}
    }


def order(result: dict) -> dict[str, list]:
    """Ratios of t_drop of what is to come first to what is to come next, and what of a plateau tokens and MLPs have."""
    runs = result["runs"]
    ratios = {name: time_ratios(runs, *pair) for name, pair in RATIOS.items()}
    return ratios | {name: runs[part]["drop"]["at_level"]["values"] for name, part in SHARES.items()}


CLAIMS = [
    Claim("C20", "Alone, tokens and MLPs have no plateau; attention drops early, positions last.", source="Fig 8",
          presets=LONG, needs=("components/components",), number=order,
          below=dict.fromkeys(RATIOS, 1) | dict.fromkeys(SHARES, 1 / 3), note=finding),
]  # fmt: skip

if __name__ == "__main__":
    experiment.main(__name__)
