"""Small models with no parameter at a special value, for tests that compare two ways of computing one thing."""

import torch

from layernorm_grok.model import Model, Transformer
from layernorm_grok.placement import Placement


def random_model(
    placement: str = "off", P: int = 5, seed: int = 0, norms: set[str] | None = None, **options
) -> Transformer:
    """In float64, with N(0, 0.3^2) added to every parameter, gains and biases included; two heads of four by default."""
    generator = torch.Generator().manual_seed(seed)
    settings = Model(**{"d": 8, "heads": 2} | options)
    model = Transformer(settings, P, Placement.parse(placement), generator, norms).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model
