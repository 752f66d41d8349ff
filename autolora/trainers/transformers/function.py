"""A function of the user's that makes a ``transformers.Trainer``."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolora import references
from autolora.errors import AutoloraError
from autolora.trainer_specs.function import FunctionTrainerSpec
from autolora.trainers.memory import out_of_memory
from autolora.trainers.transformers.making import hints_at_length
from autolora.trainers.transformers.trainer import TransformersTrainer
from autolora.trainers.trial import Trial

if TYPE_CHECKING:
    import transformers


class FunctionTrainer(TransformersTrainer):
    """Trains with what ``trainer: my_training:make_trainer`` returns."""

    @cached_property
    def function(self) -> Callable[[Trial], Any]:
        """The user's function.

        Raises:
            AutoloraError: it cannot be imported, or is no function.
        """
        try:
            found = references.named(self._reference)
        except references.ReferenceFault as fault:
            raise AutoloraError(
                f"trainer: {self._reference!r} cannot be used: {fault}. Write package.module:function, of a module in "
                "the working directory or installed"
            ) from fault.__cause__
        if not callable(found):
            raise AutoloraError(
                f"trainer: {self._reference!r} is a {type(found).__name__}; name a function that is given a trial and "
                "returns a transformers.Trainer"
            )
        function: Callable[[Trial], Any] = found
        return function

    @property
    def _reference(self) -> str:
        assert isinstance(self.spec.trainer, FunctionTrainerSpec)
        return self.spec.trainer.function

    def make(self, trial: Trial) -> transformers.Trainer:
        from transformers import Trainer

        try:
            made = self.function(trial)
        except Exception as error:
            told_by_others = isinstance(error, AutoloraError) or out_of_memory(error) or hints_at_length(trial, error)
            if told_by_others:
                raise
            raise AutoloraError(
                f"trainer: {self._reference} failed: {type(error).__name__}: {error}\n{_where(error)}"
            ) from error
        if not isinstance(made, Trainer):
            raise AutoloraError(
                f"trainer: {self._reference} returned {made!r:.80}; return a transformers.Trainer, or one of a class "
                "derived from it"
            )
        return made


FRAMES = 3
"""Lines of the user's code that are shown of an error."""


def _where(error: Exception) -> str:
    """The user's own lines in which an error was raised, the innermost last."""
    paths = sysconfig.get_paths()
    others = (*(paths[name] for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[2]))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)][-FRAMES:]
    return "\n".join(f"  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}" for frame in own)
