"""The ``metric`` and ``evaluation`` sections of a specification."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, StrictBool, field_validator

from autolora.errors import closest
from autolora.metrics import measures
from autolora.metrics.metric import registry
from autolora.search.trials import Direction
from autolora.sections import Section

Rows = Annotated[int, Field(ge=1)]

_WORDS = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_FUNCTION = re.compile(f"{_WORDS}:{_WORDS}")


class MetricSpec(Section):
    """What is optimized: a registered name, or ``module:function`` with a stated direction. Of trainers other than the
    builtin one, any name under which the trainer reports a number.

    Args:
        name: of a metric in :mod:`autolora.metrics`, or a function of your own. It is called as
            ``function(model, tokenizer, rows)`` and returns a number, or a number for each row, of which the score is
            the mean: variants are then compared row by row. A row is a mapping with every column of the table;
            "prompt" and "completion" are the text as it was tokenized, and ``row.columns`` is the table's row
            untouched.
        direction: "minimize" or "maximize"; a registered metric has its own, and what a trainer reports as a loss is
            minimized.
        max_new_tokens: most tokens that a metric generates for a row.
    """

    name: str = "eval_loss"
    direction: Direction | None = None
    max_new_tokens: int = Field(default=128, ge=1)

    def check(self, reported: bool) -> None:
        """Check name and direction.

        Args:
            reported: whether the trainer reports the score under the name.

        Raises:
            ValueError: the metric is unknown, or its direction has to be stated, or is another.
        """
        if reported:
            if self.direction is None and not self._is_loss:
                raise ValueError(f"{self.name!r} needs a direction: minimize or maximize")
            return
        known = registry()
        if self.name in known:
            natural = known[self.name].direction
            if self.direction not in (None, natural):
                raise ValueError(f"{self.name!r} can only be {natural}d, not {self.direction}d")
        elif ":" not in self.name:
            close = closest(self.name, known)
            hint = f"did you mean {close!r}? " if close else ""
            raise ValueError(
                f"{self.name!r} is unknown; {hint}use one of {', '.join(known)}, or 'module:function' with a direction"
            )
        elif not _FUNCTION.fullmatch(self.name):
            raise ValueError(f"{self.name!r} names no function; write package.module:function")
        elif self.direction is None:
            raise ValueError(f"{self.name!r} needs a direction: minimize or maximize")

    @property
    def _is_loss(self) -> bool:
        return self.name.endswith("loss")

    @property
    def own(self) -> bool:
        """Whether the metric is a function of the user's."""
        return ":" in self.name

    @property
    def resolved_direction(self) -> Direction:
        if self.direction is not None:
            return self.direction
        return "minimize" if self._is_loss else registry()[self.name].direction

    @property
    def needs_columns(self) -> bool:
        """Whether evaluation rows must carry every column of their table."""
        return self.own or (self.name in registry() and "columns" in registry()[self.name].needs)


class ReportedSpec(MetricSpec):
    """What is reported beside the score and never steers the search.

    Args:
        name: of a measure in :mod:`autolora.metrics.measures`, such as "tokens_per_second"; of the builtin trainer also
            of a metric in :mod:`autolora.metrics` or a function as in :class:`MetricSpec`, scored where a trial is
            trained to the end. Of other trainers any name under which they report a number.
        direction: which values are better. Measures and registered metrics have their own, and a loss is minimized.
        max_new_tokens: as in :class:`MetricSpec`.
    """

    def check(self, reported: bool) -> None:
        """Check name and direction.

        Args:
            reported: whether the trainer may report it under any name.

        Raises:
            ValueError: the name is unknown, or the direction has to be stated, or is another.
        """
        natural = self._natural(reported)
        if natural is not None:
            if self.direction not in (None, natural):
                raise ValueError(f"{self.name!r} can only be {natural}d, not {self.direction}d")
            return
        if not reported and ":" not in self.name:
            known = (*measures.registry(), *registry())
            close = closest(self.name, known)
            hint = f"did you mean {close!r}? " if close else ""
            raise ValueError(
                f"{self.name!r} is unknown; {hint}use one of {', '.join(known)}, or 'module:function' with a direction"
            )
        super().check(reported)

    def _natural(self, reported: bool) -> Direction | None:
        """The direction that the name has by itself."""
        if self.name in measures.registry():
            return measures.registry()[self.name].direction
        return None if reported or self.name not in registry() else registry()[self.name].direction

    @property
    def resolved_direction(self) -> Direction:
        measure = measures.registry().get(self.name)
        return super().resolved_direction if measure is None else measure.direction

    @property
    def scores(self) -> bool:
        """Whether the builtin trainer has to score the adapter for it."""
        return self.name not in measures.registry()


def reported_specs(value: object) -> object:
    """A list of what is reported, whose names alone are enough; or one, or names with commas between them."""
    listed = value.split(",") if isinstance(value, str) else value
    listed = [listed] if isinstance(listed, (Mapping, ReportedSpec)) else listed
    if not isinstance(listed, (list, tuple)):
        return value
    return tuple({"name": each.strip()} if isinstance(each, str) else each for each in listed)


class EvaluationSpec(Section):
    """On how many evaluation rows a trial is scored before it is trained to the end. The last rung scores all of them.

    Args:
        subset: "auto" scores rungs before the last on fewer rows where evaluating all of them at each rung would cost
            more than 5% of a full run, see :mod:`autolora.trainers.builtin.subsets`; false: never. A number is that of
            the rows which each rung before the last is scored on, a list has one number for each of these rungs; more
            rows than there are means all. The rows of a rung are among those of the next, and the same for all trials.
    """

    subset: StrictBool | Rows | tuple[Rows, ...] | Literal["auto"] = Field(
        default="auto",
        description='"auto", false, a number of rows of at least 1, or a list of them, one for each rung '
        "before the last",
    )

    @field_validator("subset", mode="before")
    @classmethod
    def _only_false(cls, value: object) -> object:
        listed = value if isinstance(value, (list, tuple)) else [value]
        if value is True or any(isinstance(each, bool) for each in listed if each is not value):
            raise ValueError(f"{value!r} is not allowed; write auto, false, or a number of rows")
        return value

    @field_validator("subset")
    @classmethod
    def _ascending(cls, value: bool | int | tuple[int, ...] | str) -> bool | int | tuple[int, ...] | str:
        if isinstance(value, tuple) and any(later < earlier for earlier, later in pairwise(value)):
            raise ValueError(f"{list(value)} is not allowed; a longer run is scored on as many rows or more")
        return value

    def settled(self, rows: Sequence[int]) -> EvaluationSpec:
        """This section with what "auto" has come to.

        Args:
            rows: that each rung is scored on; empty if all are scored on the same.
        """
        if self.subset != "auto":
            return self
        return EvaluationSpec(subset=tuple(rows[:-1]) if len(set(rows)) > 1 else False)
