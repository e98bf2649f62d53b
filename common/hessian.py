"""The Hessian of a loss without the matrix: products with it, extreme eigenvalues by Lanczos, its trace by Hutchinson.

The loss is whatever was trained, as a function of the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass
class Spectrum:
    """Both ends of a symmetric matrix's spectrum, in float64, with the residual ||Hv - theta v|| of every value theta.

    Some eigenvalue lies within the residual of theta. A repeated eigenvalue may show once.
    """

    top: Tensor
    """The k largest (k,), largest first."""
    top_residuals: Tensor
    lowest: Tensor
    """The k smallest (k,), smallest first."""
    lowest_residuals: Tensor
    iterations: int
    """Products with the matrix, which is also the dimension of the Krylov space."""
    converged: bool
    """Whether all residuals are within the tolerance."""


def hessian_product(loss: Callable[[dict[str, Tensor]], Tensor], params: dict[str, Tensor]) -> tuple[Product, int]:
    """v -> Hv for v (P,) in the order of `params`, and P.

    The gradient is computed once, each product is one backward pass through it. In float32 params products are good to about
    1e-6 of ||H||; give float64 params for more.
    """
    leaves = {n: p.detach().requires_grad_() for n, p in params.items()}
    tensors = list(leaves.values())
    # Not torch.func: its second derivatives by a LayerNorm's gain and input together are wrong (PyTorch 2.13).
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(leaves), tensors, create_graph=True, materialize_grads=True)
        gradient = torch.cat([g.flatten() for g in gradients])

    def product(v: Tensor) -> Tensor:
        parts = torch.autograd.grad(gradient, tensors, v.to(gradient), retain_graph=True, materialize_grads=True)
        return torch.cat([p.flatten() for p in parts])

    return product, len(gradient)


def lanczos(
    product: Product, size: int, k: int, iterations: int, generator: torch.Generator, tolerance: float = 1e-6
) -> Spectrum:
    """Both ends of the spectrum of a symmetric matrix, given v -> Av for v (size,) in float64 on the CPU.

    Full reorthogonalisation; at most `iterations` products, fewer once the residuals of all 2k values are within tolerance
    times the largest magnitude, and `size` at most. Raises ValueError unless 1 <= k <= size and k <= iterations.
    """
    if not 1 <= k <= min(size, iterations):
        raise ValueError(
            f"found k {k}, expected 1 .. {min(size, iterations)} for {size} weights, {iterations} iterations"
        )
    steps = min(size, iterations)
    basis = torch.empty(steps, size, dtype=torch.float64)
    diagonal, beside = torch.zeros(2, steps, dtype=torch.float64)
    basis[0] = _orthogonal(basis[:0], generator)
    for step in range(steps):
        image = product(basis[step]).detach().to("cpu", torch.float64)
        if not image.isfinite().all():
            raise ValueError(f"found a product that is not finite at iteration {step + 1}; is the loss finite?")
        known = basis[: step + 1]
        diagonal[step] = image @ basis[step]
        rest = _without(known, image)
        beside[step] = rest.norm()
        spectrum = _ends(diagonal[: step + 1], beside[: step + 1], k, tolerance)
        if spectrum.converged or step + 1 == steps:
            return spectrum
        # In an invariant subspace nothing is left: go on outside it.
        if beside[step] <= 1e-13 * (diagonal.abs() + beside).max():
            beside[step], rest = 0, _orthogonal(known, generator)
        basis[step + 1] = rest / rest.norm()


def _without(known: Tensor, v: Tensor) -> Tensor:
    """v without its components along the rows of `known` (j, size); the second pass removes rounding errors of the first."""
    for _ in range(2):
        v = v - known.T @ (known @ v)
    return v


def _orthogonal(known: Tensor, generator: torch.Generator) -> Tensor:
    """A random unit vector orthogonal to the rows of `known`."""
    v = _without(known, torch.randn(known.shape[1], dtype=torch.float64, generator=generator))
    return v / v.norm()


def _ends(diagonal: Tensor, beside: Tensor, k: int, tolerance: float) -> Spectrum:
    """Ritz values of a tridiagonal matrix (j, j); beside[-1] is the norm of what its last vector leads out of the space by."""
    values, vectors = torch.linalg.eigh(diagonal.diag() + beside[:-1].diag(1) + beside[:-1].diag(-1))
    residuals = beside[-1] * vectors[-1].abs()
    top, low = (x[-k:].flip(0) for x in (values, residuals)), (x[:k] for x in (values, residuals))
    worst = torch.cat([residuals[-k:], residuals[:k]]).max()
    converged = len(values) >= k and bool(worst <= tolerance * values.abs().max())
    return Spectrum(*top, *low, iterations=len(values), converged=converged)


def trace(product: Product, size: int, probes: int, generator: torch.Generator) -> tuple[float, float]:
    """Trace of a symmetric matrix and its standard error, given v -> Av for v (size,) in float64 on the CPU.

    The mean over probes of v . Av with v random signs (Hutchinson 1989); NaN as error of a single probe.
    """
    values = []
    for _ in range(probes):
        signs = 2 * torch.randint(2, (size,), generator=generator).double() - 1
        values.append(float(signs @ product(signs).detach().to("cpu", torch.float64)))
    told = torch.tensor(values, dtype=torch.float64)
    return float(told.mean()), float(told.std() / probes**0.5) if probes > 1 else float("nan")
