"""autolora's divergence rule for ``transformers.Trainer`` and what derives from it, as TRL's trainers do."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from autolora.trainers.watching import LogWatch, ReportWatch

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

logger = logging.getLogger(__name__)


class DivergenceCallback(TrainerCallback):  # type: ignore[misc]  # its types are not followed, see pyproject.toml
    """Stops a training that has blown up, by autolora's divergence rule.

    The rule reads the training loss and the gradient norm that the Trainer logs, so it acts within a few logs: set
    ``logging_steps`` to 1, or to a few steps. An evaluation loss that is NaN or infinite counts, too. Under fp16
    gradient norms are left out, since steps that the loss scaler skips have infinite ones.

    With an Optuna trial, divergence marks it for :class:`autolora.integrations.optuna.LoraSampler` (constraint
    "diverged"), and ``Trainer.train`` ends with ``optuna.TrialPruned``. In ``Trainer.hyperparameter_search`` one
    callback serves all trials: set :attr:`trial` in ``hp_space``.

    Args:
        trial: that the training is for; None: it is only stopped.

    Attributes:
        trial: as given; may be changed between trainings.
        diverged: whether the latest training has diverged.
        reason: why, in words, or None.
    """

    def __init__(self, trial: BaseTrial | None = None) -> None:
        self.trial = trial
        self.reason: str | None = None
        self._watch: LogWatch | None = None

    @property
    def diverged(self) -> bool:
        return self.reason is not None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Begin to watch, from the past logs where the training is resumed."""
        self.reason = None
        examples = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        steps = state.logging_steps if args.logging_strategy == "steps" else 1
        self._watch = LogWatch(ReportWatch(examples * max(1, steps)), args, state.log_history)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Stop the training where the logged loss has diverged."""
        if self._watch is None or self.diverged or logs is None:
            return
        reason = self._watch.update(logs, state.global_step)
        if reason is not None:
            self._stop(reason, state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Stop the training where an evaluation loss is not finite."""
        broken = {name: value for name, value in (metrics or {}).items() if _is_broken_loss(name, value)}
        if broken and not self.diverged:
            self._stop("; ".join(f"{name} became {value}" for name, value in broken.items()), state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Prune the trial of a diverged training.

        Raises:
            optuna.TrialPruned: the training diverged, and there is a trial.
        """
        if self.trial is not None:
            self.raise_if_diverged()

    def raise_if_diverged(self) -> None:
        """Raise ``optuna.TrialPruned`` with the reason where the latest training has diverged."""
        if self.diverged:
            from optuna import TrialPruned

            raise TrialPruned(self.reason)

    def _stop(self, reason: str, state: TrainerState, control: TrainerControl) -> None:
        self.reason = reason
        control.should_training_stop = True
        if state.is_world_process_zero:
            logger.warning("The training diverged and is stopped: %s.", reason)
        if self.trial is not None:
            self.trial.set_constraint("diverged", 1.0)


def _is_broken_loss(name: str, value: object) -> bool:
    return name.endswith("loss") and isinstance(value, float) and not math.isfinite(value)
