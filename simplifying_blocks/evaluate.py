"""Read a run back: its text, its models at any checkpoint, its curves per seed and its diagnostics per layer."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Self

import numpy as np

from common import experiment
from common.config import UserError
from common.limits import Distinct, Name, Place
from common.replicas import pick
from simplifying_blocks.data import Corpus
from simplifying_blocks.model import Transformer
from simplifying_blocks.prepare import prepare
from simplifying_blocks.train import Config, build


class Trained(experiment.Trained):
    """A run with its configuration, ready to be analysed."""

    CONFIG = Config

    @cached_property
    def corpus(self) -> Corpus:
        """The text of the run; raises UserError where it is another one by now."""
        corpus = prepare(self.config.data)
        corpus.require(self.digest)
        return corpus

    @property
    def digest(self) -> str:
        """Of the text it was trained on."""
        return self.metrics["corpus"].dropna().iloc[0]

    @property
    def parameters(self) -> int:
        """Trained parameters of a model."""
        return int(self.metrics["parameters"].dropna().iloc[0])

    @property
    def seconds_per_step(self) -> float:
        """Median time of a step of one seed as it was trained, beside whatever else the machine did, without evaluations.

        NaN where too little was logged.
        """
        if "loss" not in self.metrics:
            return math.nan
        rows = self.metrics.dropna(subset="loss").drop_duplicates("step")[["step", "time"]].diff().dropna()
        return float((rows["time"] / rows["step"]).median()) / len(self.seeds)

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (P,) and the values of a metric per seed (S, P) wherever it was logged; raises UserError where it never was."""
        if key not in self.metrics:
            raise UserError(
                f"found no {key} in {self.run.metrics_path}, expected a run that logs it and has come to its end; go on with "
                "it: --resume, or give another --run"
            )
        rows = self.metrics[["step", "seed", key]].dropna(subset="step")
        table = rows.pivot_table(index="step", columns="seed", values=key, aggfunc="last", dropna=False)
        table = table.reindex(columns=self.seeds).dropna(how="all")
        return table.index.to_numpy(), table.to_numpy(dtype=float).T

    def layers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (P,) and a diagnostic (S, P, L), NaN in layers that lack it; raises UserError where no layer has it."""
        logged = sorted((int(key.rpartition("/")[2]), key) for key in self.metrics if key.startswith(f"{name}/"))
        if not logged:
            raise UserError(f"found no {name} in {self.run.path}, whose block has none; give another --run")
        found = {layer: self.curve(key) for layer, key in logged}
        steps = next(iter(found.values()))[0]
        values = np.full((len(self.seeds), len(steps), max(self.config.model.layers, 1 + max(found))), np.nan)
        for layer, (_, rows) in found.items():
            values[..., layer] = rows
        return steps, values

    def final(self, key: str = "final") -> list[float]:
        """The last value of a metric, per seed."""
        return self.curve(key)[1][:, -1].tolist()

    def model(self, seed: int, step: int | None = None) -> Transformer:
        """A seed's model at a checkpoint, by default the last, in evaluation mode, without gradients; UserError for no seed."""
        if seed not in self.seeds:
            raise UserError(f"found no seed {seed} in {self.run.path}, expected one of {self.seeds}")
        weights = self.checkpoints.weights(self.steps[-1] if step is None else step)
        vocabulary = weights["token.weight"].shape[1]
        model = build(self.config, vocabulary, seed)
        model.load_state_dict(pick(weights, self.seeds.index(seed)))
        return model.to(self.device).requires_grad_(False).eval()

    def others(self, names: list[str]) -> dict[str, Self]:
        """This run and others of its study, by name; raises UserError where one has other seeds or another text."""
        found = {self.run.path.name: self} | {name: self.sibling(name) for name in names}
        for run in found.values():
            theirs, ours = ((one.seeds, one.digest[:12]) for one in (run, self))
            if theirs != ours:
                raise UserError(
                    f"found seeds and text {theirs} in {run.run.path}, expected {ours} as in {self.run.path}; "
                    "compare others, or train one of them anew"
                )
        return found


@dataclass
class Analysis(experiment.Analysis):
    """Settings of every experiment of this paper."""

    READS = Trained

    run: Place = "runs/simplifying_blocks/quick/main"
    """Run folder to analyse."""


@dataclass
class Comparison(Analysis):
    """Settings of an experiment that compares runs of a study."""

    runs: Annotated[list[Name], Distinct()] = field(default_factory=list)
    """Other runs of the study."""
