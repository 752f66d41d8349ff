"""Who trains a segment: the protocol, and what goes in and comes out.

The study, the policy and the executors see a trainer through six things: ``examples``, ``fingerprints``, ``run``,
``verify``, ``test`` and ``export``. All else is its own. A trainer is opened from a specification by its class method
``open(spec, folder)``, see :func:`autolora.trainers.open_trainer`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from autolora.scores import Scores
from autolora.search import Job
from autolora.space import Config, Space

if TYPE_CHECKING:
    from autolora.adapters.memory import Memory
    from autolora.priors import Curvature
    from autolora.priors.probe import RangeTest


@dataclass(frozen=True)
class Outcome:
    """What became of a segment.

    Attributes:
        trial: number.
        kind: "scored", "diverged" or "infeasible".
        value: the score; None unless scored.
        at: share of a full run trained, by training examples.
        reason: in words, unless scored.
        seconds: wall time of the trial so far, over all its segments.
        rows: what each evaluation row adds to a full-length score; None for other scores.
        metrics: what the specification wants reported beside the score, as far as it is known; finite numbers by name.
        too_large: whether it is infeasible for lack of memory.
        evaluation: wall time of the evaluation at the segment's end, in seconds; 0 if that is not known.
    """

    trial: int
    kind: Literal["scored", "diverged", "infeasible"]
    value: float | None
    at: float
    reason: str
    seconds: float
    rows: Scores | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    too_large: bool = False
    evaluation: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Progress:
    """One optimizer step of a running trial.

    Attributes:
        trial: number.
        step: steps taken, this one included.
        steps: of the trial at its full length.
        loss: of the step's batch, before it.
    """

    trial: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class SignOfLife(Progress):
    """The newest optimizer step again, or step 0 before the first: nothing is new but that the training lives.

    Attributes:
        signs: differs where the trainer has heard of its training since, as by more output.
    """

    signs: int = 0


class Interrupted(Exception):
    """Raised by ``on_step`` to stop: the trial is checkpointed where it is and can go on later."""


class LostSegment(Exception):
    """What trained a segment was lost, as a process that was killed: the trial goes on from its newest checkpoint."""


OnStep: TypeAlias = Callable[[Progress], None]


class Trainer(Protocol):
    """Trains segments of trials. Implementations inherit the contract tests in ``tests/support/trainer_contract.py``.

    A trainer finds its work by looking: ``run`` continues from the newest checkpoint in the trial's folder, whoever
    wrote it. So promotion, a retry after a crash and a first start are one path.
    """

    @property
    @abstractmethod
    def examples(self) -> int:
        """Training examples of a full run."""

    @abstractmethod
    def fingerprints(self) -> Mapping[str, str]:
        """Digests of what scores depend on beside the configuration, such as the model, the data and the metric."""

    @abstractmethod
    def run(self, segment: Job, on_step: OnStep | None = None) -> Outcome:
        """Train a segment to its end and score it.

        Args:
            segment: the trial, from where to where, and the rung that it ends at.
            on_step: called after every optimizer step that the trainer hears of; by a trainer that hears of few of
                them, with a :class:`SignOfLife` in between, at least once a second. May raise :class:`Interrupted`.

        Returns:
            The outcome, after its checkpoint has been committed.

        Raises:
            CheckpointError: a checkpoint cannot be written.
            Interrupted: ``on_step`` asked to stop; a checkpoint has been committed.
            LostSegment: what trained it was lost; executors hand the trial out again.
            Exception: whatever the user's metric or data raise; the checkpoints so far stay.
        """

    @abstractmethod
    def verify(self, trial: int) -> None:
        """Make sure that :meth:`test` and :meth:`export` find what a completed trial has trained, whole.

        Raises:
            LostCheckpointError: it is gone or damaged; the message says what is missing and where.
            CheckpointError: it cannot be told, as the place cannot be read.
        """

    @abstractmethod
    def test(self, trial: int) -> float | None:
        """The score of a completed trial on the test split; None if there is no such split.

        Raises:
            LostCheckpointError: see :meth:`verify`.
        """

    @abstractmethod
    def export(self, trial: int, folder: Path) -> None:
        """Write the adapter of a completed trial to a folder.

        Raises:
            LostCheckpointError: see :meth:`verify`.
        """

    @abstractmethod
    def check(self, variants: Sequence[str], space: Space, baselines: Mapping[str, Config]) -> None:
        """Refuse what cannot be trained, before anything runs.

        Args:
            variants: their names.
            space: what will be searched.
            baselines: configurations that are trained first, by variant.

        Raises:
            AutoloraError: naming the variant or dimension and the setting.
        """

    def baseline(self) -> Config | None:
        """What the user trains with today by the trainer's own settings, other searched fields than the four under
        ``further``; None if these do not say."""
        return None

    def standards(self, space: Space) -> Mapping[str, object]:
        """What it does of the fields that the space names if nothing is said of them, by name; those that its own
        settings do not tell are left out."""
        return {}

    def hidden_size(self) -> int | None:
        """Width of a model that the trainer's own settings name, which informs the laws; None if they name none."""
        return None

    def can_be_timed(self) -> bool:
        """Whether a few steps can be trained to tell how long a run takes."""
        return True

    def test_cost(self) -> float:
        """Time that :meth:`test` takes, over that of an evaluation at full length; 0 if there is nothing to test on."""
        return 1.0

    def scored_rows(self) -> Sequence[int]:
        """Evaluation rows that each rung is scored on, the first ones of one order; empty if all have the same."""
        return ()

    def about(self) -> Mapping[str, Sequence[str]]:
        """What it has loaded, for people: lines by subject, such as "model", "data" and "warning"."""
        return {}

    def resolved(self) -> Mapping[str, object]:
        """Settings of ``training`` that the specification leaves open, as they were found from model and data."""
        return {}

    def fits(self) -> Sequence[str]:
        """Lines on which base exported adapters fit, where that is not the model as it is published."""
        return ()

    def peak_memory(self) -> int | None:
        """Most bytes that training has taken so far; None if that is not known."""
        return None

    def memory_plan(self, variants: Sequence[str], space: Space) -> Memory | None:
        """What the largest setting of these variants would take in memory; None if that is not known."""
        return None

    def too_large(self, variants: Sequence[str], space: Space) -> Mapping[str, Sequence[Config]]:
        """The smallest configurations by variant that are planned to take more than ``max_memory``; none by default.

        Raises:
            AutoloraError: nothing that is searched fits.
        """
        return {}

    def set_aside(self) -> None:
        """Leave device and memory to workers on the same machine, until this trainer trains, tests or exports next."""


@runtime_checkable
class Measurable(Protocol):
    """A trainer that can measure, before the first trial, what the prior then rests on."""

    def curvature_examples(self) -> int:
        """Training examples that :meth:`curvature` looks at."""

    def curvature(self, variants: Sequence[str], rank: int) -> tuple[Mapping[str, Curvature], bool]:
        """Curvature of the variants at s = 1; and whether anything had to be measured for it."""

    def range_test(self, variant: str, config: Config, steps: int, decades_a_step: float) -> RangeTest:
        """A short training whose learning rate grows; see :class:`autolora.priors.probe.RangeTest`."""
