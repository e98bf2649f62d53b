"""What every analysis of this paper shares: its settings, and the kind of run it reads."""

from collections.abc import Callable
from dataclasses import dataclass

from abrupt_learning.evaluate import Trained
from common import analysis
from common.analysis import over_seeds as over_seeds
from common.config import UserError


@dataclass
class Analysis(analysis.Analysis):
    run: str = "runs/abrupt_learning/quick/main"
    """Run folder to analyse."""


def perform(name: str, settings_class: type, analyse: Callable, draw: Callable, finding: Callable) -> None:
    """Entry point of an analysis, see common.analysis.perform; the analyses of GPT want a GPT's run, the others BERT's."""

    def read(settings) -> Trained:
        trained = Trained(settings.run, settings.device, settings.threads)
        wanted = "gpt" if name.startswith("gpt") else "bert"
        if trained.config.model.kind != wanted:
            raise UserError(
                f"found a {trained.config.model.kind} run at {settings.run}, expected {wanted}; give another --run"
            )
        return trained

    analysis.perform(name, settings_class, read, analyse, draw, finding)
