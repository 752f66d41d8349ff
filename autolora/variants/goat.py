"""GOAT (arXiv 2502.16894): LoRAMoE's mixture, each expert started from another stretch of W's spectrum.

W = U S V^T, its min(m, n) triplets cut into E equal segments; expert e takes the first r / E of segment e:
A_e = sqrt(S_e / (s rho)) V_e^T, B_e = U_e sqrt(S_e / (s rho)). W gives up (s / E) sum_e B_e A_e.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import anchor, frozen_layers
from autolora.adapters.factors import weight_factors
from autolora.adapters.svd import exact_svd
from autolora.space import Traits
from autolora.variants.loramoe import Loramoe
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Goat(Loramoe):
    """What is subtracted is the mixture's mean: gates that sum to 1 are 1/E each on average where the load is even.

    Of all matrices that one comes nearest to the mixture, and it is what the authors' runs subtract. Token by token
    the gates differ from it, so the outputs move at the start; rho keeps that small.

    Attributes:
        rho: what the start's singular values are divided by.
        balance: the authors weigh a *sum* over layers by 1e-3; for about 100 layers that is this mean's weight.
    """

    balance: float = 0.1
    rho: float = 10.0

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        experts, layers = self.count(rank), start.layers
        share = rank // experts
        starts = {}
        for name, factors in weight_factors(*frozen_layers(start.model), rank, SegmentedSvd(experts)).items():
            u, values, vh = factors[0][:, :, :share], factors[1][:, :share], factors[2][:, :share]
            root = (values / (layers[name].scaling * self.rho)).sqrt()
            starts[name] = (root[..., None] * vh).flatten(0, 1), (u * root).flatten(1)
        for name, (a, b) in starts.items():
            layers[name].set_factors(a, b)
        anchor(start.model, {name: (a, b / experts) for name, (a, b) in starts.items()})
        super().initialize(start)


@dataclass(frozen=True)
class SegmentedSvd:
    """Of W's triplets in this many equal segments, the largest first, the leading ones of each, k in all.

    As U (m, segments, c), singular values (segments, c) and V^T (segments, c, n), where c = k // segments.
    """

    segments: int

    def __call__(self, matrix: Tensor, components: int) -> tuple[Tensor, ...]:
        import torch

        segments = self.segments
        length = min(matrix.shape) // segments
        whole, kept, cut = segments * length, components // segments, (segments, length)
        u, values, vh = exact_svd(matrix)
        return (
            torch.unflatten(u[:, :whole], 1, cut)[:, :, :kept],
            torch.unflatten(values[:whole], 0, cut)[:, :kept],
            torch.unflatten(vh[:whole], 0, cut)[:, :kept],
        )


register(
    Goat(
        name="goat",
        title="GOAT",
        paper="arXiv 2502.16894",
        above_zero=("experts", "top_k", "rho"),
        cost=1.02,
        kind="architecture",
        constraints="r <= min(m, n), divisible by experts; top_k > 1",
        # Both factors carry 1/sqrt(s), so p = 1/2 exactly for them. The router knows no s and takes the rate as it is:
        # alpha decides how fast it learns beside them, and is not redundant as it is for PiSSA. The authors' own
        # s = sqrt(3 n E / r) is the law's times sqrt(E). Their rate on Llama-2-7B, 2e-5, which all their methods
        # share, lies 0.5 decades below LoRA's by the laws; PiSSA's best 0.4; studies/curves has it 0.2 above.
        traits=Traits(exponent=0.5, shift=0.0, shift_sd=0.4),
        export_form="own",
        subtracts=True,
        factored=False,
        own_forward=True,
        mixture=True,
        moves_at_start=True,
    )
)
