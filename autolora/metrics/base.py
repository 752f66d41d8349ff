"""What a built-in metric is, and what it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from autolora.errors import AutoloraError
from autolora.scores import Scores
from autolora.search.trials import Direction


class MetricError(AutoloraError, ValueError):
    """A metric is missing, or returned something that is not a number. It is never replaced by another."""


class Evaluation(Protocol):
    """What a metric sees; see :class:`autolora.training.evaluate.Evaluation` for the attributes."""

    @property
    def model(self) -> Any: ...

    @property
    def base(self) -> Any: ...

    @property
    def split(self) -> Any: ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def autocast(self) -> Callable[[], Any]: ...

    @property
    def batch_size(self) -> int: ...

    def over_tokens(self, quantity: Callable[..., Any]) -> Scores:
        """The mean of a quantity over all target tokens of the split."""


@dataclass(frozen=True)
class Metric:
    """A built-in metric.

    Attributes:
        name: as in ``metric:`` of a specification.
        direction: "minimize" or "maximize", the only one that makes sense.
        scores: the score of an adapter on a split, with what each row adds to it.
    """

    name: str
    direction: Direction
    scores: Callable[[Evaluation], Scores]
