"""Lanczos against dense eigenvalues, and products with the Hessian against the dense Hessian and finite differences."""

import pytest
import torch
from torch.func import functional_call

from common.hessian import hessian_product, lanczos
from layernorm_grok.losses import cross_entropy, effective_rank_penalty, squared_error
from layernorm_grok.model import Model, Transformer
from layernorm_grok.placement import Placement

P = 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetric(size: int, seed=0) -> torch.Tensor:
    A = torch.randn(size, size, dtype=torch.float64, generator=generator(seed))
    return A + A.T


def of(A: torch.Tensor, k: int, iterations: int, **more):
    return lanczos(lambda v: A @ v, len(A), k, iterations, generator(7), **more)


def trained_loss(placement="pre", loss=cross_entropy, er=0.0, offset=0.0, **options):
    """Loss of all pairs as a function of the parameters, at alpha 1.3, and the parameters in float64."""
    options = {"d": 4, "heads": 2, "mlp_ratio": 2, "act": "gelu", **options}
    model = Transformer(Model(**options), P, Placement.parse(placement), generator()).double()
    rows = torch.arange(P**2)
    targets = (rows // P + rows % P) % P

    def value(params):
        output = functional_call(model, params, (rows,))
        mean = loss(1.3 * (output.logits - offset), targets).mean()
        return mean + er * effective_rank_penalty(output.prelogits) if er else mean

    return value, {n: p.detach() for n, p in model.named_parameters()}


def top_eigenvalues(value, params, k=3, iterations=100, seed=0, tolerance=1e-6):
    return lanczos(*hessian_product(value, params), k, iterations, generator(seed), tolerance)


def flat(value, params):
    """value as a function of one vector, and that vector."""
    sizes = [p.numel() for p in params.values()]

    def of_vector(v):
        return value({n: part.view_as(p) for (n, p), part in zip(params.items(), v.split(sizes), strict=True)})

    return of_vector, torch.cat([p.flatten() for p in params.values()])


def test_known_quadratic():
    curvature = torch.tensor([5.0, -7.0, 3.0, 0.5, 0.0, 1.0, -1.0, 2.0], dtype=torch.float64)

    def value(params):
        v = torch.cat([params["a"].flatten(), params["b"]])
        return (curvature * (v - 1) ** 2).sum() / 2

    found = top_eigenvalues(value, {"a": torch.zeros(2, 3).double(), "b": torch.zeros(2).double()}, k=3)
    torch.testing.assert_close(found.top, torch.tensor([5.0, 3.0, 2.0]).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.lowest, torch.tensor([-7.0, -1.0, 0.0]).double(), rtol=0, atol=1e-10)
    assert found.converged
    assert float(found.top[-1]) == pytest.approx(2)


@pytest.mark.parametrize("k", [1, 4])
def test_ends_of_a_dense_spectrum(k):
    A = symmetric(200)
    exact = torch.linalg.eigvalsh(A)
    found = of(A, k, 200, tolerance=1e-10)
    assert found.converged
    assert found.iterations < 200
    torch.testing.assert_close(found.top, exact[-k:].flip(0), rtol=0, atol=1e-8)
    torch.testing.assert_close(found.lowest, exact[:k], rtol=0, atol=1e-8)


@pytest.mark.parametrize("iterations", [5, 12, 40])
def test_an_eigenvalue_lies_within_the_residual_of_each_value(iterations):
    A = symmetric(100, seed=3)
    exact = torch.linalg.eigvalsh(A)
    found = of(A, 3, iterations)
    values, residuals = torch.cat([found.top, found.lowest]), torch.cat([found.top_residuals, found.lowest_residuals])
    nearest = (values[:, None] - exact).abs().min(1).values
    assert (nearest <= residuals + 1e-10).all()
    assert found.converged == bool(residuals.max() <= 1e-6 * max(found.top[0], -found.lowest[0]))
    assert (found.top <= exact[-3:].flip(0) + 1e-10).all()
    assert (found.lowest >= exact[:3] - 1e-10).all()


def test_stops_short_of_convergence_and_says_so():
    found = of(symmetric(300), 3, 10)
    assert not found.converged
    assert found.iterations == 10
    assert found.top_residuals.max() > 1e-3


def test_orthogonality_survives_a_spread_spectrum():
    """Without reorthogonalisation the largest eigenvalue comes back as ghosts of itself."""
    exact = torch.cat([torch.linspace(0, 1, 198), torch.tensor([10.0, 1e4])]).double()
    turn = torch.linalg.qr(symmetric(200)).Q
    found = of(turn @ exact.diag() @ turn.T, 3, 120, tolerance=1e-13)
    torch.testing.assert_close(found.top[:2], torch.tensor([1e4, 10.0]).double(), rtol=1e-10, atol=0)
    assert found.top[2] <= 1 + 1e-8


def test_invariant_subspaces_are_left():
    identity = torch.eye(12, dtype=torch.float64)
    for A, value in [(2 * identity, 2.0), (0 * identity, 0.0)]:
        found = of(A, 3, 12)
        torch.testing.assert_close(found.top, torch.full((3,), value).double(), rtol=0, atol=1e-12)
        assert found.converged
    u = torch.linalg.qr(symmetric(12)).Q[:, 0]
    found = of(5 * torch.outer(u, u), 2, 12)
    torch.testing.assert_close(found.top, torch.tensor([5.0, 0.0]).double(), rtol=0, atol=1e-12)


def test_whole_spectrum_of_a_small_matrix():
    A = symmetric(6)
    exact = torch.linalg.eigvalsh(A)
    found = of(A, 6, 50)
    assert found.iterations == 6
    torch.testing.assert_close(found.top, exact.flip(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.lowest, exact, rtol=0, atol=1e-12)


OBJECTIVES = [
    ("off", {"layers": 2, "mlp_ratio": 1}),
    ("pre", {"er": 0.1}),
    ("mlp-pre", {"loss": squared_error, "act": "relu"}),
    ("post+final", {"offset": 0.3, "unembed": "tied"}),
    ("peri+qk-norm", {"norm": "rms", "mlp": "glu"}),
]


@pytest.mark.parametrize("placement, options", OBJECTIVES, ids=[placement for placement, _ in OBJECTIVES])
def test_model_against_its_dense_hessian(placement, options):
    value, params = trained_loss(placement, **options)
    dense = torch.autograd.functional.hessian(*flat(value, params))
    exact = torch.linalg.eigvalsh(dense)
    found = top_eigenvalues(value, params, k=3, iterations=len(dense), tolerance=1e-11)
    scale = float(exact.abs().max())
    torch.testing.assert_close(found.top, exact[-3:].flip(0), rtol=0, atol=1e-8 * scale)
    torch.testing.assert_close(found.lowest, exact[:3], rtol=0, atol=1e-8 * scale)


@pytest.mark.parametrize("placement, options", OBJECTIVES, ids=[placement for placement, _ in OBJECTIVES])
def test_products_are_differences_of_gradients(placement, options):
    """Central differences need no rule for second derivatives, which is where gains of norms go wrong in torch.func."""
    value, params = trained_loss(placement, **options)
    product, size = hessian_product(value, params)
    of_vector, at = flat(value, params)
    direction = torch.randn(size, dtype=torch.float64, generator=generator(5))
    gradient = torch.func.grad(of_vector)
    step = 1e-7
    difference = (gradient(at + step * direction) - gradient(at - step * direction)) / (2 * step)
    assert (product(direction) - difference).norm() < 1e-6 * difference.norm()


def test_single_precision_parameters():
    value, params = trained_loss("pre")
    exact = top_eigenvalues(value, params)
    found = top_eigenvalues(value, {n: p.float() for n, p in params.items()}, tolerance=1e-4)
    assert found.top.dtype == torch.float64
    torch.testing.assert_close(
        found.top, exact.top, rtol=0, atol=1e-4 * float(torch.cat([exact.top, exact.lowest]).abs().max())
    )


def test_same_seed_same_numbers():
    value, params = trained_loss("off")
    first, again = (top_eigenvalues(value, params, iterations=20, seed=4) for _ in range(2))
    assert torch.equal(first.top, again.top)
    assert torch.equal(first.lowest_residuals, again.lowest_residuals)


def test_wrong_arguments():
    A = symmetric(5)
    with pytest.raises(ValueError, match=r"found k 6, expected 1 .. 5"):
        of(A, 6, 10)
    with pytest.raises(ValueError, match=r"found k 3, expected 1 .. 2"):
        of(A, 3, 2)
    with pytest.raises(ValueError, match="not finite at iteration 1"):
        of(A * torch.nan, 1, 5)
