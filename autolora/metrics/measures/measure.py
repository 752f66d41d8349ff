"""What a measure is and what it sees, and the registry. A new one is one file in this folder: a Measure, registered.

A measure says of a training what it cost or was like, beside its score. It is reported and never steers the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autolora.search.trials import Direction


@dataclass(frozen=True)
class Facts:
    """What is known of the training of a trial when it is scored, over all its segments. None means not known.

    Attributes:
        seconds: wall time of the trial so far, evaluations and everything else included; of work that a fault has made
            void and that was repeated, once.
        timed_seconds: wall time of the optimizer steps that were timed. A segment's first step, which also allocates
            and compiles, is left out if it has more.
        timed_examples, timed_tokens: what these steps were trained on; tokens with padding left out.
        losses: training loss of each optimizer step or report.
        peak_memory: most bytes taken while it trained and was scored, see :mod:`autolora.trainers.memory`.
        parameters: that train.
        adapter_bytes: of what a checkpoint holds of the adapter.
    """

    seconds: float | None = None
    timed_seconds: float | None = None
    timed_examples: float | None = None
    timed_tokens: float | None = None
    losses: Sequence[float] = ()
    peak_memory: int | None = None
    parameters: int | None = None
    adapter_bytes: int | None = None

    def rate(self, amount: float | None) -> float | None:
        """An amount a second of the timed steps; None if either is not known."""
        return amount / self.timed_seconds if amount and self.timed_seconds else None


@dataclass(frozen=True)
class Measure:
    """A measure.

    Attributes:
        name: as in ``metrics:`` of a specification.
        direction: which values are better: "minimize" or "maximize".
        value: of a training; None if what it needs is not known.
        unit: for people; empty if it has none.
    """

    name: str
    direction: Direction
    value: Callable[[Facts], float | None]
    unit: str = ""


_measures: dict[str, Measure] = {}


def register(measure: Measure) -> Measure:
    """Add a measure to the registry and return it; raises ``ValueError`` if the name is taken or not a plain word."""
    if measure.name in _measures or not measure.name.isidentifier():
        raise ValueError(f"a measure cannot be named {measure.name!r}: give it a name of its own, in letters and _")
    _measures[measure.name] = measure
    return measure


def registry() -> dict[str, Measure]:
    """All measures by name, in alphabetical order."""
    return dict(sorted(_measures.items()))
