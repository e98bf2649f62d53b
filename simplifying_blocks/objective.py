"""What is learned from a batch, and what the models are asked on held-out text: losses and diagnostics at a schedule.

`settings` is the Config of train.py throughout.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from common.device import autocast, generator
from simplifying_blocks.data import Corpus
from simplifying_blocks.losses import IGNORED, cross_entropy
from simplifying_blocks.model import Transformer
from simplifying_blocks.probe import probe
from simplifying_blocks.tokens import Windows, masked


class Objective(nn.Module):
    """Cross-entropy in nats of inputs and targets (b, T), their sum over `count`: a part of the mean of a whole batch."""

    def __init__(self, model: Transformer, precision: str):
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, inputs: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        with autocast(inputs.device, self.precision):
            return cross_entropy(self.model.hidden(inputs), self.model.readout, targets, count)


def pair(settings, corpus: Corpus, ids: Tensor, stream: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets (b, T) of windows (b, T + 1): the next token, or hidden ones drawn from the stream of that name."""
    if settings.model.objective == "clm":
        return ids[:, :-1], ids[:, 1:]
    draws = generator(ids.device, 0, stream)
    return masked(ids[:, :-1], corpus.vocabulary, corpus.mask, draws, settings.train.mask_share)


@torch.no_grad()
def test(settings, corpus: Corpus, model: Transformer, windows: Windows, most: int) -> float:
    """Mean loss in nats of a model on the first `most` windows in order."""
    size = max(1, min(settings.train.micro_batch or settings.train.batch, settings.train.batch))
    total = count = torch.zeros((), device=windows.tokens.device)
    objective = Objective(model, settings.precision)
    for number, ids in enumerate(windows.in_order(size, most)):
        inputs, targets = pair(settings, corpus, ids, f"evaluation/{number}")
        total = total + objective(inputs, targets, torch.ones((), device=ids.device))
        count = count + (targets != IGNORED).sum()
    return float(total / count)


class Examiner:
    """Looks at the models on held-out text: `look(now)` gives a row per seed where step `now` has something to say."""

    def __init__(self, settings, corpus: Corpus, models: list[Transformer], device: torch.device):
        self.settings, self.corpus, self.models = settings, corpus, models
        splits = [split for split in ("valid_iid", "valid") if split in corpus.splits]
        self.windows = {split: corpus.windows(split, settings.train.context, device) for split in splits}
        self.probed = next(self.windows["valid_iid"].in_order(settings.train.probe_windows))[:, :-1]

    def look(self, now: int) -> Iterator[dict]:
        c = self.settings.train
        tested, probed = (now % every == 0 or now == c.steps for every in (c.evaluate_every, c.probe_every))
        for model in self.models if tested or probed else ():
            yield (self.losses(model, now == c.steps) if tested else {}) | (probe(model, self.probed) if probed else {})

    def losses(self, model: Transformer, final: bool) -> dict[str, float]:
        """Losses in nats per token: valid_iid, on the same windows each time; at the end `final`, on more of them, and
        `packages`; and, where every token is predicted, bits_per_byte of the best known of the first two."""
        c, test_on = self.settings.train, partial(test, self.settings, self.corpus, model)
        losses = {"valid_iid": test_on(self.windows["valid_iid"], c.evaluate_windows)}
        if final:
            losses["final"] = test_on(self.windows["valid_iid"], c.final_windows)
        if final and "valid" in self.windows:
            losses["packages"] = test_on(self.windows["valid"], c.evaluate_windows)
        if self.settings.model.objective == "mlm":
            return losses
        best_known = losses.get("final", losses["valid_iid"])
        return losses | {"bits_per_byte": self.corpus.bits_per_byte(best_known, "valid_iid")}
