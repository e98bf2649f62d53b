"""Hutchinson's trace against the matrix; Lanczos is held against dense Hessians in tests/layernorm_grok."""

import math

import pytest
import torch

from common.hessian import hessian_product, trace


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetric(size: int) -> torch.Tensor:
    A = torch.randn(size, size, dtype=torch.float64, generator=generator(3))
    return A + A.T


def test_the_trace_of_a_diagonal_matrix_is_exact_from_one_probe():
    told, error = trace(lambda v: torch.tensor([3.0, -1.0, 5.0]).double() * v, 3, 1, generator())
    assert told == pytest.approx(7) and math.isnan(error)


def test_the_mean_of_probes_is_the_trace_within_its_error_however_many_there_are():
    A = symmetric(40)
    # Var(v . Av) for random signs is 2 (|A|^2 - |diag A|^2)
    spread = math.sqrt(2 * float(A.square().sum() - A.diag().square().sum()))
    for probes in (100, 1600):
        told, error = trace(lambda v: A @ v, 40, probes, generator(probes))
        assert error == pytest.approx(spread / math.sqrt(probes), rel=0.25)
        assert abs(told - float(A.trace())) < 4 * error


def test_the_trace_of_a_loss():
    scales = torch.tensor([1.0, 2.0, 3.0])
    product, size = hessian_product(lambda p: (scales * p["w"] ** 2).sum() / 2, {"w": torch.zeros(3)})
    assert trace(product, size, 4, generator())[0] == pytest.approx(6)
