"""Singular triplets from one end of a matrix's spectrum: exact, or of a large matrix by a random start.

A block Krylov space of W^T W (Musco and Musco, arXiv 1504.05477) grows until it holds the leading triplets. Unlike
subspace iteration it needs no gap in the spectrum, which the bulk of a weight's singular values does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Triplets = tuple[Tensor, Tensor, Tensor]

EXACT_WIDTH = 1024
"""Of matrices up to this size, the smaller of m and n, the whole SVD is computed. At 2048 it takes 8 to 76 s
on a CPU core (studies/variants/README.md), and that grows with the cube of the width."""
TOLERANCE = 1e-5
"""Residual of the triplets, relative to their size. That of their product U S V^T to the best of its rank is then below
1e-4, see studies/variants/svd.py."""
BLOCK = 32
"""Directions that the space grows by."""
DUST = 1e-15
"""Share of the matrix's squared norm that is below what float32 can tell apart."""
GROWTH = 1.3
"""How much larger the space is at each test for convergence, which takes an SVD of the space."""


def leading_svd(matrix: Tensor, components: int) -> Triplets:
    """U (m, k), singular values (k,) and V^T (k, n) of the k largest.

    Of a matrix wider than ``EXACT_WIDTH`` they are found to within ``TOLERANCE``, or else by the exact SVD. Its random
    start is the same every time. The same k gives the same bits on one machine, another k not.
    """
    found = krylov_svd(matrix, components) if min(matrix.shape) > EXACT_WIDTH else None
    u, values, vh = found or exact_svd(matrix)
    return u[:, :components], values[:components], vh[:components]


def trailing_svd(matrix: Tensor, components: int) -> Triplets:
    """U (m, k), singular values (k,) and V^T (k, n) of the k smallest, the smallest last; of the exact SVD."""
    u, values, vh = exact_svd(matrix)
    return u[:, -components:], values[-components:], vh[-components:]


def exact_svd(matrix: Tensor) -> Triplets:
    """The whole U, S, V^T, the largest first."""
    import torch

    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, values, vh


def krylov_svd(matrix: Tensor, components: int) -> Triplets | None:
    """At least the k leading triplets to within ``TOLERANCE``, the largest first.

    Returns:
        None if half of all directions do not suffice: then the exact SVD takes less.
    """
    import torch

    m, n = matrix.shape
    if m < n:
        found = krylov_svd(matrix.mT, components)
        return found and (found[2].mT, found[1], found[0].mT)
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(n, BLOCK, generator=generator, dtype=matrix.dtype).to(matrix.device)

    # Where a matrix of low rank has no direction left, new ones are random, and orthogonal to those before.
    dust = DUST * float(matrix.norm()) ** 2 or 1.0
    new = draw()
    basis, images = matrix.new_empty(n, 0), matrix.new_empty(m, 0)
    size = components + BLOCK  # at which to look next
    while size <= min(m, n) // 2:
        while basis.shape[1] < size:
            for _ in range(2):  # once leaves what rounding adds, of a matrix of low rank all there is
                new = torch.linalg.qr(new - basis @ (basis.mT @ new)).Q
            basis = torch.cat([basis, new], dim=1)
            image = matrix @ new
            images = torch.cat([images, image], dim=1)
            new = matrix.mT @ image + dust * draw()
        left, core = torch.linalg.qr(images)
        u, values, vh = exact_svd(core)
        u, values, v = left @ u[:, :components], values[:components], basis @ vh[:components].mT
        # matrix @ v is u * values by construction: what is missing shows on the other side.
        if torch.dist(matrix.mT @ u, v * values) <= TOLERANCE * values.norm():
            return u, values, v.mT
        size = int(GROWTH * basis.shape[1])
    return None
