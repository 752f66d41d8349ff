"""AdaLoRA's forward pass, and AdamW that prunes its triplets on a schedule (arXiv 2303.10512)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autolora.adapters.groups import Group
from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer

SMOOTHING = 0.85
"""beta_1 and beta_2 of the paper, of the importance and its uncertainty."""


class Singular(Branch):
    """B (e o A x), e the layer's ``singular_values``."""

    takes_half = True

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        return layer.times_b(layer.times_a(x) * layer.given("singular_values"))


class Triplets(NamedTuple):
    """One layer's A (R, n), B (m, R) and e (R,): triplet i is (e_i, A[i], B[:, i])."""

    a: nn.Parameter
    b: nn.Parameter
    e: nn.Parameter


@dataclass(frozen=True)
class Budget:
    """How many triplets stay, over all layers: the paper's cubic schedule, in steps taken.

    Attributes:
        first, last: at the start and at the end.
        begin, end: the steps between which it falls.
        interval: steps from one pruning to the next.
    """

    first: int
    last: int
    begin: int
    end: int
    interval: int

    def at(self, step: int) -> int | None:
        """Triplets that a pruning after this many steps leaves; None: nothing is pruned then."""
        if step >= self.end:
            return self.last
        if step <= self.begin or step % self.interval:
            return None
        left = (self.end - step) / (self.end - self.begin)
        return int(self.last + (self.first - self.last) * left**3)


class AdaloraAdamW(torch.optim.AdamW):
    """AdamW that zeroes, on schedule, the e of the triplets that matter least, over all layers.

    A weight's sensitivity |w dL/dw|, smoothed, times its smoothed deviation from that, is its importance; a triplet's
    is that of e_i plus the means of A[i]'s and B[:, i]'s. Between prunings a zeroed e may grow again, as in the paper;
    from the schedule's end on what was pruned stays so.

    State, beside AdamW's: ``importance`` and ``uncertainty`` of every weight, until the schedule ends; then, of every
    e, which stays, as ``kept`` (1 or 0); the group's count of steps.

    Args:
        triplets: of the layers; all that ``groups`` hold.
        budget: the schedule.
        groups, lr, weight_decay: AdamW's.
    """

    def __init__(
        self,
        triplets: Iterable[Triplets],
        budget: Budget,
        groups: list[Group],
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__([{**group, "taken": 0} for group in groups], lr=lr, weight_decay=weight_decay, fused=True)
        self.triplets, self.budget = list(triplets), budget

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """AdamW's step, then pruning where it is due; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = self.param_groups[0]["taken"] + 1
        counted = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        # Of the weights at which the gradients were taken. Kept apart until AdamW has made its state.
        sensitivities = self._sensitivities(counted) if taken <= self.budget.end else []
        super().step()
        if sensitivities:
            self._observe(counted, sensitivities)
        for group in self.param_groups:
            group["taken"] = taken
        left = self.budget.at(taken)
        if left is not None:
            self._prune(left, taken)
        return loss

    @staticmethod
    def _sensitivities(parameters: list[Tensor]) -> list[Tensor]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        sensitivities = list(torch._foreach_mul(parameters, gradients))
        torch._foreach_abs_(sensitivities)
        return sensitivities

    def _observe(self, parameters: list[Tensor], sensitivities: list[Tensor]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if "importance" not in state:
                state["importance"], state["uncertainty"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        importance, uncertainty = (
            [self.state[parameter][key] for parameter in parameters] for key in ("importance", "uncertainty")
        )
        torch._foreach_lerp_(importance, sensitivities, 1 - SMOOTHING)
        torch._foreach_sub_(sensitivities, importance)
        torch._foreach_abs_(sensitivities)
        torch._foreach_lerp_(uncertainty, sensitivities, 1 - SMOOTHING)

    def _prune(self, left: int, taken: int) -> None:
        """Zero e but for the ``left`` most important; after the schedule's end, but for those that it came down to."""
        if taken <= self.budget.end:
            chosen = self._chosen(left)
            if taken == self.budget.end:
                self._settle(chosen)
        else:
            chosen = [self.state[t.e].get("kept", torch.zeros_like(t.e)) for t in self.triplets]
        torch._foreach_mul_([t.e for t in self.triplets], chosen)

    def _chosen(self, left: int) -> list[Tensor]:
        """1 for the triplets that stay and 0 for the others, (R,) by layer."""
        scores = torch.cat([self.importance(triplet).to(self.triplets[0].e.device) for triplet in self.triplets])
        chosen = torch.zeros_like(scores)
        chosen[scores.argsort(descending=True, stable=True)[:left]] = 1
        parts = torch.split(chosen, [len(triplet.e) for triplet in self.triplets])
        return [part.to(triplet.e.device) for part, triplet in zip(parts, self.triplets, strict=True)]

    def importance(self, triplet: Triplets) -> Tensor:
        """Of a layer's triplets, (R,); zero before any gradient was seen."""
        a, b, e = (self._score(parameter) for parameter in triplet)
        return e + a.mean(1) + b.mean(0)

    def _score(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "importance" not in state:
            return torch.zeros_like(parameter)
        score: Tensor = state["importance"] * state["uncertainty"]
        return score

    def _settle(self, chosen: list[Tensor]) -> None:
        """Keep what is chosen, and what chose it no longer."""
        for triplet, kept in zip(self.triplets, chosen, strict=True):
            for parameter in triplet:
                for key in ("importance", "uncertainty"):
                    self.state[parameter].pop(key, None)
            # AdamW would take any entry for its own state; without it no gradient was seen, and e is 0 still.
            if self.state[triplet.e]:
                self.state[triplet.e]["kept"] = kept.clone()
