"""The Hessian of one layer's {A, B} at initialisation, from the statistics of one pass (K-FAC, arXiv 1503.05671).

With dW = s (B0 dA + dB A0), the loss changes to second order by

    1/2 tr(S_g dW S_x dW^T) + s <G, dB dA>,

the curvature of W, approximated by S_g (x) S_x, and the exact curvature of the product B A. All of it is known for
every variant, rank and alpha once S_x, S_g and G are, so no further pass over data is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.variants.statistics import LayerStatistics


@dataclass(frozen=True)
class Start:
    """Where an adapter starts: A0 (r, n), B0 (m, r), and s of y = W x + s B A x."""

    a: Tensor
    b: Tensor
    scaling: float


def block_product(statistics: LayerStatistics, start: Start) -> tuple[Callable[[Tensor], Tensor], int]:
    """v = (dA, dB), flattened, to H v; and the size of v."""
    import torch

    inputs, outputs, gradient, a, b, s = _terms(statistics, start)
    outputs_b, a_inputs = outputs @ b, a @ inputs
    gram_b, gram_a = b.T @ outputs_b, a_inputs @ a.T

    def product(vector: Tensor) -> Tensor:
        da, db = vector[: a.numel()].view_as(a), vector[a.numel() :].view_as(b)
        image_a = s * s * (gram_b @ da @ inputs + (outputs_b.T @ db) @ a_inputs) + s * db.T @ gradient
        image_b = s * s * (outputs_b @ (da @ a_inputs.T) + outputs @ db @ gram_a) + s * gradient @ da.T
        return torch.cat([image_a.flatten(), image_b.flatten()])

    return product, a.numel() + b.numel()


def closed_form(statistics: LayerStatistics, start: Start) -> float:
    """lambda_max of the 2 x 2 matrix of the blocks' own largest values: A-A, B-B, and the cross term.

    A-A is s^2 lambda_max(B0^T S_g B0) lambda_max(S_x), B-B is s^2 lambda_max(A0 S_x A0^T) lambda_max(S_g), and the
    cross term of the product s sigma_max(G).
    """
    import torch

    inputs, outputs, gradient, a, b, s = _terms(statistics, start)
    block_a = s * s * _largest(b.T @ outputs @ b) * _largest(inputs)
    block_b = s * s * _largest(a @ inputs @ a.T) * _largest(outputs)
    cross = s * float(torch.linalg.matrix_norm(gradient, ord=2))
    return 0.5 * (block_a + block_b + ((block_a - block_b) ** 2 + 4 * cross**2) ** 0.5)


def _terms(statistics: LayerStatistics, start: Start) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]:
    inputs, outputs = statistics.inputs, statistics.outputs
    return inputs, outputs, statistics.gradient, start.a.detach().to(inputs), start.b.detach().to(inputs), start.scaling


def _largest(matrix: Tensor) -> float:
    import torch

    return float(torch.linalg.eigvalsh(matrix)[-1])
