"""Interior-point method for batches of nuclear-norm problems: three to six steps for every matrix, so there is no slow tail.

The pair of `nuclear_norm` as a semidefinite programme, with X = A - cY on the mask and Y = 0 off it:

    Z = [[P, X], [X^T, Q]] >= 0,   S = [[I, -Y], [-Y^T, I]] >= 0,   trace(ZS) / 2 >= ||X||_* - <X, Y>

The central path ZS = mu I leads to the optimum as mu goes to 0. A step takes the symmetrised direction of Helmberg et al.,
Kojima et al. and Monteiro, with one Newton matrix of mn rows. Building and factorising it is what costs, so it serves several
passes: each puts the second-order term of the pass before back on the right (Mehrotra's corrector, repeated), and the step
can then go almost all the way to a hundredth of the gap.
"""

import torch
from torch import Tensor

TARGET = 0.01  # a step aims at this share of the gap
PASSES = 5  # with 4 to 6 the time is the same within a tenth: fewer passes, more steps
LENGTHS = [1.0, 0.98, 0.96, 0.94, 0.92, 0.88, 0.8, 0.6, 0.3, 0.1, 0.01]
INTERIOR = 0.99  # share of the way to the boundary that a shortened step may go
CAUTIOUS = 0.3  # after a step shorter than this: aim at half the gap, and leave second-order terms out
MAX_STEPS = 40


