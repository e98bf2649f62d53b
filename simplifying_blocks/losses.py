"""Cross-entropy of causal and masked language models, in nats, without all logits at once."""

import torch
from torch import Tensor

IGNORED = -100
"""Target of a position that is not predicted."""


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over rows of the cross-entropy; gradients are made with the loss, so that logits (chunk, V) live one chunk long.

    learns: whether there will be a backward pass.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, readout: Tensor, targets: Tensor, chunk: int, learns: bool) -> Tensor:
        loss = torch.zeros((), device=hidden.device, dtype=torch.promote_types(hidden.dtype, torch.float32))
        d_hidden, d_readout = torch.empty_like(hidden), torch.zeros_like(readout, dtype=loss.dtype)
        for rows in range(0, len(hidden), chunk):
            h, target = hidden[rows : rows + chunk], targets[rows : rows + chunk]
            shown, target = (target != IGNORED)[:, None], target.clamp(min=0)
            row = torch.arange(len(h), device=h.device)
            logits = (h @ readout.mT).to(loss.dtype)
            error = logits.softmax(-1)
            # log sum exp z = max z - log max softmax z: one pass of exponentials gives loss and gradient.
            nats = logits.amax(-1) - logits[row, target] - error.amax(-1).log()
            loss += (nats * shown[:, 0]).sum()
            if not learns:
                continue
            error[row, target] -= 1
            error = error.to(h.dtype)
            d_hidden[rows : rows + chunk] = (error @ readout) * shown
            d_readout += error.mT @ (h * shown)
        ctx.save_for_backward(d_hidden, d_readout.to(readout.dtype))
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor):
        d_hidden, d_readout = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), d_readout * grad.to(d_readout.dtype), None, None, None


def cross_entropy(
    hidden: Tensor, readout: Tensor, targets: Tensor, count: Tensor | None = None, chunk: int = 2048
) -> Tensor:
    """Sum over predicted positions, over `count`, by default their number, which gives the mean.

    hidden (..., d), readout (V, d), targets (...) with -100 where nothing is predicted.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        half = torch.get_autocast_dtype(hidden.device.type)
        hidden, readout = hidden.to(half), readout.to(half)
    with torch.autocast(hidden.device.type, enabled=False):
        total = ChunkedCrossEntropy.apply(
            hidden.flatten(0, -2), readout, targets.flatten(), chunk, torch.is_grad_enabled()
        )
    return total / ((targets != IGNORED).sum() if count is None else count)
