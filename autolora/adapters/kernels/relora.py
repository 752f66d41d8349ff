"""ReLoRA's forward pass, and its AdamW that restarts at the phases' ends and warms up again (arXiv 2307.05695)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear

from autolora.adapters.groups import Group
from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer

ENDED_A, ENDED_B = "ended_A", "ended_B"
"""The frozen factors of ended phases, (k r - r, n) and (m, k r - r) for k phases; zeros for those to come."""


class Phased(Branch):
    """B A x, with what ended phases have learned beside it.

    Not merged into W: a base in bfloat16 keeps 8 bits, and a phase changes its weights by less.

    Args:
        layer: freshly injected. It gets the frozen factors.
        phases: k.
    """

    takes_half = True

    def __init__(self, layer: AdaptedLayer, phases: int) -> None:
        earlier = (phases - 1) * len(layer.a)
        shapes = {ENDED_A: (earlier, layer.in_features), ENDED_B: (layer.out_features, earlier)}
        for name, shape in shapes.items():
            layer.give(name, torch.zeros(shape)).requires_grad_(False)

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        ended = linear(linear(x, layer.given(ENDED_A)), layer.given(ENDED_B))
        return layer.times_b(layer.times_a(x)) + ended

    def factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """A (k r, n) and B (m, k r) of all phases together."""
        a, b = (layer.a, layer.given(ENDED_A)), (layer.b, layer.given(ENDED_B))
        return torch.cat(a), torch.cat(b, dim=1)

    @torch.no_grad()
    def end(self, layer: AdaptedLayer, phase: int) -> None:
        """Keep A and B as those of this phase, from 1."""
        own = slice((phase - 1) * len(layer.a), phase * len(layer.a))
        layer.given(ENDED_A)[own] = layer.a
        layer.given(ENDED_B)[:, own] = layer.b


class ReloraAdamW(torch.optim.AdamW):
    """AdamW in phases: after the last step of one its moments are zero and its bias correction starts over.

    Over the first ``warmup`` steps after a restart the learning rate climbs, evenly, to what the schedule says: the
    k-th has k / (warmup + 1) of it. ``param_groups`` hold the schedule's, as for any optimizer.

    State, beside AdamW's: the group's count of steps, ``taken``, and ``seed``.

    Args:
        restart: what the phase's end does to the model, given its number, from 1, and the seed.
        ends: numbers of the phases that end, by the step that is their last; the run's last phase is not among them.
        warmup: steps.
        seed: of what is drawn at a restart; a resumed run takes it from its state.
        groups, lr, weight_decay: AdamW's.
    """

    def __init__(
        self,
        restart: Callable[[int, int], None],
        ends: Mapping[int, int],
        warmup: int,
        seed: int,
        groups: list[Group],
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        groups = [{**group, "taken": 0, "seed": seed} for group in groups]
        super().__init__(groups, lr=lr, weight_decay=weight_decay, fused=True)
        self.restart, self.ends, self.warmup = restart, ends, warmup

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """AdamW's step, and where a phase ends with it the restart; returns the closure's loss."""
        scheduled = [group["lr"] for group in self.param_groups]
        share = self._share()
        for group in self.param_groups:
            group["lr"] *= share
        try:
            loss: float | None = super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, scheduled, strict=True):
                group["lr"] = rate
        for group in self.param_groups:
            group["taken"] += 1
        taken, seed = self.param_groups[0]["taken"], self.param_groups[0]["seed"]
        if taken in self.ends:
            self.restart(self.ends[taken], seed)
            self._forget()
        return loss

    def _share(self) -> float:
        """Of the schedule's learning rate that the next step takes."""
        taken = self.param_groups[0]["taken"]
        restarts = [end for end in self.ends if end <= taken]
        return min(1.0, (taken - max(restarts) + 1) / (self.warmup + 1)) if restarts else 1.0

    def _forget(self) -> None:
        for state in self.state.values():
            for tensor in state.values():
                tensor.zero_()
