"""What a command reports: a JSON object a line, of a step, of the score, or of both."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autolora import files
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.lines import Lines
from autolora.trainers.watching import AnyLossWatch, ReportWatch

HOW = 'append lines such as {"step": 10, "loss": 2.3} to the file that AUTOLORA_REPORT names'
EVAL = "eval_"
MARK = "\ufeff"
"""The byte order mark that some editors and shells begin a file of text with."""


@dataclass(frozen=True)
class Report:
    """One line.

    Attributes:
        step: optimizer steps taken; None if it does not say.
        examples: training examples seen; None if it does not say.
        loss, gradient_norm: of the training; None if it does not say.
        score: under the metric's name; None if there is none.
        said: all of it, by key.
    """

    step: int | None
    examples: int | None
    loss: float | None
    gradient_norm: float | None
    score: float | None
    said: Mapping[str, Any]

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all that it says."""
        return tuple(self.said)

    @classmethod
    def of(cls, line: str, metric: str) -> Report:
        """Read a line.

        Args:
            line: of a file of reports.
            metric: name under which the score is reported, as it is or behind "eval_".

        Raises:
            ValueError: it is not a JSON object, or holds something else where a number belongs.
        """
        try:
            found = json.loads(line.removeprefix(MARK))
        except ValueError:
            raise ValueError(f"{_cut(line)} is not JSON") from None
        if not isinstance(found, dict):
            raise ValueError(f"{_cut(line)} is not a JSON object")
        score = _number(found, metric)
        return cls(
            step=_count(found, "step"),
            examples=_count(found, "examples"),
            loss=_number(found, "loss"),
            gradient_norm=_number(found, "grad_norm"),
            score=_number(found, EVAL + metric) if score is None else score,
            said=found,
        )


def _number(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    if value is None:
        return None
    try:
        if isinstance(value, (bool, list, dict)):
            raise ValueError
        return float(value)  # text, too: "nan" is what some write
    except (ValueError, OverflowError):
        raise ValueError(f"{key} must be a number, not {_cut(json.dumps(value))}") from None


def _count(found: Mapping[str, Any], key: str) -> int | None:
    value = _number(found, key)
    if value is None:
        return None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{key} must be a number of at least 0, not {value}")
    return math.floor(value)


def _cut(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


@dataclass
class Reports:
    """All that a trial's command has reported, of earlier segments, too.

    Attributes:
        batch_size: training examples of an optimizer step.
        metric: name of the score.
        step: optimizer steps taken, by the newest line that says; 0 before.
        examples: training examples seen, by the newest line that says; None before.
        loss: the newest; NaN before.
        gap: most examples between two lines of this segment that say how far it is; 0 once such a line has the score.
        score: the last of this segment; None before.
        keys: of all lines of this segment, in the order in which they came.
        said: the newest value of each of those keys.
    """

    batch_size: int
    metric: str
    step: int = 0
    examples: int | None = None
    loss: float = math.nan
    gap: int = 0
    score: float | None = None
    keys: dict[str, None] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    _reached: int = 0
    _losses: list[tuple[int, float, float]] = field(default_factory=list)
    _watch: ReportWatch | AnyLossWatch | None = None

    def recall(self, folder: Path) -> None:
        """Take in the losses of earlier segments; what cannot be read of them is passed over.

        Args:
            folder: with their files.
        """
        for path in sorted(folder.glob("*.jsonl")):
            for _, line, _ in Lines(path).new(ended=True):
                try:
                    self._follow(Report.of(line, self.metric))
                except ValueError:
                    continue
        self._reached, self.examples = self.examples or 0, None

    def take(self, line: str) -> tuple[Report, str | None] | None:
        """Take in a line of this segment.

        Returns:
            What it says, and why the training has diverged, or None. None if the line is empty.

        Raises:
            ValueError: see :meth:`Report.of`.
        """
        if not line.strip(f"{MARK} \t\r\n"):
            return None
        report = Report.of(line, self.metric)
        self.keys |= dict.fromkeys(report.keys)
        self.said |= report.said
        if report.score is not None:
            self.score = report.score
        reason = self._follow(report)
        if self.examples is not None and (report.examples is not None or report.step is not None):
            self.gap = 0 if report.score is not None else max(self.gap, self.examples - self._reached)
            self._reached = self.examples
        return report, reason

    def _follow(self, report: Report) -> str | None:
        """Why the training has diverged by its losses, or None."""
        step = report.step
        if report.examples is not None:
            self.examples = report.examples
            step = math.ceil(report.examples / self.batch_size) if step is None else step
        elif step is not None:
            self.examples = step * self.batch_size
        if step is None and report.loss is None:
            return None
        self.step = self.step + 1 if step is None else step
        if report.loss is None:
            return None
        self.loss = report.loss
        norm = 1.0 if report.gradient_norm is None else report.gradient_norm  # one that never changes never counts
        if self._losses and self._losses[-1][0] >= self.step:  # a resumed command, which went back
            self._losses = [each for each in self._losses if each[0] < self.step]
            self._watch = None
        if self.loss <= 0 and isinstance(self._watch, ReportWatch):
            self._watch = None
        watch = self._watching()
        self._losses.append((self.step, self.loss, norm))
        reason = watch.update(self.loss, norm)
        return None if reason is None else re.sub(r"step \d+", f"step {self.step}", reason)  # it counts reports

    def _watching(self) -> ReportWatch | AnyLossWatch:
        if self._watch is None:
            first = self._losses[0][0] if self._losses else self.step  # a loss is the mean since the one before
            # A cross-entropy is above zero; what is not may be a loss of reinforcement learning, which may rise.
            entropy = self.loss > 0 and all(loss > 0 for _, loss, _ in self._losses)
            self._watch = ReportWatch(self.batch_size * max(1, first)) if entropy else AnyLossWatch()
            for _, loss, norm in self._losses:
                self._watch.update(loss, norm)
        return self._watch


def malformed(path: Path, number: int, error: ValueError) -> CommandError:
    """The error of a line that cannot be read."""
    return CommandError(f"{files.shown(path)} line {number}: {error}; {HOW}. Completed work is saved.")
