"""The curvature of one layer's {A, B} at initialization, from the statistics of one pass (K-FAC, arXiv 1503.05671).

With dW = s (B0 dA + dB A0), the loss changes to second order by

    1/2 tr(S_g dW S_x dW^T) + s <G, dB dA>,

the curvature of W, approximated by S_g (x) S_x, and the exact curvature of the product B A. All of it is known for
every variant, rank and alpha once S_x, S_g and G are, so no further pass over data is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from autolora.priors.lanczos import largest_eigenvalue

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.statistics import LayerStatistics

DENSE = 512
"""Largest matrix whose eigenvalues are computed all at once; of a larger one Lanczos finds the largest."""


@dataclass(frozen=True)
class Start:
    """Where an adapter starts: A0 (r, n), B0 (m, r), and s of y = W x + s B A x."""

    a: Tensor
    b: Tensor
    scaling: float


@dataclass(frozen=True)
class KfacBlock:
    """Predicts one layer's curvature under any start; what does not depend on the start is computed once."""

    statistics: LayerStatistics

    def curvature(self, start: Start) -> float:
        """lambda_max of the 2 x 2 matrix of the blocks' own largest values.

        A-A is s^2 lambda_max(B0^T S_g B0) lambda_max(S_x), B-B is s^2 lambda_max(A0 S_x A0^T) lambda_max(S_g), and the
        cross term, of the product B A, s sigma_max(G).
        """
        s, inputs, outputs = start.scaling, self.statistics.inputs, self.statistics.outputs
        a, b = start.a.detach().to(inputs), start.b.detach().to(outputs)
        block_a = s * s * _largest(b.T @ outputs @ b) * self._of_inputs
        block_b = s * s * _largest(a @ inputs @ a.T) * self._of_outputs
        cross = s * self._of_gradient
        return 0.5 * (block_a + block_b + float(((block_a - block_b) ** 2 + 4 * cross**2) ** 0.5))

    @cached_property
    def _of_inputs(self) -> float:
        return _largest(self.statistics.inputs)

    @cached_property
    def _of_outputs(self) -> float:
        return _largest(self.statistics.outputs)

    @cached_property
    def _of_gradient(self) -> float:
        gradient = self.statistics.gradient
        wide = gradient if gradient.shape[0] <= gradient.shape[1] else gradient.T
        return float(max(_largest(wide @ wide.T), 0.0) ** 0.5)


def _largest(matrix: Tensor) -> float:
    """Largest eigenvalue of a positive semi-definite matrix."""
    import torch

    if len(matrix) <= DENSE:
        return float(torch.linalg.eigvalsh(matrix.cpu())[-1])  # not every accelerator has it
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)).to(matrix)
    return largest_eigenvalue(lambda vector: matrix @ vector, start, tolerance=1e-2).value
