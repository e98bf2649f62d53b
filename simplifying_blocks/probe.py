"""Diagnostics of a model on one fixed batch, from one forward pass."""

import torch
from torch import Tensor

from simplifying_blocks.estimators.attention_entropy import attention_entropy
from simplifying_blocks.estimators.correlations import feature_correlation, input_correlation, kurtosis, rms
from simplifying_blocks.estimators.gains import Values, gains_at, on_host
from simplifying_blocks.estimators.precision import single_precision
from simplifying_blocks.model import Transformer


class Reader:
    """A Hook (blocks.py) that keeps numbers only: each activation is measured as it passes."""

    def __init__(self, model: Transformer):
        self.settings = {
            "causal": model.config.objective == "clm",
            "cap": model.config.logit_cap,
            "slopes": model.slopes,
        }
        self.found: Values = {}
        self.query: Tensor | None = None

    def __call__(self, site: str, layer: int, value: Tensor) -> None:
        if site == "query":
            self.query = value
        elif site == "key":
            self.found["attention_entropy", layer] = attention_entropy(self.query, value, **self.settings)
            self.query = None
        elif site in ("stream", "unembed"):
            self.found |= {(name, layer): number for name, number in stream_statistics(value).items()}


def stream_statistics(x: Tensor) -> dict[str, Tensor]:
    """Of the stream (B, T, d): numbers (), all over the B T tokens together."""
    mean, root_mean_square = input_correlation(x)
    return {
        "kurtosis": kurtosis(x),
        "feature_correlation": feature_correlation(x),
        "input_correlation": mean,
        "input_correlation_rms": root_mean_square,
        "rms": rms(x),
    }


@torch.no_grad()
def probe(model: Transformer, ids: Tensor) -> dict[str, float]:
    """ "<name>/<layer>" -> number, for ids (B, T); in single precision, and moved to the host at once.

    attention_entropy (nats): of each block l < L that has queries. kurtosis, feature_correlation, input_correlation,
    input_correlation_rms, rms: of the stream that block l reads (of Post-LN after its norm), and at l = L of what the
    unembedding reads. The gains as in estimators/gains.py. Raises ValueError beyond the context of the model.
    """
    reader = Reader(model)
    with single_precision(ids.device):
        model.hidden(ids, reader)
        found = on_host(reader.found | gains_at(model))
    return {f"{name}/{layer}": value for (name, layer), value in found.items()}
