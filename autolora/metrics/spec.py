"""The ``metric`` section of a specification."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from autolora.errors import closest
from autolora.metrics.metric import registry
from autolora.search.trials import Direction
from autolora.sections import Section

_WORDS = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_FUNCTION = re.compile(f"{_WORDS}:{_WORDS}")


class MetricSpec(Section):
    """What is optimized: a registered name, or ``module:function`` with a stated direction.

    Args:
        name: of a metric in :mod:`autolora.metrics`, or a function of your own. It is called as
            ``function(model, tokenizer, rows)`` and returns a number, or a number for each row, of which the score is
            the mean: variants are then compared row by row. A row is a mapping with every column of the table;
            "prompt" and "completion" are the text as it was tokenized, and ``row.columns`` is the table's row
            untouched.
        direction: "minimize" or "maximize"; a registered metric has its own.
        max_new_tokens: most tokens that a metric generates for a row.
    """

    name: str = "eval_loss"
    direction: Direction | None = None
    max_new_tokens: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _known(self) -> MetricSpec:
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
        return self

    @property
    def own(self) -> bool:
        """Whether the metric is a function of the user's."""
        return ":" in self.name

    @property
    def resolved_direction(self) -> Direction:
        return self.direction or registry()[self.name].direction

    @property
    def needs_columns(self) -> bool:
        """Whether evaluation rows must carry every column of their table."""
        return self.own or "columns" in registry()[self.name].needs
