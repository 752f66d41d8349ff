"""AdamW that restarts at the phases' ends, and warms up again (ReLoRA, arXiv 2307.05695)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from autolora.adapters.groups import Group


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
