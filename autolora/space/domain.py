"""Where a value may lie: a range or a list of choices, and what the search does with either."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

if TYPE_CHECKING:
    import numpy as np

Choice = TypeVar("Choice", int, float)
Written = TypeVar("Written")

KEEP_CHOICE = 0.5
"""Probability that a neighbor keeps a choice of its trial."""
FAR = 4.0
"""Standard deviations outside a range beyond which the distance of a normal's mean no longer counts."""
MOST_WHOLE_NUMBERS = 1024
"""Choices that a range of whole numbers may expand to."""


class Range(BaseModel):
    """An interval, both ends included.

    Args:
        low, high: the ends; above 0 where the scale is logarithmic.
        log: whether draws are uniform over the logarithm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.log and not self.low > 0:
            raise ValueError(f"the range ({self.low:g}, {self.high:g}) is on a log scale: low must be above 0")
        if not self.low < self.high:
            raise ValueError(f"the range ({self.low:g}, {self.high:g}) is empty: low must be below high")
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_scale(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As records of earlier versions have it, which know no other scale."""
        plain: dict[str, object] = dump(self)
        if self.log:
            del plain["log"]
        return plain

    def contains(self, value: float) -> bool:
        reach = 1e-9 if self.log else 1e-9 * (self.high - self.low)
        if self.log:
            return self.low * (1 - reach) <= value <= self.high * (1 + reach)
        return self.low - reach <= value <= self.high + reach

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def at(self, quantile: float) -> float:
        """The value below which this share of the range lies."""
        if self.log:
            return self.clip(self.low * (self.high / self.low) ** float(quantile))
        return self.clip(self.low + float(quantile) * (self.high - self.low))

    def place(self, value: float) -> float:
        """The inverse of :meth:`at`."""
        if self.log:
            return math.log(self.clip(value) / self.low) / math.log(self.high / self.low)
        return (self.clip(value) - self.low) / (self.high - self.low)


def range_of(fields: Mapping[str, object], log: bool) -> Range:
    """The range that a mapping of low, high and perhaps log writes; ``log``: the scale if it says none.

    Raises:
        ValueError: in one line.
    """
    try:
        return Range.model_validate({"log": log, **fields})
    except ValidationError as error:
        item = error.errors()[0]
        if item["type"] == "value_error":
            raise ValueError(str(item["ctx"]["error"])) from None
        raise ValueError(f"{dict(fields)!r} is not allowed; a range is {{low: .., high: ..}}") from None


Domain = Range | list[float]
"""What may be drawn: a range, or choices in ascending order."""


def above_zero(value: Written) -> Written:
    """The value; raises ``ValueError`` for a range that reaches down to 0, where a logarithm is taken of it."""
    if isinstance(value, Range) and not value.low > 0:
        raise ValueError(f"the range ({value.low:g}, {value.high:g}) is not allowed: low must be above 0")
    return value


def at_most(limit: float) -> Callable[[Written], Written]:
    """A function that returns its value; raises ``ValueError`` for numbers, or ranges that reach, above the limit."""

    def checked(value: Written) -> Written:
        numbers = value if isinstance(value, list) else [value.high if isinstance(value, Range) else value]
        high = max((each for each in numbers if is_number(each)), default=limit)
        if high > limit:
            raise ValueError(f"{high:g} is not allowed; it is at most {limit:g}")
        return value

    return checked


def log_density(domain: Domain, value: float, log: Callable[[float], float]) -> float:
    """Density of :func:`draw` over the logarithm of a value; a probability where there are choices."""
    if not isinstance(domain, Range):
        return 1 / len(domain)
    if domain.log:
        return 1 / log(domain.high / domain.low)
    return value / log(math.e) / (domain.high - domain.low)


def draw(rng: np.random.Generator, domain: Domain) -> float:
    """A value uniform over the choices, or over the range on its scale."""
    return domain.at(rng.uniform()) if isinstance(domain, Range) else any_of(rng, domain)


def any_of(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def near(rng: np.random.Generator, choices: Sequence[Choice], current: Choice) -> Choice:
    """The current choice or one of the two to either side; any if it is none of them, as a baseline's may be."""
    if current not in choices:
        return any_of(rng, choices)
    moved = 0 if rng.uniform() < KEEP_CHOICE else int(rng.integers(-2, 3))
    return choices[min(max(choices.index(current) + moved, 0), len(choices) - 1)]


def neighbor(rng: np.random.Generator, domain: Domain, current: float | None, sd: float) -> float:
    """A value near the current one, or any if that is None; ``sd`` is a share of a range."""
    if isinstance(domain, list):
        return float(any_of(rng, domain) if current is None else near(rng, domain, current))
    if current is None:
        return float(draw(rng, domain))
    moved = domain.place(current) + sd * float(rng.standard_normal())
    return domain.at(min(max(moved, 0.0), 1.0))


def nearest(domain: Domain, value: float) -> float:
    """The value of the domain that is closest, on a log scale where all are above 0."""
    if isinstance(domain, Range):
        return domain.clip(value)
    if value > 0 and min(domain) > 0:
        return min(domain, key=lambda choice: abs(math.log(choice / value)))
    return min(domain, key=lambda choice: abs(choice - value))


def place(domain: Domain, value: float | None) -> float:
    """Where a value lies in the domain, 0 to 1; 0.5 for None and for values outside, as a baseline's may be."""
    if isinstance(domain, Range):
        return 0.5 if value is None else domain.place(value)
    return domain.index(value) / max(1, len(domain) - 1) if value in domain else 0.5


def corners(domain: Domain) -> list[float]:
    """All choices, or the ends of a range."""
    return [domain.low, domain.high] if isinstance(domain, Range) else domain


def pinned(domain: Domain) -> bool:
    """Whether there is nothing to search."""
    return isinstance(domain, list) and len(domain) == 1


def number(value: object) -> object:
    """A number that is written as text, as YAML 1.1 reads 1e-3; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value: int | float) -> int | float:
    """Whole numbers as int: one value has one form, whether it was written as 16 or 16.0 or comes from a storage."""
    return int(value) if float(value).is_integer() else float(value)


def whole_numbers(low: int, high: int, log: bool, step: int = 1) -> list[int]:
    """The choices of a range of whole numbers: on a log scale its ends and the powers of two between, else all."""
    if not log:
        return list(range(low, high + 1, step))
    powers = (2**exponent for exponent in range(high.bit_length()))
    return sorted({low, high, *(power for power in powers if low < power < high)})


@dataclass(frozen=True)
class Truncated:
    """A normal distribution cut to an interval."""

    normal: NormalDist
    below: float
    inside: float

    @classmethod
    def to(cls, normal: NormalDist, low: float, high: float) -> Truncated:
        """A mean far outside is moved to FAR standard deviations from the interval: still piled up at that end."""
        reach = FAR * normal.stdev
        normal = NormalDist(min(max(normal.mean, low - reach), high + reach), normal.stdev)
        below = normal.cdf(low)
        return cls(normal, below, normal.cdf(high) - below)

    def pdf(self, x: float) -> float:
        return self.normal.pdf(x) / self.inside

    def inv_cdf(self, quantile: float) -> float:
        return self.normal.inv_cdf(min(max(self.below + quantile * self.inside, 1e-12), 1 - 1e-12))
