"""DeLoRA's forward pass."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear

from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer
from autolora.adapters.subtraction import weight_matrix

SMALLEST_NORM = 1e-4
"""Below it a direction counts as of this length, as in PEFT, so that B may start at 0."""


class Bounded(Branch):
    """B Xi A (w o x), in two products: Xi and w go to A.

    Args:
        layer: freshly injected, whose base weight stays as it is. It gets w, (n,), as a buffer.
    """

    def __init__(self, layer: AdaptedLayer) -> None:
        norms = weight_matrix(layer.base_layer).norm(dim=0)
        layer.module.register_buffer("column_norms", norms, persistent=False)

    def directions(self, layer: AdaptedLayer) -> Tensor:
        """Xi A diag(w), (r, n)."""
        a, b = layer.a, layer.b
        norms = _length(a, 1) * _length(b, 0)
        return (layer.given("bound") / (len(a) * norms)).unsqueeze(1) * a * layer.module.get_buffer("column_norms")

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        return layer.times_b(linear(x, self.directions(layer)))


def _length(directions: Tensor, dim: int) -> Tensor:
    """Not ``norm().clamp()``, whose second derivative at B = 0 is not finite."""
    return directions.square().sum(dim).clamp(min=SMALLEST_NORM**2).sqrt()
