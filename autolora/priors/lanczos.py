"""The largest eigenvalue of a symmetric operator that is known only by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from torch import Tensor


class LanczosError(AutoloraError, ArithmeticError):
    """The operator gave a value that is not finite."""


class Eigenpair(NamedTuple):
    """Attributes:
    value: the algebraically largest eigenvalue.
    vector: its eigenvector, (size,), of norm 1.
    residual: norm of H v - value v; the true eigenvalue is within it.
    products: how many products it took.
    """

    value: float
    vector: Tensor
    residual: float
    products: int


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-3, products: int = 64
) -> Eigenpair:
    """Lanczos with full re-orthogonalization, twice at every step (Parlett, The Symmetric Eigenvalue Problem, ch. 13).

    Not power iteration: at B = 0 the joint Hessian of {A, B} has a spectrum nearly symmetric about 0, where "largest
    in magnitude" is not defined; this finds the algebraically largest.

    Args:
        product: v (size,) to H v, H symmetric.
        start: (size,), with a part along the wanted eigenvector: random.
        tolerance: stop once the residual of the Ritz pair is below this share of its value. Then an eigenvalue is that
            close; that it is the largest needs some more products than that, so do not be generous.
        products: the most that are made.

    Raises:
        LanczosError: a product is not finite.
    """
    import torch

    basis = [start / start.norm()]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    while True:
        image = product(basis[-1])
        if not bool(torch.isfinite(image).all()):
            raise LanczosError(f"product {len(diagonal) + 1} of the operator is not finite")
        diagonal.append(float(image @ basis[-1]))
        span = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that bring spurious copies of the largest eigenvalue
            image = image - span.T @ (span @ image)
        beta = float(image.norm())
        value, weights = _largest_ritz(diagonal, off_diagonal)
        residual = beta * abs(float(weights[-1]))
        exhausted = beta <= 1e-7 * max(map(abs, diagonal)) or len(basis) == len(start)
        if residual <= tolerance * abs(value) or exhausted or len(basis) == products:
            vector = weights.to(span) @ span
            return Eigenpair(value, vector / vector.norm(), residual, len(basis))
        off_diagonal.append(beta)
        basis.append(image / beta)


def _largest_ritz(diagonal: list[float], off_diagonal: list[float]) -> tuple[float, Tensor]:
    """Largest eigenvalue and eigenvector of the symmetric tridiagonal matrix."""
    import torch

    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off_diagonal:
        beside = torch.tensor(off_diagonal, dtype=torch.float64)
        matrix += torch.diag(beside, 1) + torch.diag(beside, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return float(values[-1]), vectors[:, -1]
