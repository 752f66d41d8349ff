"""Tells within steps, not rungs, that a training has blown up.

Every threshold is relative to the run's own past, because absolute ones fail: at s = 16 gradients start 16x larger.
A run that is merely bad, its loss never above its start, is not diverged: ranking it is the rungs' job.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

FAST_EXAMPLES, SLOW_EXAMPLES = 32, 160
"""Memory of the two running means of the loss, in examples: their noise then does not depend on the batch size."""
LOSS_RISE, LOSS_MARGIN = 1.5, 0.5
"""A running mean may exceed its reference by this factor plus this margin (nats)."""
SPIKE_GRADIENT, SPIKE_LOSS = 8.0, 1.25
"""A step is a spike if its gradient norm exceeds the run's median, and its loss the best running mean, this often."""
SPIKES, SPIKE_WINDOW = 2, 3
"""This many spikes within this many steps are a divergence; one alone, a hard batch, is not."""
VANISHED, VANISHED_STEPS = 1e-4, 3
"""Gradients below this share of their median for this many steps: nothing is left that could learn."""
SETTLING = 2
"""Steps that define the start. Warm-up has not moved the model by then."""


class DivergenceWatch:
    """Watches one run, step by step.

    Args:
        batch_size: examples per optimizer step.
        losses, gradient_norms: the steps before, where the run is resumed; the watch then continues as if uncut.
            Steps with an infinite norm were skipped, and count for nothing.
    """

    def __init__(self, batch_size: int, losses: Iterable[float] = (), gradient_norms: Iterable[float] = ()) -> None:
        self._batch_size = batch_size
        self._start: list[float] = []
        self._steps = 0
        self._norms: list[float] = []
        self._fast = self._slow = self._best_fast = self._best_slow = math.inf
        self._spikes: list[bool] = []
        for loss, norm in zip(losses, gradient_norms, strict=True):
            self.update(loss, norm)

    def update(self, loss: float, gradient_norm: float, examples: int | None = None) -> str | None:
        """Take in one optimizer step.

        Args:
            loss: token-averaged training loss of the step's batch, in nats.
            gradient_norm: global norm before clipping.
            examples: of this step, if its batch was cut; None: as many as in every step.

        Returns:
            Why the run has diverged, in words, or None.
        """
        self._steps += 1
        step = self._steps
        if not math.isfinite(loss):
            return f"the training loss became {loss} at step {step}"
        if not math.isfinite(gradient_norm):
            return f"the gradient norm became {gradient_norm} at step {step}"
        typical = median(self._norms) if len(self._norms) >= SETTLING else None
        self._norms.append(gradient_norm)
        if typical is None:
            self._settle(loss)
            return None
        spiked = gradient_norm > SPIKE_GRADIENT * typical and loss > SPIKE_LOSS * self._best_fast
        self._spikes = [*self._spikes[1 - SPIKE_WINDOW :], spiked]
        self._average(loss, self._batch_size if examples is None else examples)
        return self._loss_rule(step) or self._gradient_rule(step, typical)

    def _settle(self, loss: float) -> None:
        self._start.append(loss)
        start = sum(self._start) / len(self._start)
        self._fast = self._slow = self._best_fast = self._best_slow = start

    def _average(self, loss: float, examples: int) -> None:
        self._fast += min(0.5, examples / FAST_EXAMPLES) * (loss - self._fast)
        self._slow += min(0.5, examples / SLOW_EXAMPLES) * (loss - self._slow)
        self._best_fast = min(self._best_fast, self._fast)
        self._best_slow = min(self._best_slow, self._slow)

    def _loss_rule(self, step: int) -> str | None:
        """The short mean against the start, to be seen soon; the long one against its best, which noise lowers."""
        start = sum(self._start) / len(self._start)
        for name, mean, reference in (("start", self._fast, start), ("best", self._slow, self._best_slow)):
            if mean > LOSS_RISE * reference + LOSS_MARGIN:
                return f"the training loss rose to {mean:.3g} by step {step}, far above its {name}, {reference:.3g}"
        return None

    def _gradient_rule(self, step: int, typical: float) -> str | None:
        if sum(self._spikes) >= SPIKES:
            return (
                f"gradient norms of over {SPIKE_GRADIENT:.0f} times their median ({typical:.3g}) and a rising loss "
                f"in {SPIKES} of {SPIKE_WINDOW} steps, up to step {step}"
            )
        if len(self._norms) > VANISHED_STEPS and max(self._norms[-VANISHED_STEPS:]) < VANISHED * typical:
            return f"the gradients vanished at step {step}: their norm fell below {VANISHED:g} of its median"
        return None
