"""A trainer that was made for a trial, checked and settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from autolora import variants
from autolora.errors import AutoloraError
from autolora.search import Job
from autolora.spec import Spec
from autolora.trainers.transformers.length import Epoch
from autolora.trainers.transformers.randomness import seeded
from autolora.trainers.transformers.resident import Resident
from autolora.trainers.transformers.settings import check_made, on_one_device, settle
from autolora.trainers.transformers.state import attached_part, load_trained_state
from autolora.trainers.trial import Session, Trial

if TYPE_CHECKING:
    import transformers
    from peft import PeftModel
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Made:
    """What :func:`making` has made.

    Attributes:
        trial: that it is for.
        trainer: ready to train.
        attached: its model, if that was attached by a variant; None if plain PEFT made it.
        scratch: empty folder, the trainer's ``output_dir``.
        asked: whether the batch comes from ``trial.arguments()``, and so could come in smaller passes.
        switched_off: names of what the trainer was given that does not go with a search.
    """

    trial: Trial
    trainer: transformers.Trainer
    attached: PeftModel | None
    scratch: Path
    asked: bool
    switched_off: tuple[str, ...] = ()

    @property
    def model(self) -> Any:
        return self.trainer.model

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Give the model what a checkpoint has of it."""
        load_trained_state(self.model, self.attached, state)


@dataclass(frozen=True)
class _Length:
    """How long a full run is, see :class:`autolora.trainers.trial.Length`."""

    epoch: Epoch
    examples: int

    def steps(self, batch_size: int) -> int:
        return self.epoch.with_batch(batch_size).steps_of(self.examples)

    def seen(self, steps: int, batch_size: int) -> int:
        return min(self.examples, self.epoch.with_batch(batch_size).examples_of(steps))


@dataclass(frozen=True)
class Maker:
    """Makes the trainers of a study.

    Args:
        spec: of the study.
        make: the user's function, or what stands for it.
        resident: what is kept between trials.
    """

    spec: Spec
    make: Callable[[Trial], transformers.Trainer]
    resident: Resident
    _former: WeakSet[Any] = field(default_factory=WeakSet)  # trainers of earlier calls, and their models

    @contextmanager
    def making(
        self,
        job: Job,
        folder: Path,
        *,
        examples: int | None = None,
        epoch: Epoch | None = None,
        micro_batch: int | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> Iterator[Made]:
        """A trainer for a trial, as long as the context lasts; then everything shared is as it was.

        Args:
            job: a segment of the trial.
            folder: of the trial.
            examples: of a full run; None while that is being found out.
            epoch: one pass over the data, if known.
            micro_batch: most examples in one forward pass; None: no limit.
            state: of the trial's newest checkpoint, see :func:`~autolora.trainers.transformers.state.trained_state`.
                It is not loaded here.
        """
        from autolora.adapters.state import allotment

        session = Session(
            take=self.resident.take,
            micro_batch=micro_batch,
            length=None if epoch is None or examples is None else _Length(epoch, examples),
            allotted=None if state is None else allotment(attached_part(state)),
        )
        trial = Trial.of(self.spec, job, folder, examples, session)
        with TemporaryDirectory(prefix="autolora-") as scratch, self.resident.lent(), seeded(trial.seed):
            try:
                trainer = self._made(trial)
                on_one_device(trainer)
                attached = next((each for each in session.attached if each is trainer.model), None)
                check_made(trial, trainer, attached)
                switched_off = settle(trial, trainer, attached, Path(scratch))
                yield Made(trial, trainer, attached, Path(scratch), session.asked, switched_off)
            finally:
                for model in session.attached:
                    variants.detach(model)

    def _made(self, trial: Trial) -> transformers.Trainer:
        """What the function returns: another one for every call, or a trial would begin where another has ended."""
        try:
            trainer = self.make(trial)
        except TypeError as error:
            if hints_at_length(trial, error):
                raise AutoloraError(
                    f"making the trainer failed: {error}. trial.steps, trial.examples, trial.stop_steps and "
                    "trial.stop_examples are None while the length of a run is being found out: set training.examples, "
                    "or do without them there"
                ) from error
            raise
        kept = [id(model) for model in self.resident.models()]
        for each, what in ((trainer, "trainer"), (trainer.model, "model")):
            if each in self._former and id(each) not in kept:
                raise AutoloraError(
                    f"the function returned the {what} of an earlier call, which that call's trial has trained: make "
                    "one each time, of trial.base(load), which keeps what is loaded"
                )
            if each is not None:
                self._former.add(each)
        return trainer


def hints_at_length(trial: Trial, error: Exception) -> bool:
    """Whether an error may come from the length of a run, which a trial does not know at first."""
    return isinstance(error, TypeError) and trial.examples is None and "NoneType" in str(error)
