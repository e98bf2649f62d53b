"""Read a run back: its cells, their curves per seed, the times of grokking, and models at any checkpoint."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Self

import numpy as np
from torch import Tensor

from common import experiment
from common.config import UserError
from common.limits import Distinct, Place, Range
from common.replicas import pick
from layernorm_grok.data import split
from layernorm_grok.estimators import times
from layernorm_grok.grid import Cell, borrowed, build, cells
from layernorm_grok.model import Transformer
from layernorm_grok.placement import Placement
from layernorm_grok.train import Config

DECISIVE = ("data", "model", "train", "seeds", "precision")
"""What decides with a cell what a replica does."""


class Trained(experiment.Trained):
    """A run with its configuration, ready to be analysed; cells go by their names, replicas by cell and seed."""

    CONFIG = Config

    _weights: tuple[int, dict[str, Tensor]] = -1, {}
    """Step and weights of the checkpoint read last."""

    @cached_property
    def own(self) -> dict[str, Cell]:
        """Every cell that this run has trained by name, in order of the grid."""
        return {cell.name: cell for cell in cells(self.config.grid)}

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Every cell by name, in order of the grid, or of their values where some are borrowed."""
        lent = borrowed(self.config.grid)
        every = self.own | lent
        return dict(sorted(every.items(), key=lambda item: float(item[0].partition("=")[2]))) if lent else every

    def trained_in(self, name: str) -> tuple[Self, str]:
        """The run that has trained a cell, this one or the one it borrows from, and the cell's name there.

        Raises UserError for an unknown cell, and where the other run has not trained just this.
        """
        cell = self.cell(name)
        return (self, name) if name in self.own else self._lenders[cell]

    @cached_property
    def _lenders(self) -> dict[Cell, tuple[Self, str]]:
        lenders = {}
        for name, cell in borrowed(self.config.grid).items():
            run, _, there = self.config.grid.borrow[name].partition("/")
            lender = self.sibling(run)
            alike = all(getattr(lender.config, key) == getattr(self.config, key) for key in DECISIVE)
            if not alike or replace(lender.cell(there), name=name) != cell:
                raise UserError(
                    f"found {there} of {lender.run.path} with other settings than {name} of {self.run.path}, which borrows it; "
                    "expected the same: train both anew"
                )
            lenders[cell] = lender, there
        return lenders

    def cell(self, name: str) -> Cell:
        """The cell of that name; raises UserError with the names there are."""
        if name not in self.cells:
            raise UserError(
                f"found no cell {name!r} in {self.run.path}, expected some of {', '.join(self.cells)}; "
                "give another --run, or --cells"
            )
        return self.cells[name]

    def curves(self, name: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (T,) and a metric per seed (S, T) of a cell, NaN after a replica stopped."""
        run, name = self.trained_in(name)
        rows = run.metrics[run.metrics["cell"] == name]
        table = rows.pivot(index="step", columns="seed", values=key).reindex(columns=self.seeds)
        return table.index.to_numpy(), table.to_numpy(dtype=float).T

    def times(self, name: str) -> dict:
        """Grokking times of a cell in every convention (see times.conventions)."""
        steps, train_loss = self.curves(name, "train_loss")
        latest = np.nanmax(self.curves(name, "t_train")[1], axis=1, initial=-1.0)
        t_train = [None if step < 0 else int(step) for step in latest]
        test_loss, test_accuracy = (self.curves(name, key)[1] for key in ("test_loss", "test_accuracy"))
        return times.conventions(steps, train_loss, test_loss, test_accuracy, t_train)

    def replica(self, name: str, seed: int) -> int:
        """Number of a replica in the grid of the run that has trained it; raises UserError for an unknown cell or seed."""
        run, name = self.trained_in(name)
        if seed not in self.seeds:
            raise UserError(f"found no seed {seed} in {self.run.path}, expected one of {self.seeds}")
        return list(run.own).index(name) * len(self.seeds) + self.seeds.index(seed)

    def last_step(self, name: str, seed: int) -> int:
        """Checkpoint that holds the last weights of a replica: the last of the run, or the first after it stopped."""
        run, name = self.trained_in(name)
        rows = run.metrics[(run.metrics["cell"] == name) & (run.metrics["seed"] == seed)]
        return min((s for s in run.steps if s >= rows["step"].max()), default=run.steps[-1])

    def checkpoints_of(self, name: str, seed: int) -> list[int]:
        """Steps at which a replica's weights were kept, up to where it stopped."""
        last = self.last_step(name, seed)
        return [s for s in self.trained_in(name)[0].steps if s <= last]

    def weights(self, step: int) -> dict[str, Tensor]:
        """Stacked weights of a checkpoint, name -> (kept, ...); the one read last is kept in memory."""
        if step != self._weights[0]:
            self._weights = step, self.checkpoints.weights(step)
        return self._weights[1]

    def model(self, name: str, seed: int, step: int) -> Transformer:
        """A replica's model at a checkpoint (after it stopped: as it stopped), in evaluation mode, without gradients."""
        run, there = self.trained_in(name)
        stacked = run.weights(min(step, self.last_step(name, seed)))
        row = stacked["replicas"].tolist().index(self.replica(name, seed))
        norms = set().union(*(Placement.parse(c.placement).norms for c in run.own.values()))
        model = build(run.config, run.cell(there), seed, norms)
        model.load_state_dict(pick({k: v for k, v in stacked.items() if k != "replicas"}, row))
        return model.to(self.device).requires_grad_(False).eval()

    def offset(self, name: str, seed: int, rows: Tensor) -> Tensor | float:
        """What the trained objective subtracts from the logits of pairs rows (N,): (N, P + 1), or 0."""
        return self.model(name, seed, 0)(rows).logits if self.config.train.subtract_init else 0.0

    @cached_property
    def pairs(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Of each seed the indices of the train pairs (N,) and of the test pairs (P^2 - N,)."""
        return {seed: tuple(side.to(self.device) for side in split(self.config.data, seed)) for seed in self.seeds}

    @cached_property
    def targets(self) -> Tensor:
        """Target of every pair (P^2,)."""
        return self.config.data.targets().to(self.device)


@dataclass
class Analysis(experiment.Analysis):
    """Settings of every experiment of this paper."""

    READS = Trained

    run: Place = "runs/layernorm_grok/quick/main"
    """Run folder to analyse."""
    cells: Annotated[list[str], Distinct()] = field(default_factory=list)
    """Cells of the run's grid to look at, by name; empty: all of them."""


@dataclass
class Probe(Analysis):
    """Settings of an experiment that looks at checkpoints."""

    points: Annotated[int, Range(2, 10**9)] = 24
    """Checkpoints looked at per replica, spread over its life (the first and the last always)."""
