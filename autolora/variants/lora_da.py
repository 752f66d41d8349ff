"""LoRA-DA (arXiv 2510.24561): the subspace of least expected error, from K-FAC's Fisher factors.

G is the gradient, Z = mean x x^T and Y = diag(mean g^2) over the tokens of a sample of N target tokens.
D = -Z^-1 G^T Y^-1 (n, m) over its largest singular value sigma; the rows of A are the r eigenvectors of

    Omega = (beta / N) (tr Y^-1 / sigma^2) Z^-1 - D D^T

of the smallest eigenvalues, B = (A D)^T, both over sqrt(gamma); not subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers
from autolora.adapters.factors import curvature_factors, extreme_eigenvectors, precise
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.statistics import FisherFactors


@dataclass(frozen=True)
class LoraDA(Variant):
    """Attributes:
    beta: weight of the variance that comes of N being finite, against the bias of leaving the gradient's directions.
    gamma: the start's size is 1/gamma of the normalized step D.
    damping: added to the diagonals of Z and Y, relative to their means. The paper adds it as it is, to factors of its
        own scale.
    """

    beta: float = 0.03
    gamma: float = 1024.0
    damping: float = 1e-6

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        layers = start.layers
        guide = Guidance(self.beta, self.damping)
        root = self.gamma**0.5
        factors = curvature_factors(*frozen_layers(start.model), start.sample, rank, guide)
        for name, (directions, steps) in factors.items():
            if steps.any():  # where no gradient reaches the layer plain LoRA's start is as good
                layers[name].set_factors(directions[:rank] / root, steps[:, :rank] / root)


@dataclass(frozen=True)
class Guidance:
    """Eigenvectors of Omega, the smallest eigenvalue first, as rows (k, n), and what of D lies along them, (m, k)."""

    beta: float
    damping: float

    def __call__(self, fisher: FisherFactors, weight: Tensor, components: int) -> tuple[Tensor, Tensor]:
        import torch

        m, n = fisher.gradient.shape
        if not fisher.gradient.any():
            return fisher.gradient.new_zeros(components, n), fisher.gradient.new_zeros(m, components)
        inputs = precise(fisher.inputs)
        inputs = inputs + self.damping * inputs.diagonal().mean() * torch.eye(n).to(inputs)
        outputs = precise(fisher.outputs)
        outputs = outputs + self.damping * outputs.mean()
        inverse = torch.linalg.inv(inputs)
        step = -(inverse @ precise(fisher.gradient).T) / outputs
        squared = extreme_eigenvectors(step @ step.T, 1, largest=True)[0]  # sigma^2
        step = step / squared.sqrt()
        variance = self.beta / fisher.targets * (1 / outputs).sum() / squared
        omega = variance * inverse - step @ step.T
        directions = extreme_eigenvectors((omega + omega.T) / 2, components, largest=False)[1]
        return directions.T.float(), (step.T @ directions).float()


register(
    LoraDA(
        name="lora_da",
        title="LoRA-DA",
        paper="arXiv 2510.24561",
        above_zero=("gamma", "damping"),
        cost=0.99,
        # No published best rate was found; the runs of studies/curves have it at LoRA's.
        traits=Traits(shift_sd=0.3, alpha_law=1.0),
        needs=("gradients", "activations"),
        moves_at_start=True,
    )
)
