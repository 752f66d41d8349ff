"""A function of the user's that makes a ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autolora import references
from autolora.errors import AutoloraError
from autolora.trainer_specs.function import FunctionTrainerSpec
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

        made = self.function(trial)
        if not isinstance(made, Trainer):
            raise AutoloraError(
                f"trainer: {self._reference} returned {made!r:.80}, a {type(made).__name__}; return a "
                "transformers.Trainer, or one of a class derived from it"
            )
        return made