def solve(A: Tensor, mask: Tensor, c: Tensor, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """X, Y (B, m, n) with trace(ZS)/2 <= tol, and the steps taken (B,); A is 0 off the mask, c: (B,).

    Finished problems leave the batch. One that rounding stops above tol (below about 1e-9 of A) stays for MAX_STEPS.
    """
    B, m, _ = A.shape
    scale = torch.linalg.matrix_norm(A, 2)
    scale = torch.where(scale > 0, scale, 1.0)
    A, c, tol = A / scale[:, None, None], c / scale, tol / scale
    Z, Y = _start(A, c[:, None, None])
    X, dual = torch.zeros_like(A), torch.zeros_like(A)
    steps = torch.zeros(B, dtype=torch.long, device=A.device)
    active, length = torch.arange(B, device=A.device), A.new_ones(B, 1, 1)
    for step in range(MAX_STEPS + 1):
        gap = Z.diagonal(0, 1, 2).sum(1) / 2 - (Z[:, :m, m:] * Y).sum((1, 2))
        done = (gap <= tol) | (step == MAX_STEPS)
        left, out = ~done, active[done]
        X[out], dual[out], steps[out] = Z[done, :m, m:], Y[done], step
        active, mask, c, tol, gap, length, Z, Y = (t[left] for t in (active, mask, c, tol, gap, length, Z, Y))
        if not len(active):
            break
        Z, Y, length = _step(Z, Y, mask, c, gap, length > CAUTIOUS)
    return X * scale[:, None, None], dual, steps


def _start(A: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Strictly feasible Z (B, m+n, m+n) and Y (B, m, n) for A of spectral norm 1, c: (B, 1, 1).

    Y is 0.9 A where c = 0, and less elsewhere; X = A - cY; P and Q are the roots of XX^T + 0.01 I and X^T X + 0.01 I.
    """
    m, n = A.shape[1:]
    Y = 0.9 / (1 + c) * A
    X = A - c * Y
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    excess = ((s.square() + 0.01).sqrt() - 0.1)[:, None]
    Z = _off_diagonal(X) + 0.1 * torch.eye(m + n, dtype=A.dtype, device=A.device)
    Z[:, :m, :m] += U * excess @ U.mT
    Z[:, m:, m:] += Vh.mT * excess @ Vh
    return Z, Y


def _step(Z: Tensor, Y: Tensor, mask: Tensor, c: Tensor, gap: Tensor, bold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Z, Y (still strictly feasible) and the length of one step towards ZS = mu I; bold: (B, 1, 1)."""
    B, m, n = Y.shape
    S = torch.eye(m + n, dtype=Z.dtype, device=Z.device) - _off_diagonal(Y)
    W = torch.cholesky_inverse(torch.linalg.cholesky_ex(S)[0])
    R = torch.linalg.cholesky_ex(_newton_matrix(Z, W, mask, c), upper=True)[0]
    mu = torch.where(bold, TARGET, 0.5) * (2 / (m + n) * gap)[:, None, None]
    # (Z + dZ)(S + dS) = mu I, times W and symmetrised:  dZ = mu W - Z - sym(Z dS W) - sym(dZ dS W).  E is dS W / 2.
    linear = residual = mu * W - Z
    for _ in range(PASSES):
        half = residual[:, :m, m:].reshape(B, m * n, 1)
        half = torch.linalg.solve_triangular(R.mT, half, upper=False)
        half = torch.linalg.solve_triangular(R, half, upper=True).view(B, m, n)
        E = _off_diagonal(half) @ W
        first = Z @ E
        dZ = residual - first - first.mT
        second = dZ @ (E * bold)
        residual = linear - second - second.mT
    dY = -2 * half
    length = _length(torch.stack((Z, S)), torch.stack((dZ, _off_diagonal(-dY))))
    # A length of 0 also stands for a direction that is not finite.
    Z, Y = (torch.where(length > 0, T + length * dT, T) for T, dT in ((Z, dZ), (Y, dY)))
    return Z, Y, length


def _newton_matrix(Z: Tensor, W: Tensor, mask: Tensor, c: Tensor) -> Tensor:
    """Twice the map from dY to sym(Z D W) + c dY, D = [[0, dY], [dY^T, 0]], on the upper right block: (B, mn, mn).

    Between the cells (i, j) and (k, l) stands P_ik H_jl + G_ik Q_jl + X_il K_kj + K_il X_kj, where W = [[G, K], [K^T, H]].
    """
    B, m, n = mask.shape

    def expanded(T: Tensor) -> list[Tensor]:
        """T_ik, T_il over (B, i, 1, kl), then T_jk, T_jl over (B, 1, j, kl): the long last axis makes products quick."""
        over_kl = [t.expand(B, m + n, m, n).reshape(B, m + n, m * n) for t in (T[:, :, :m, None], T[:, :, None, m:])]
        return [t[:, :m, None] for t in over_kl] + [t[:, None, m:] for t in over_kl]

    P, X, X_t, Q = expanded(Z)
    G, K, K_t, H = expanded(W)
    matrix = (P * H).addcmul_(G, Q).addcmul_(X, K_t).addcmul_(K, X_t).view(B, m * n, m * n)
    # A huge diagonal holds dY at 0 off the mask, cheaper than gathering the other rows.
    matrix.diagonal(0, 1, 2).add_(torch.where(mask, 2 * c[:, None, None], 1e30).flatten(1))
    return matrix


def _length(cones: Tensor, direction: Tensor) -> Tensor:
    """The first of LENGTHS (B, 1, 1) that leaves both cones + length * direction (2, B, N, N) positive definite, or 0."""
    length = cones.new_zeros(cones.shape[1])
    left = torch.arange(len(length), device=cones.device)
    for a in LENGTHS:
        reach = 1.001 if a == 1 else a / INTERIOR
        outside = torch.linalg.cholesky_ex(cones[:, left] + reach * direction[:, left])[1].any(0)
        length[left[~outside]] = a
        left = left[outside]
        if not len(left):
            break
    return length[:, None, None]


def _off_diagonal(Y: Tensor) -> Tensor:
    """[[0, Y], [Y^T, 0]]."""
    B, m, n = Y.shape
    T = Y.new_zeros(B, m + n, m + n)
    T[:, :m, m:], T[:, m:, :m] = Y, Y.mT
    return T
