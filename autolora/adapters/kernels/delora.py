"""DeLoRA's forward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer
from autolora.adapters.subtraction import weight_matrix

SMALLEST_NORM = 1e-4
"""Below it a direction counts as of this length, as in PEFT: one that training takes to 0 has none."""
START_A, START_B = "start_A", "start_B"
"""The frozen copy of the start: A0, each row over |a_i| |b_i|, and B0."""


class Bounded(Branch):
    """lambda / r (B Xi A - B0 Xi0 A0) (w o x), with Xi = diag(1 / (|a_i| |b_i|)); w goes to A.

    Args:
        layer: at its start, whose base weight stays as it is. It gets w, (n,), as a buffer, and the frozen copy of A
            and B.
    """

    takes_half = True

    def __init__(self, layer: AdaptedLayer) -> None:
        norms = weight_matrix(layer.base_layer).norm(dim=0)
        layer.module.register_buffer("column_norms", norms, persistent=False)
        for name, value in ((START_A, _normalized(layer)), (START_B, layer.b)):
            layer.give(name, value.detach().clone()).requires_grad_(False)

    def factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """A (2r, n) and B (m, 2r) of a plain LoRA that does the same at s = 1: the start is its second half."""
        down, up = self._directions(layer), (layer.b, -layer.given(START_B))
        return self._strength(layer) * torch.cat(down), torch.cat(up, dim=1)

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        # Apart, since of the frozen copy no gradient is needed.
        moved, start = (self._strength(layer) * linear(x, down) for down in self._directions(layer))
        return layer.times_b(moved) - linear(start, layer.given(START_B))

    def _directions(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """Xi A diag(w) and Xi0 A0 diag(w), each (r, n)."""
        norms = layer.module.get_buffer("column_norms")
        return _normalized(layer) * norms, layer.given(START_A) * norms

    def _strength(self, layer: AdaptedLayer) -> Tensor:
        """lambda / r."""
        return layer.given("bound") / len(layer.a)


def _normalized(layer: AdaptedLayer) -> Tensor:
    """Xi A, (r, n)."""
    a, b = layer.a, layer.b
    lengths = a.norm(dim=1).clamp(min=SMALLEST_NORM) * b.norm(dim=0).clamp(min=SMALLEST_NORM)
    normalized: Tensor = a / lengths.unsqueeze(1)
    return normalized
