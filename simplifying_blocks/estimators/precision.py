"""At least single precision for estimators, whatever the training around them runs in."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from simplifying_blocks.attention import wide


@contextlib.contextmanager
def single_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 inside: correlations of 1e-3 drown in their rounding."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        matmul.allow_tf32 = before


def in_single_precision(function: Callable) -> Callable:
    """The function with its positional tensors widened to at least single precision; the first of them tells the device."""

    @functools.wraps(function)
    def widened(*args, **settings):
        args = [a.to(wide(a)) if isinstance(a, Tensor) else a for a in args]
        with single_precision(args[0].device):
            return function(*args, **settings)

    return widened
