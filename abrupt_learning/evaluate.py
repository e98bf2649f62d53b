"""Read a finished run back: its models at any step, its plateau and its drop, and fixed matrices to test it on."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from abrupt_learning.data import Batch, Data, sample
from abrupt_learning.model import Hook
from abrupt_learning.train import Config, build
from common import config, device
from common.checkpoint import Checkpointer
from common.config import UserError
from common.replicas import pick
from common.run import Run

MILESTONES = {"first": 1 / 15, "early": 4 / 15, "middle": 10 / 15, "before": 14 / 15, "after": 16 / 15, "late": 20 / 15}
"""The paper's checkpoints 1000, 4000, 10000, 14000, 16000 and 20000 as shares of its drop at step 15000."""


@dataclass
class Drop:
    """When and how abruptly L_mask falls (sheet section 3, A1 to A4); steps are None where the run never gets there."""

    plateau: float
    """Median L_mask over the last half before the departure."""
    plateau_observed: float
    """Median L_obs over the same steps."""
    plateau_loss: float
    """Median L over the same steps."""
    half: int | None
    """A1, t_drop: first step whose 200-step moving average of L_mask is below 0.5 Var."""
    width: int | None
    """A2: steps from 0.9 Var to 0.25 Var."""
    sharpness: float | None
    """A3: width over t_drop; about 0.13 in the paper's setting."""
    slope: float | None
    """A4: relative change of L_mask over [0.3, 0.8] t_drop; 0 for a true plateau."""
    final: float
    """L_mask over the last 200 steps."""


def find_drop(metrics, variance: float, window: int = 200) -> Drop:
    """The drop in one seed's rows (pandas, columns step, loss, loss_masked, loss_observed) of metrics.jsonl."""
    steps = metrics["step"].to_numpy()
    rows = max(1, round(window / max(1, int(steps[0]))))
    smooth = metrics["loss_masked"].rolling(rows, min_periods=1).mean().to_numpy()

    def below(level: float) -> int | None:
        hits = (smooth < level * variance).nonzero()[0]
        return int(steps[hits[0]]) if len(hits) else None

    departure, half, quarter = below(0.9), below(0.5), below(0.25)
    end = departure or int(steps[-1])
    before = metrics[(steps >= end / 2) & (steps <= end)]
    slope = None
    if half:
        flat = metrics[(steps >= 0.3 * half) & (steps <= 0.8 * half)]
        middle = len(flat) // 2
        if middle:
            first, second = (part["loss_masked"].mean() for part in (flat[:middle], flat[middle:]))
            slope = float(2 * (second / first - 1))
    width = quarter - departure if quarter else None
    medians = {key: float(before[key].median()) for key in ("loss_masked", "loss_observed", "loss")}
    return Drop(
        plateau=medians["loss_masked"],
        plateau_observed=medians["loss_observed"],
        plateau_loss=medians["loss"],
        half=half,
        width=width,
        sharpness=width / half if width is not None else None,
        slope=slope,
        final=float(smooth[-1]),
    )


class Trained:
    """A run with its configuration, ready to be analysed. where: auto, cpu, cuda or mps."""

    def __init__(self, path: str | Path, where: str = "auto", threads: int = 0):
        self.run = Run.open(path)
        self.config = config.load(Config, self.run.config_path)
        self.device = device.setup(where, "fp32", threads)
        self.checkpoints = Checkpointer(self.run.path / "checkpoints")

    @property
    def seeds(self) -> list[int]:
        return self.config.seeds

    @property
    def data(self) -> Data:
        return self.config.data

    @cached_property
    def steps(self) -> list[int]:
        """Steps with a checkpoint of the schedule; one that an interruption made is left out, so that it changes nothing."""
        c, kept = self.config.train, self.checkpoints.steps()
        return [s for s in kept if s % c.save_every == 0 or s in c.save_at or s in (c.steps, kept[-1])]

    def metrics(self, seed: int):
        """metrics.jsonl of one seed (its training rows), as a DataFrame."""
        rows = self.run.metrics()
        return rows[(rows["seed"] == seed) & rows["loss"].notna()].reset_index(drop=True)

    def drop(self, seed: int) -> Drop:
        return find_drop(self.metrics(seed), self.data.baseline)

    def milestone(self, seed: int, name: str) -> int:
        """Checkpointed step of a milestone: before the drop never later than asked, after it never earlier.

        Without a drop the last step stands in for it, so that a run too short still can be looked at.
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

    def model(self, seed: int, step: int | str = "end") -> nn.Module:
        """The model of a seed at a step or milestone, in evaluation mode, without gradients."""
        step = self.milestone(seed, step) if isinstance(step, str) else step
        model = build(self.config, seed, self.device)
        model.load_state_dict(pick(self.checkpoints.weights(step), self.seeds.index(seed)))
        return model.requires_grad_(False).eval()

    def matrices(self, number: int, name: str = "evaluation", size: list[int] | None = None, **changes) -> Batch:
        """A fixed batch, the same at every call: `number` fresh matrices of the run's law, with `changes` to Data's fields."""
        data = replace(self.data, **changes)
        generator = device.generator(torch.device("cpu"), 0, f"{name} {data} {size}")
        return Batch(*(field.to(self.device) for field in sample(data, number, generator, size)))


@torch.no_grad()
def predict(model: nn.Module, ids: Tensor, hook: Hook | None = None, chunk: int = 512) -> Tensor:
    """Predictions (B, N) for ids (B, N), `chunk` matrices at a time; with a hook, in one piece."""
    if hook is not None:
        return model(ids, hook)
    return torch.cat([model(part) for part in ids.split(chunk)])


def losses(prediction: Tensor, batch: Batch) -> dict[str, float]:
    """L, L_obs, L_mask as ratios of batch sums, the mean abs prediction at hidden cells, and their standard errors.

    The error of a ratio of sums over B matrices is the delta-method one: sd(e_b - ratio n_b) / (mean(n) sqrt(B)).
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
        spread = (value - ratio * count).std() / (count.mean() * len(value) ** 0.5)
        result |= {name: float(ratio), f"{name}_se": float(spread)}
    return result
