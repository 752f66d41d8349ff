"""The divergence rule on what other trainers report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autolora.trainers.divergence import SETTLING, DivergenceWatch

if TYPE_CHECKING:
    from transformers import TrainingArguments

STEADY_EXAMPLES = 8
"""A loss averaged over this many examples can stand alone for the start of a run."""
BLOWN_UP = 100.0
"""A loss of any kind has blown up at this many times the size that it started with, or that of 1 if it was smaller."""


class ReportWatch:
    """Watches one run by the losses that its trainer reports.

    Trainers often have no warm-up, and then the second loss may have blown up already. So the first one alone is the
    start that :class:`DivergenceWatch` compares with, where it averages over enough examples.

    Args:
        examples: training examples that a reported loss averages over.
    """

    def __init__(self, examples: int) -> None:
        self._watch = DivergenceWatch(examples)
        self._repeats = SETTLING if examples >= STEADY_EXAMPLES else 1

    def update(self, loss: float, gradient_norm: float = 1.0) -> str | None:
        """Take in one report; returns why the run has diverged, in words that count reports as steps, or None.

        Args:
            loss: mean training loss, in nats.
            gradient_norm: before clipping; left out, it never counts.
        """
        for _ in range(self._repeats - 1):
            self._watch.update(loss, gradient_norm)
        self._repeats = 1
        return self._watch.update(loss, gradient_norm)


class AnyLossWatch:
    """Watches one run whose loss may start at zero, be negative or rise while the model improves, as those of
    reinforcement learning and of preferences do.

    A rise says nothing of such a loss, and neither does a gradient of zero: with equal rewards there is none. So a run
    has diverged where a number is not finite, or where the mean of :data:`SETTLING` losses is :data:`BLOWN_UP` times
    as large, by its size, as any that the run started with.
    """

    def __init__(self) -> None:
        self._start: list[float] = []
        self._last: list[float] = []
        self._steps = 0

    def update(self, loss: float, gradient_norm: float = 1.0) -> str | None:
        """As :meth:`ReportWatch.update`, for a loss in any unit."""
        self._steps += 1
        for name, value in (("training loss", loss), ("gradient norm", gradient_norm)):
            if not math.isfinite(value):
                return f"the {name} became {value} at step {self._steps}"
        self._last = [*self._last[1 - SETTLING :], abs(loss)]
        if len(self._start) < SETTLING:
            self._start.append(abs(loss))
            return None
        start = max(1.0, *self._start)
        if min(self._last) > BLOWN_UP * start:
            return f"the training loss reached {loss:.3g} by step {self._steps}, far beyond its start"
        return None


class LogWatch:
    """Watches one run by what ``transformers.Trainer`` logs, see :meth:`update`.

    Args:
        watch: takes the losses.
        args: of the trainer. Under fp16 gradient norms are left out: steps that the loss scaler skips have infinite
            ones.
        history: logs of the steps before, where the run is resumed.
    """

    def __init__(
        self,
        watch: ReportWatch | AnyLossWatch,
        args: TrainingArguments,
        history: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._watch, self._args = watch, args
        for logs in history:
            self.update(logs, 0)

    def update(self, logs: Mapping[str, Any], step: int) -> str | None:
        """Take in one log, which counts if it has a training loss.

        Args:
            logs: by name.
            step: optimizer steps taken, for the reason.

        Returns:
            Why the run has diverged, in words, or None.
        """
        if "loss" not in logs:
            return None
        norm = 1.0 if self._args.fp16 else float(logs.get("grad_norm", 1.0))
        reason = self._watch.update(float(logs["loss"]), norm)
        return reason and re.sub(r"step \d+", f"step {step}", reason)  # the watch counts logs
