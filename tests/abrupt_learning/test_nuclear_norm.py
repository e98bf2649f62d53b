"""Nuclear-norm solvers: exact feasibility, proofs of optimality, agreement with cvxpy and with a literal ADMM, table 7.4."""

import pytest
import torch

from abrupt_learning.estimators import nuclear_norm_cvxpy
from abrupt_learning.estimators.nuclear_norm import certificate, complete, regularised


def matrices(
    B: int, p: float, m: int = 7, n: int = 7, rank: int = 2, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Products of Unif[-1, 1] factors rounded to 2 decimals (B, m, n) float64, and their masks, True with probability 1 - p."""
    g = torch.Generator().manual_seed(seed)
    U, V, noise = (torch.rand(B, *s, generator=g, dtype=torch.float64) for s in ((m, rank), (n, rank), (m, n)))
    return ((2 * U - 1) @ (2 * V - 1).mT * 100).round() / 100, noise > p


def nuclear(X: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(X).sum(-1)


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def shrunk(T: torch.Tensor, by: float) -> torch.Tensor:
    """Singular values soft-thresholded."""
    U, s, Vh = torch.linalg.svd(T, full_matrices=False)
    return U * (s - by).clamp(min=0)[:, None] @ Vh


def admm(A, mask, lam=None, rho=6.0, steps=3000):
    """Alternating directions with over-relaxation, literally: X fits A, Z is of low norm, U is the scaled dual of X = Z."""
    weight = 0.0 if lam is None else 2 * mask / (lam * mask.sum((1, 2), keepdim=True))
    X, U = torch.where(mask, A, 0.0), torch.zeros_like(A)
    for _ in range(steps):
        Z = 1.6 * shrunk(X + U, 1 / rho) - 0.6 * X
        X = torch.where(mask, A, Z - U) if lam is None else (weight * A + rho * (Z - U)) / (weight + rho)
        U = U + X - Z
    return X


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("shape", [(7, 7), (3, 8), (6, 2), (1, 5)])
def test_every_gap_is_certified_and_observed_entries_are_kept_exactly(p, shape):
    A, mask = matrices(100, p, *shape)
    found = complete(A, mask)
    assert torch.equal(found.X[mask], A[mask])
    assert (found.gap <= 1e-5 * torch.where(mask, A.abs(), 0).amax((1, 2))).all()
    assert found.gap.min() >= -1e-12
    assert found.iterations.max() <= 10


def test_the_dual_matrices_prove_the_gap_by_weak_duality_alone():
    A, mask = matrices(100, 0.4)
    found = complete(A, mask)
    assert torch.equal(found.Y[~mask], torch.zeros_like(found.Y[~mask]))
    assert torch.linalg.matrix_norm(found.Y, 2).max() <= 1 + 1e-12
    torch.testing.assert_close(nuclear(found.X) - (A * found.Y).sum((1, 2)), found.gap, atol=1e-12, rtol=0)


def test_a_certificate_holds_for_any_dual_matrix():
    """Whatever Y is handed in, the gap it yields is at least the true distance to the optimum."""
    A, mask = matrices(50, 0.3)
    best = complete(A, mask, tol=1e-9)
    worse = torch.where(mask, A, best.X + 0.1 * torch.randn(A.shape, generator=torch.Generator().manual_seed(1)))
    Y = 3 * torch.randn(A.shape, generator=torch.Generator().manual_seed(2)).double()
    for dual in (Y, best.Y, torch.zeros_like(Y)):
        gap, feasible = certificate(A, mask, A.new_zeros(50), worse, dual)
        assert (gap >= nuclear(worse) - nuclear(best.X) - 1e-8).all()
        assert torch.linalg.matrix_norm(feasible, 2).max() <= 1 + 1e-12


@pytest.mark.parametrize("p", [0.1, 0.3, 0.6])
def test_constrained_agrees_with_cvxpy(p):
    A, mask = matrices(8, p, seed=3)
    ours, oracle = complete(A, mask), complete(A, mask, solver="cvxpy")
    assert oracle.gap.max() <= 1e-6
    difference = nuclear(ours.X) - nuclear(oracle.X)
    assert difference.abs().max() <= 1e-4
    assert (difference <= ours.gap + 1e-6).all()
    assert (-difference <= oracle.gap + 1e-12).all()
    # Along flat directions Clarabel itself can be 1e-3 off in an entry, and beyond p = 0.3 minimisers need not be unique.
    if p <= 0.3:
        assert (ours.X - oracle.X).abs().amax((1, 2)).median() <= 1e-3


@pytest.mark.parametrize("lam", [1e-3, 1e-2, 0.3])
def test_regularised_agrees_with_cvxpy(lam):
    A, mask = matrices(8, 0.3, m=6, n=8, seed=4)
    ours, oracle = regularised(A, mask, lam), regularised(A, mask, lam, solver="cvxpy")

    def objective(X):
        return ((X - A).square() * mask).sum((1, 2)) / mask.sum((1, 2)) + lam * nuclear(X)

    assert oracle.gap.max() <= 1e-6
    assert ours.gap.max() <= 1e-5
    assert ((objective(ours.X) - objective(oracle.X)) / lam <= ours.gap + 1e-6).all()
    torch.testing.assert_close(ours.X, oracle.X, atol=1e-3, rtol=0)


@pytest.mark.parametrize("lam", [None, 5e-3])
def test_agrees_with_admm_written_literally(lam):
    A, mask = matrices(20, 0.2, m=5, n=6, seed=5)
    ours = complete(A, mask, tol=1e-8) if lam is None else regularised(A, mask, lam, tol=1e-8)
    torch.testing.assert_close(ours.X, admm(A, mask, lam), atol=1e-4, rtol=0)


def test_an_answer_that_is_not_optimal_is_never_passed_on(monkeypatch):
    import cvxpy

    A, mask = matrices(1, 0.3)
    nuclear_norm_cvxpy.problem(7, 7, True)
    monkeypatch.setattr(cvxpy.Problem, "status", "optimal_inaccurate")
    with pytest.raises(RuntimeError, match="optimal_inaccurate"):
        complete(A, mask, solver="cvxpy")


@pytest.mark.parametrize(
    "solve", [complete, lambda A, mask: regularised(A, mask, 2e-3)], ids=["complete", "regularised"]
)
def test_transposed_problem_has_the_transposed_solution(solve):
    A, mask = matrices(50, 0.2, m=5, n=8)
    X, transposed = solve(A, mask).X, solve(A.mT.contiguous(), mask.mT.contiguous()).X
    torch.testing.assert_close(transposed.mT, X, atol=1e-3, rtol=0)


def test_nothing_observed_gives_zero_and_everything_observed_gives_a():
    A, mask = matrices(10, 0.3)
    none, every = torch.zeros_like(mask), torch.ones_like(mask)
    assert torch.equal(complete(A, none).X, torch.zeros_like(A))
    assert torch.equal(regularised(A, none, 0.1).X, torch.zeros_like(A))
    assert torch.equal(complete(A, every).X, A)


def test_an_empty_row_or_column_stays_zero():
    A, mask = matrices(20, 0.3)
    mask[:, 2, :], mask[:, :, 5] = False, False
    X = complete(A, mask).X
    assert X[:, 2, :].abs().max() <= 1e-12
    assert X[:, :, 5].abs().max() <= 1e-12


def test_regularised_tends_to_constrained_and_to_zero():
    A, mask = matrices(50, 0.3)
    exact = complete(A, mask, tol=1e-8).X
    distance = [(regularised(A, mask, lam, tol=1e-8).X - exact).abs().max().item() for lam in (1e-2, 1e-4, 1e-6)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] <= 1e-3
    # Zero is optimal from lam = 2 ||mask A||_2 / |mask| on, where Y = mask A / c is feasible.
    threshold = 2 * torch.linalg.matrix_norm(A * mask, 2) / mask.sum((1, 2))
    assert regularised(A, mask, 1.5 * threshold.max().item()).X.abs().max() <= 1e-4
    assert regularised(A, mask, 0.5 * threshold.min().item()).X.abs().amax((1, 2)).min() > 1e-2


def test_closed_form_when_everything_is_observed():
    """The proximal map: min ||X - A||_F^2 / N + lam ||X||_* soft-thresholds the singular values at lam N / 2."""
    A, _ = matrices(50, 0.0, m=5, n=7)
    X = regularised(A, torch.ones_like(A), 0.02, tol=1e-9).X
    torch.testing.assert_close(X, shrunk(A, 0.02 * 35 / 2), atol=1e-5, rtol=0)


def test_scale_of_the_matrix_only_scales_the_answer():
    A, mask = matrices(30, 0.3)
    plain = complete(A, mask, tol=1e-6)
    for scale in (1e-30, 1e-6, 2.0**-13, 1e-4, 1e6):
        found = complete(scale * A, mask, tol=1e-6)
        assert found.gap.max() <= 1e-6 * scale * A.abs().max()
        torch.testing.assert_close(found.X / scale, plain.X, atol=1e-5, rtol=0)
    assert torch.equal(complete(A / 1024, mask, tol=1e-6).X * 1024, plain.X)


def test_batches_are_independent_and_repeatable():
    A, mask = matrices(150, 0.4)
    whole, again = complete(A, mask), complete(A, mask)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    alone = complete(A[7:8], mask[7:8])
    assert alone.X.shape == (1, 7, 7)
    torch.testing.assert_close(alone.X[0], whole.X[7], atol=1e-8, rtol=0)


def test_float32_and_numeric_masks_are_accepted_and_hidden_values_never_read():
    A, mask = matrices(20, 0.3)
    reference = complete(A.float().double(), mask)
    hidden_nan = torch.where(mask, A.float(), torch.nan)
    found = complete(hidden_nan, mask.float())
    assert found.X.dtype == torch.float64
    assert torch.equal(found.X, reference.X)


@pytest.mark.parametrize("solver", ["interior_point", "cvxpy"])
def test_a_tolerance_beyond_rounding_ends_with_an_honest_gap(solver):
    A, mask = matrices(10, 0.3)
    found = complete(A, mask, tol=1e-30, solver=solver)
    assert found.X.isfinite().all()
    assert found.gap.max() <= 1e-6


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda A, mask: complete(A, mask[:, :-1]), "expected one"),
        (lambda A, mask: complete(A[0], mask[0]), r"\(7, 7\)"),
        (lambda A, mask: complete(A[:0], mask[:0]), "none of them 0"),
        (lambda A, mask: complete(A * torch.nan, mask), "NaN"),
        (lambda A, mask: complete(A / 0.0, mask), "infinite"),
        (lambda A, mask: complete(A, mask, tol=0.0), "tol is 0.0"),
        (lambda A, mask: complete(A, mask, solver="scs"), "'scs'; expected interior_point or cvxpy"),
        (lambda A, mask: regularised(A, mask, 0.0), "lam is 0.0"),
    ],
)
def test_wrong_input_is_told(change, message):
    with pytest.raises(ValueError, match=message):
        change(*matrices(2, 0.3))


# p: MSE, L_mask, mean nuclear norm less the truth's, and the standard error of the MSE, on 256 matrices of
# another sample, solved by that ADMM.
TABLE = {
    0.10: (5.1e-4, 0.0051, 4.367 - 4.381, 1.3e-4),
    0.20: (3.6e-3, 0.0180, 4.323 - 4.381, 4.8e-4),
    0.30: (0.0116, 0.0392, 4.234 - 4.381, 0.0012),
    0.40: (0.0257, 0.0654, 4.092 - 4.381, 0.0020),
    0.50: (0.0544, 0.1096, 3.847 - 4.381, 0.0030),
    0.60: (0.0912, 0.1521, 3.492 - 4.381, 0.0038),
}


@pytest.mark.parametrize("p", TABLE)
def test_reference_table(p):
    """Within 4 standard errors of the difference, our sample having its own."""
    mse, hidden, norm, error = TABLE[p]
    A, mask = matrices(512, p, seed=6)
    X = complete(A, mask).X
    ours, ours_error = mean_and_error((X - A).square().mean((1, 2)))
    tolerance = 4 * (error**2 + ours_error**2) ** 0.5
    assert abs(ours - mse) <= tolerance
    assert abs((X - A).square()[~mask].mean().item() - hidden) <= tolerance / p
    fall, fall_error = mean_and_error(nuclear(X) - nuclear(A))
    assert abs(fall - norm) <= 4 * 3**0.5 * fall_error  # theirs, of half as many matrices, has twice the variance


# lam: L_obs, L_mask, L at p = 0.3 on 256 matrices of another sample, solved by that ADMM.
REGULARISED = {5e-4: (1.0e-5, 0.0376, 0.0111), 2e-3: (1.37e-4, 0.0383, 0.0114), 1e-2: (2.88e-3, 0.0478, 0.0161)}


@pytest.mark.parametrize("lam", REGULARISED)
def test_reference_table_of_the_regularised_form(lam):
    A, mask = matrices(512, 0.3, seed=7)
    error = (regularised(A, mask, lam).X - A).square()
    for region, weight, expected in zip((mask, ~mask, mask | True), (0.7, 0.3, 1.0), REGULARISED[lam], strict=True):
        _, per_matrix_error = mean_and_error((error * region).mean((1, 2)) / weight)
        assert abs(error[region].mean().item() - expected) <= 4 * 3**0.5 * per_matrix_error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_same_matrices():
    A, mask = matrices(300, 0.3)
    found = complete(A.cuda(), mask.cuda())
    assert found.gap.max() <= 1e-5
    torch.testing.assert_close(found.X.cpu(), complete(A, mask).X, atol=1e-6, rtol=0)
