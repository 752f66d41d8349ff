"""Tells within steps, not rungs, that a training has blown up.

Thresholds are relative to the run's own past, because absolute ones fail: at s = 16 gradients start 16x larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

SMOOTHING = 0.8
"""Weight of the past in the running mean of the loss: a memory of about five steps."""
LOSS_RISE = 1.5
"""The smoothed loss may exceed its start, or its best, by this factor plus LOSS_MARGIN."""
LOSS_MARGIN = 0.5
GRADIENT_RISE = 30.0
"""How far above the run's own median a gradient norm may lie, GRADIENT_PATIENCE steps in a row."""
GRADIENT_PATIENCE = 3
SETTLING = 8
"""Steps before relative rules apply: a median of fewer norms says nothing."""


class DivergenceWatch:
    """Watches one run, step by step.

    Args:
        losses, gradient_norms: the steps before, where the run is resumed; the watch then continues as if uncut.
    """

    def __init__(self, losses: Iterable[float] = (), gradient_norms: Iterable[float] = ()) -> None:
        self._steps = 0
        self._start = self._smoothed = self._best = math.inf
        self._norms: list[float] = []
        self._high_norms = 0
        for loss, norm in zip(losses, gradient_norms, strict=True):
            self.update(loss, norm)

    def update(self, loss: float, gradient_norm: float) -> str | None:
        """Take in one optimiser step.

        Args:
            loss: token-averaged training loss of the step's batch.
            gradient_norm: global norm before clipping.

        Returns:
            Why the run has diverged, in words, or None.
        """
        self._steps += 1
        if not math.isfinite(loss):
            return f"the training loss became {loss} at step {self._steps}"
        if not math.isfinite(gradient_norm):
            return f"the gradient norm became {gradient_norm} at step {self._steps}"
        return self._loss_rule(loss) or self._gradient_rule(gradient_norm)

    def _loss_rule(self, loss: float) -> str | None:
        if self._steps == 1:
            self._start = self._smoothed = loss
        self._smoothed = SMOOTHING * self._smoothed + (1 - SMOOTHING) * loss
        self._best = min(self._best, self._smoothed)
        for name, reference in (("start", self._start), ("best", self._best)):
            if self._steps > SETTLING and self._smoothed > LOSS_RISE * reference + LOSS_MARGIN:
                return (
                    f"the smoothed training loss rose to {self._smoothed:.3g} at step {self._steps}, "
                    f"far above its {name}, {reference:.3g}"
                )
        return None

    def _gradient_rule(self, norm: float) -> str | None:
        typical = median(self._norms) if len(self._norms) >= SETTLING else math.inf
        self._norms.append(norm)
        self._high_norms = self._high_norms + 1 if norm > GRADIENT_RISE * typical else 0
        if self._high_norms >= GRADIENT_PATIENCE:
            return (
                f"the gradient norm stayed above {GRADIENT_RISE:.0f} times its median ({typical:.3g}) "
                f"for {GRADIENT_PATIENCE} steps, up to step {self._steps}"
            )
        return None
