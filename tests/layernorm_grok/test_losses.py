"""Losses against literal float64 forms, far below where float32 log-softmax ends, and with leading replica axes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from layernorm_grok.losses import accuracy, cross_entropy, effective_rank_penalty, margin, squared_error


def normal(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def example(scale: float = 3.0, shape=(4, 7, 6), dtype=torch.float64):
    targets = torch.randint(shape[-1], shape[:-1], generator=torch.Generator().manual_seed(1))
    return scale * normal(*shape, dtype=dtype), targets


def literal_loss(logits: list[float], target: int) -> float:
    """log(1 + sum over the others of exp(z_j - z_y)), exact in float64 however small."""
    return math.log1p(math.fsum(math.exp(z - logits[target]) for j, z in enumerate(logits) if j != target))


def fitted(gap: float, dtype=torch.float32):
    """Logits (16, 9) whose targets lead by about `gap`."""
    logits, targets = example(1.0, (16, 9))
    logits.scatter_(-1, targets[:, None], gap)
    return logits.to(dtype), targets


@pytest.mark.parametrize("gap", [-12.0, 0.0, 5.0, 15.0, 20.0, 31.0, 50.0, 80.0])
def test_cross_entropy_in_float32_keeps_its_digits_at_every_size(gap):
    logits, targets = fitted(gap)
    exact = [literal_loss(z, y) for z, y in zip(logits.tolist(), targets.tolist(), strict=True)]
    ours = cross_entropy(logits, targets)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.double(), exact, rtol=2e-5)


def test_a_loss_below_1e_12_is_kept_where_log_softmax_in_float32_says_0():
    logits, targets = fitted(32.0)
    assert 0 < cross_entropy(logits, targets).max() < 1e-12
    assert F.cross_entropy(logits, targets) == 0


@pytest.mark.parametrize("gap", [-12.0, 0.0, 15.0, 31.0, 80.0])
def test_gradient_in_float32_is_softmax_minus_one_hot(gap):
    logits, targets = fitted(gap)
    logits.requires_grad_()
    (ours,) = torch.autograd.grad(cross_entropy(logits, targets).sum(), logits)
    exact = logits.detach().double().softmax(-1)
    others = exact.scatter(-1, targets[:, None], 0.0)
    exact = others.scatter(-1, targets[:, None], -others.sum(-1, keepdim=True))
    torch.testing.assert_close(ours.double(), exact, rtol=2e-5, atol=0)


def test_cross_entropy_is_torchs_in_float64():
    logits, targets = example()
    logits.requires_grad_()
    ours = cross_entropy(logits, targets)
    theirs = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(4, 7)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_logits_have_finite_losses_and_gradients(scale):
    logits, targets = example(scale, dtype=torch.float32)
    logits.requires_grad_()
    loss = cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    exact = F.cross_entropy(logits.flatten(0, 1).double(), targets.flatten(), reduction="none")
    torch.testing.assert_close(loss.flatten().double(), exact, rtol=1e-6, atol=0)
    assert gradient.isfinite().all()
    assert gradient.abs().max() <= 1


@pytest.mark.parametrize("shift", [17.0, -1e5])
def test_cross_entropy_does_not_see_a_shift_of_all_logits(shift):
    logits, targets = example()
    torch.testing.assert_close(
        cross_entropy(logits + shift, targets), cross_entropy(logits, targets), rtol=1e-8, atol=1e-12
    )


def test_accuracy_margin_and_squared_error_are_the_literal_ones():
    logits, targets = example()
    z, y = logits.numpy(), targets.numpy()
    top = np.sort(z, -1)
    np.testing.assert_allclose(accuracy(logits, targets), (z.argmax(-1) == y).mean(-1))
    np.testing.assert_allclose(margin(logits), (top[..., -1] - top[..., -2]).mean(-1))
    np.testing.assert_allclose(squared_error(logits, targets), ((z - np.eye(6)[y]) ** 2).sum(-1) / 2)


def test_accuracy_of_targets_read_off_the_logits():
    logits, _ = example()
    assert accuracy(logits, logits.argmax(-1)).tolist() == [1.0] * 4
    assert accuracy(logits, logits.argmin(-1)).tolist() == [0.0] * 4


def test_margin_scales_with_the_logits_and_carries_no_gradient():
    logits, _ = example()
    torch.testing.assert_close(margin(3 * logits), 3 * margin(logits))
    assert not margin(logits.requires_grad_()).requires_grad


@pytest.mark.parametrize("measure", [cross_entropy, squared_error, accuracy])
def test_leading_axes_are_independent(measure):
    logits, targets = example()
    torch.testing.assert_close(
        measure(logits, targets), torch.stack([measure(z, y) for z, y in zip(logits, targets, strict=True)])
    )


def literal_effective_rank(z) -> float:
    values = np.linalg.svd(np.asarray(z, dtype=float), compute_uv=False) ** 2
    shares = values / values.sum()
    shares = shares[shares > 1e-15]
    return math.exp(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize("n, d", [(30, 6), (6, 6), (4, 10)])
def test_effective_rank_is_that_of_the_squared_singular_values(n, d):
    z = normal(3, n, d) + 0.5
    np.testing.assert_allclose(effective_rank_penalty(z), [literal_effective_rank(part) for part in z], rtol=1e-8)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_effective_rank_of_k_equal_directions_is_k(k):
    basis, _ = torch.linalg.qr(normal(20, 8))
    z = 4.2 * basis[:, :k] @ torch.eye(k, 8, dtype=torch.float64)
    assert effective_rank_penalty(z).item() == pytest.approx(k, rel=1e-8)


def test_effective_rank_gradient_is_that_of_finite_differences():
    z = normal(2, 9, 4).requires_grad_()
    assert torch.autograd.gradcheck(effective_rank_penalty, (z,))


@pytest.mark.parametrize("degenerate", ["equal", "one row", "zero columns", "repeated"])
def test_effective_rank_gradient_is_finite_where_eigenvalues_vanish_or_coincide(degenerate):
    z = {
        "equal": torch.eye(6),
        "one row": normal(1, 6, dtype=torch.float32),
        "zero columns": normal(20, 6, dtype=torch.float32) * torch.tensor([1.0, 1, 1, 0, 0, 0]),
        "repeated": normal(20, 1, dtype=torch.float32).expand(20, 6).clone(),
    }[degenerate].requires_grad_()
    value = effective_rank_penalty(z)
    (gradient,) = torch.autograd.grad(value, z)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_effective_rank_of_a_lost_replica_is_nan_and_leaves_the_others_as_they_are(value):
    z = normal(3, 9, 4)
    alone = [part.clone().requires_grad_() for part in z]
    z[1] = value
    z.requires_grad_()
    ranks = effective_rank_penalty(z)
    (gradient,) = torch.autograd.grad(ranks.sum(), z)
    assert ranks.isnan().tolist() == [False, True, False]
    assert gradient[1].isnan().any()
    for number in (0, 2):
        (expected,) = torch.autograd.grad(effective_rank_penalty(alone[number]), alone[number])
        torch.testing.assert_close(gradient[number], expected)


def test_following_the_gradient_lowers_the_effective_rank():
    z = normal(30, 6, dtype=torch.float32).requires_grad_()
    before = effective_rank_penalty(z)
    (gradient,) = torch.autograd.grad(before, z)
    assert effective_rank_penalty(z - gradient) < before - 0.1
