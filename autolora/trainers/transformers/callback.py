"""The callback that stops a training at its rung, has it saved, watches it, and tells of its steps."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from autolora.errors import AutoloraError
from autolora.trainers.memory import Peak
from autolora.trainers.timing import Timing
from autolora.trainers.trainer import Interrupted, OnStep, Progress, SignOfLife
from autolora.trainers.transformers.randomness import seed_all
from autolora.trainers.transformers.samplers import seed_samplers
from autolora.trainers.watching import AnyLossWatch, LogWatch, ReportWatch

SIGN_OF_LIFE = 10.0
"""Seconds between two signs of life from an evaluation."""


UNHEARD = (
    "the trainer logs no 'loss' after its steps, so divergence is not watched for: have its log(logs) pass on the loss "
    "under this name"
)
"""Warning of a trainer that renames its loss, or logs at some steps alone."""


def can_be_cut(step: int, cycle: int, epoch_steps: int) -> bool:
    """Whether a run that is cut after a step goes on as an uncut one: at the end of a cycle or of an epoch.

    Args:
        step: optimizer steps taken.
        cycle: steps that belong together, counted from the begin of each epoch.
        epoch_steps: of one pass over the data; 0 if these have no end.
    """
    return (step % epoch_steps if epoch_steps else step) % cycle == 0


class Conductor(TrainerCallback):  # type: ignore[misc]  # its types are not followed, see pyproject.toml
    """Conducts one segment of one trial.

    Args:
        trial: number.
        until: optimizer step to stop after.
        steps: of a full run.
        epoch_steps: of one pass over the data; 0 if these have no end.
        cycle: steps of a cycle amid which a run cannot be cut, counted from the begin of each epoch.
        seed: a function from the epoch to the seed that it begins with.
        watch: takes the losses, from the start of the trial.
        checkpoint_seconds: longest time between two checkpoints.
        save: commits the checkpoint that the trainer has written to a folder.
        on_step: as for :meth:`autolora.trainers.trainer.Trainer.run`.
        last: newest step of the segments before; None at the trial's start.
        timing: counts the steps.
        peak: what is taken, which must not exceed what may be.
        examples: of a step.

    Attributes:
        reason: why the training has diverged; None if it has not.
        interrupted: what ``on_step`` raised.
    """

    def __init__(
        self,
        *,
        trial: int,
        until: int,
        steps: int,
        epoch_steps: int,
        cycle: int,
        seed: Callable[[int], int],
        watch: ReportWatch | AnyLossWatch,
        checkpoint_seconds: float,
        save: Callable[[Path, TrainerState], None],
        on_step: OnStep | None,
        last: Progress | None,
        timing: Timing,
        peak: Peak,
        examples: int,
    ) -> None:
        self.reason: str | None = None
        self.interrupted: Interrupted | None = None
        self._trial, self._until, self._steps, self._epoch_steps = trial, until, steps, epoch_steps
        self._cycle = cycle
        self._seed, self._losses, self._every, self._save, self._on_step = (
            seed,
            watch,
            checkpoint_seconds,
            save,
            on_step,
        )
        self._watch: LogWatch | None = None
        self._told = self._logged = self._signs = 0
        self._epochs, self._unheard = 0, False
        self._last = last
        self._timing, self._peak, self._examples, self._tokens = timing, peak, examples, 0
        self._step_began = 0.0
        self._saved = self._heard = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to watch, from the past logs where the training is resumed."""
        self._watch = LogWatch(self._losses, args, state.log_history)
        self._told = self._logged = state.global_step

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Seed the epoch: samplers draw its order again on resuming, from whichever generators they draw it."""
        self._epochs += 1
        if self._epochs > 1 and not self._epoch_steps:
            raise AutoloraError(
                f"the training data have no length, and ended at step {state.global_step} of {self._steps}: in "
                "a second pass over them a trial could not be resumed where it was. Give the trainer data with a "
                "length, or data that repeat themselves without end, or set training.examples to what one pass holds"
            )
        seed = self._seed(state.global_step // self._epoch_steps if self._epoch_steps else 0)
        seed_all(seed)
        seed_samplers(train_dataloader, seed)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to time the step; its batch has been read."""
        self._step_began, self._tokens = time.monotonic(), getattr(state, "num_input_tokens_seen", 0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for the step's loss, and for a checkpoint where one is due."""
        self._peak.check()
        tokens = getattr(state, "num_input_tokens_seen", 0) - self._tokens  # counted if the trainer was asked to
        self._timing.step(time.monotonic() - self._step_began, self._examples, tokens)
        control.should_log, control.should_evaluate = True, False
        at_end = state.global_step >= self._until
        due = time.monotonic() - self._saved >= self._every and self._can_be_cut(state)
        control.should_save = at_end or due
        control.should_training_stop = control.should_training_stop or at_end
        if state.global_step > self._told + 1 and not self._unheard:
            self._unheard = True
            warnings.warn(UNHEARD, stacklevel=2)
        if self._unheard:
            self._tell(state, control, self._last.loss if self._last else 0.0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Watch the loss and tell of the step; a trainer saves after it has logged."""
        if self._watch is None or not logs or "loss" not in logs or state.global_step <= self._logged:
            return
        self._logged = state.global_step
        self.reason = self._watch.update(logs, state.global_step)
        if self.reason is not None:
            control.should_save, control.should_training_stop = False, True
        elif state.global_step > self._told:
            self._tell(state, control, float(logs["loss"]))

    def _tell(self, state: TrainerState, control: TrainerControl, loss: float) -> None:
        self._told = state.global_step
        self._last = Progress(self._trial, state.global_step, self._steps, loss)
        try:
            if self._on_step is not None:
                self._on_step(self._last)
        except Interrupted as error:  # raised again once the checkpoint is committed
            self.interrupted = error
        if self.interrupted is not None and self._can_be_cut(state):
            control.should_save = control.should_training_stop = True

    def _can_be_cut(self, state: TrainerState) -> bool:
        return can_be_cut(state.global_step, self._cycle, self._epoch_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Commit what the trainer has written."""
        self._save(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", state)
        self._saved = time.monotonic()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A sign of life from a long evaluation."""
        self._signs += 1
        if self._on_step is None or self._last is None or time.monotonic() - self._heard < SIGN_OF_LIFE:
            return
        self._heard = time.monotonic()
        last = self._last
        self._on_step(SignOfLife(last.trial, last.step, last.steps, last.loss, signs=self._signs))
