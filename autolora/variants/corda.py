"""CorDA (arXiv 2406.05223): singular triplets of W seen through the covariance of the layer's inputs.

C = mean x x^T; W C = U S V^T; A = sqrt(S_r / s) V_r^T C^-1, B = U_r sqrt(S_r / s), subtracted from W. The top r
triplets adapt to the sample's task (instruction-previewed mode), training the last r preserves what it shows
(knowledge-preserved mode).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers
from autolora.adapters.factors import input_factors
from autolora.adapters.svd import leading_svd, trailing_svd
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.pissa import start_from_triplets
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start

DAMPING = 0.01
"""Added to C's diagonal, relative to its mean, and doubled until C can be inverted, as the authors do."""
INVERTED = 0.05
"""Largest Frobenius norm of C C^-1 - I that passes."""


@dataclass(frozen=True)
class Corda(Variant):
    """Instruction-previewed mode: what the sample uses most trains."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        factors = input_factors(*frozen_layers(start.model), start.sample, rank, _leading, few=True)
        start_from_triplets(
            start.model, {name: (u[:, :rank], s[:rank], vh[:rank]) for name, (u, s, vh) in factors.items()}
        )


@dataclass(frozen=True)
class CordaKpm(Variant):
    """Knowledge-preserved mode: what the sample uses least trains. The paper takes a sample of the knowledge to
    preserve; ``autolora tune`` passes its training sample, so pass another to ``attach`` for that purpose."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        factors = input_factors(*frozen_layers(start.model), start.sample, rank, _trailing)
        start_from_triplets(
            start.model, {name: (u[:, -rank:], s[-rank:], vh[-rank:]) for name, (u, s, vh) in factors.items()}
        )


def _leading(covariance: Tensor, weight: Tensor, components: int) -> tuple[Tensor, ...]:
    return _seen_through(covariance, weight, components, leading_svd)


def _trailing(covariance: Tensor, weight: Tensor, components: int) -> tuple[Tensor, ...]:
    return _seen_through(covariance, weight, components, trailing_svd)


def _seen_through(
    covariance: Tensor, weight: Tensor, components: int, svd: Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, ...]:
    damped, inverse = _invertible(covariance)
    u, values, vh = svd(weight @ damped, components)
    return u, values, vh @ inverse


def _invertible(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """C, damped and scaled to a mean diagonal of one, with its inverse. B A does not depend on C's scale, but how the
    product is shared between A and B does: the authors divide inputs by their largest value, this is even-handed."""
    import torch

    identity = torch.eye(len(covariance), device=covariance.device)
    mean = covariance.diagonal().mean()
    scaled = covariance / mean if mean > 0 else identity
    damping = DAMPING
    while True:
        damped = scaled + damping * identity
        inverse = torch.linalg.inv(damped)
        if torch.dist(damped @ inverse, identity) < INVERTED:
            return damped, inverse
        damping *= 2


# Both factors carry 1/sqrt(s), so p = 1/2 exactly and alpha is redundant under Adam, as for PiSSA and MiLoRA, whose
# shifts the two modes have in the runs of studies/curves: -0.5 and -0.1.
register(
    Corda(
        name="corda",
        title="CorDA (IPM)",
        paper="arXiv 2406.05223",
        cost=1.01,
        traits=Traits(exponent=0.5, shift=-0.4, shift_sd=0.3, alpha_redundant=True, alpha_law=1.0),
        needs=("activations",),
        export_form="rank 2r",
        subtracts=True,
    )
)
register(
    CordaKpm(
        name="corda_kpm",
        title="CorDA (KPM)",
        paper="arXiv 2406.05223",
        cost=1.00,
        traits=Traits(exponent=0.5, shift=-0.1, shift_sd=0.3, alpha_redundant=True, alpha_law=1.0),
        needs=("activations",),
        export_form="rank 2r",
        subtracts=True,
    )
)
