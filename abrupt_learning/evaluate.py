"""Read a finished run back: its models at any step, its plateau and its drop, and fixed matrices to test it on."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from abrupt_learning.data import Batch, Data, sample
from abrupt_learning.estimators.drop import Drop, find_drop
from abrupt_learning.train import Config, build
from common import experiment
from common.config import UserError
from common.device import generator
from common.limits import Place, Range
from common.replicas import pick

MILESTONES = {"first": 1 / 15, "early": 4 / 15, "middle": 10 / 15, "before": 14 / 15, "after": 16 / 15, "late": 20 / 15}
"""The paper's checkpoints 1000, 4000, 10000, 14000, 16000 and 20000 as shares of its drop at step 15000."""


class Trained(experiment.Trained):
    """A run with its configuration, ready to be analysed. Raises UserError if its model is not of the KIND."""

    CONFIG, KIND = Config, "bert"

    def __init__(self, path: str | Path, device: str = "auto", threads: int = 0):
        super().__init__(path, device, threads)
        if (found := self.config.model.kind) != self.KIND:
            raise UserError(f"found a {found} run at {path}, expected {self.KIND}; give another --run")

    @property
    def data(self) -> Data:
        return self.config.data

    def curve(self, seed: int, component: str | None = None):
        """Training rows of one seed in metrics.jsonl, as a DataFrame; of one component where parts were trained apart."""
        rows = self.metrics
        chosen = (rows["seed"] == seed) & rows["loss"].notna()
        if component is not None:
            chosen &= rows["component"] == component
        return rows[chosen].reset_index(drop=True)

    def drop(self, seed: int, component: str | None = None) -> Drop:
        """When and how abruptly L_mask falls."""
        return find_drop(self.curve(seed, component), self.data.baseline)

    def milestone(self, seed: int, name: str) -> int:
        """Checkpointed step of a milestone: before the drop never later than asked, after it never earlier.

        Without a drop the last step stands in for it, so that a run too short still can be looked at. Raises UserError for
        a name that is no milestone.
        """
        if name == "end":
            return self.steps[-1]
        if name not in MILESTONES:
            raise UserError(f"found milestone {name}, expected one of {', '.join((*MILESTONES, 'end'))}")
        share = MILESTONES[name]
        target = share * (self.drop(seed).half or self.steps[-1])
        if share < 1:
            return max([s for s in self.steps if s <= target], default=self.steps[0])
        return min([s for s in self.steps if s >= target], default=self.steps[-1])

    @cached_property
    def final(self) -> list[nn.Module]:
        """Every seed's model at the end."""
        return [self.model(seed) for seed in self.seeds]

    def milestones(self, names: list[str]) -> dict:
        """Steps of milestones by name: {values, mean, error} over seeds."""
        return experiment.over_seeds([{name: self.milestone(seed, name) for name in names} for seed in self.seeds])

    def model(self, seed: int, step: int | str = "end") -> nn.Module:
        """The model of a seed at a step or milestone, in evaluation mode, without gradients.

        Raises UserError for a step without a checkpoint.
        """
        step = self.milestone(seed, step) if isinstance(step, str) else step
        model = build(self.config, seed, self.device)
        model.load_state_dict(pick(self.checkpoints.weights(step), self.seeds.index(seed)))
        return model.requires_grad_(False).eval()

    def matrices(self, number: int, name: str = "evaluation", size: list[int] | None = None, **changes) -> Batch:
        """A fixed batch, the same at every call: `number` fresh matrices of the run's law, with `changes` to Data's fields."""
        data = replace(self.data, **changes)
        draws = generator("cpu", 0, f"{name} {data} {size}")
        return Batch(*(part.to(self.device) for part in sample(data, number, draws, size)))


class TrainedGpt(Trained):
    """A run of the decoder."""

    KIND = "gpt"


def seed_losses(models: list[nn.Module], batch: Batch) -> dict:
    """`losses` of every seed's model on the same matrices: {values, mean, error} over seeds."""
    return experiment.over_seeds([losses(predict(model, batch.ids), batch) for model in models])


Matrices = Annotated[int, Range(1, 10**7)]
"""How many matrices an experiment draws."""


@dataclass
class Analysis(experiment.Analysis):
    """Settings that every experiment has."""

    READS = Trained

    run: Place = "runs/abrupt_learning/quick/main"
    """Run folder to analyse."""


@torch.no_grad()
def predict(model: nn.Module, ids: Tensor) -> Tensor:
    """Predictions (B, N) for ids (B, N), 512 matrices at a time."""
    return torch.cat([model(part) for part in ids.split(512)])


def rounded(values: Tensor) -> list:
    """Nested lists with four decimals, for a result's curves and pictures."""
    return values.double().round(decimals=4).tolist()


def losses(prediction: Tensor, batch: Batch) -> dict[str, float]:
    """L, L_obs, L_mask of predictions (B, N) and the mean abs prediction at hidden cells, as ratios of batch sums.

    Each with its standard error, by the delta method over B matrices: sd(e_b - ratio n_b) / (mean(n) sqrt(B)).
    """
    prediction, batch = prediction.cpu(), Batch(*(part.cpu() for part in batch))  # MPS has no float64
    error, shown = (prediction - batch.target).double().square(), batch.observed.double()
    parts = {
        "loss": (error, torch.ones_like(shown)),
        "loss_observed": (error * shown, shown),
        "loss_masked": (error * (1 - shown), 1 - shown),
        "mask_value": (prediction.double().abs() * (1 - shown), 1 - shown),
    }
    result = {}
    for name, (value, count) in parts.items():
        value, count = value.sum(1), count.sum(1)
        ratio = value.sum() / count.sum()
        standard_error = (value - ratio * count).std() / (count.mean() * len(value) ** 0.5)
        result |= {name: float(ratio), f"{name}_se": float(standard_error)}
    return result
