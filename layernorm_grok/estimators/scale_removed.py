"""Scale-removed loss: what is left of a model when its MLP no longer sees how long its input is (paper section 3, Fig 3a).

y is the residual that enters the MLP, before its norm if it has one. The authors' probe (`code`) also drops every norm of
the block, those of attention included; `unit` and `mean_norm` change the MLP's input alone.
"""

import copy

import torch
from torch import Tensor

from layernorm_grok.estimators.trace import trace
from layernorm_grok.losses import accuracy, cross_entropy
from layernorm_grok.model import Transformer
from layernorm_grok.placement import Placement


def unit(y: Tensor) -> Tensor:
    """y / ||y||."""
    return y / y.norm(dim=-1, keepdim=True)


def mean_norm(y: Tensor) -> Tensor:
    """y mean||y|| / ||y||, the mean over examples and positions: only the variation of the norm is gone."""
    return unit(y) * y.norm(dim=-1).mean()


def without_norms(model: Transformer) -> Transformer:
    """The same parameters with unit MLP input and no norm in any block; a final norm stays. `model` is left as it is."""
    probed, placement = copy.copy(model), model.placement
    probed.placement = Placement(unit=True, final=placement.final, final_center=placement.final_center)
    return probed


MODES = {"code": lambda y: y, "unit": unit, "mean_norm": mean_norm}
"""Per mode what becomes of y; `code` works on the model `without_norms`."""


@torch.no_grad()
def scale_removed(
    model: Transformer, rows: Tensor, targets: Tensor, alpha: float, mode: str, offset: Tensor | float = 0.0
) -> dict[str, float]:
    """{loss, accuracy, minus_log_loss} of pairs rows (N,) with targets (N,) under one of MODES; loss in nats.

    The trained objective: logits are alpha (logits - offset), where offset (N, P + 1) are those of the unprobed start for a run
    with train.subtract_init. With LN2 and epsilon 0, `unit` is the plain loss; with ||y|| the same everywhere `mean_norm` is.
    """
    if mode not in MODES:
        raise ValueError(f"found mode {mode!r}, expected one of {', '.join(MODES)}")
    probed = without_norms(model) if mode == "code" else model
    logits = alpha * (trace(probed, rows, pruned=True, mlp_input=MODES[mode]).logits - offset)
    loss = cross_entropy(logits, targets).double().mean()
    return {"loss": loss.item(), "accuracy": accuracy(logits, targets).item(), "minus_log_loss": -loss.log().item()}


@torch.no_grad()
def norm_variation(model: Transformer, rows: Tensor) -> dict[str, list[float]]:
    """{mean, variation} of ||y|| over pairs rows (N,), per layer; variation is the standard deviation over the mean.

    Over the positions that matter: the last one in the last layer, all three before it.
    """
    norms = [layer.y.double().norm(dim=-1) for layer in trace(model, rows, pruned=True).layers]
    return {
        "mean": [norm.mean().item() for norm in norms],
        "variation": [(norm.std(correction=0) / norm.mean()).item() for norm in norms],
    }
