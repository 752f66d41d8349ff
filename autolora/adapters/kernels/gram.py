"""Gram matrices of factors, (..., r, r), damped relative to their size; zero Grams among them.

Nothing here raises: what is not finite, or not invertible, shows as non-finite numbers, as divergence does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_gram(gram: Tensor, damping: float) -> Tensor:
    """(gram + damping * mean diagonal * I)^-1; I where the Gram is 0, and so all that its inverse multiplies.

    It does not wait for the device.
    """
    relative, size, empty = _relative(gram)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    inverse: Tensor = torch.linalg.inv_ex(relative + (damping + empty) * identity).inverse
    return inverse / size


def eigen_gram(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., r) and eigenvectors (..., r, r) of what :func:`inverse_gram` inverts.

    On an accelerator it waits for the device, once for the whole batch.
    """
    relative, size, empty = _relative(gram)
    # LAPACK raises on what is not finite.
    finite = relative.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    values, vectors = torch.linalg.eigh(torch.where(finite, relative, 0))
    values = (values.clamp(min=0) + (damping + empty[..., 0])) * size[..., 0]
    return torch.where(finite[..., 0], values, torch.nan), vectors


def _relative(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Gram over its mean diagonal; that, (..., 1, 1), and 1 for it where it is 0; and where it is, as 1 or 0."""
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    empty = (size == 0).to(gram.dtype)
    size = size + empty
    return gram / size, size, empty
