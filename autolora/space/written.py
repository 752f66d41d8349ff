"""What a user may write for a dimension: numbers, choices and ranges, in Python and in YAML.

Two numbers in a tuple are the ends of a range, a list holds choices, and so do mappings: ``{low, high}``, with ``log``
if the scale is not the dimension's own, and ``{choices: [...]}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeGuard

from pydantic import AfterValidator, BeforeValidator, Field

from autolora.space.domain import MOST_WHOLE_NUMBERS, Range, is_number, number, plain, range_of, whole_numbers

CHOICES = "choices"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positives = Annotated[list[Positive], Field(min_length=1)]


def as_domain(value: object) -> object:
    """A tuple of two numbers as a mapping of low and high; numbers that are written as text as numbers."""
    if isinstance(value, Mapping):
        if value.keys() == {CHOICES}:
            choices = value[CHOICES]
            return as_domain(list(choices) if isinstance(choices, (list, tuple)) else [choices])
        return {key: number(each) for key, each in value.items()}
    if not isinstance(value, (tuple, list)):
        return number(value)
    numbers = [number(each) for each in value]
    if isinstance(value, tuple) and len(numbers) == 2 and all(map(is_number, numbers)):
        return {"low": numbers[0], "high": numbers[1]}
    return numbers


def as_numbers(
    value: object, accepts: Callable[[object], TypeGuard[float]], allowed: str, log: Callable[[float], bool]
) -> Range | list[int | float]:
    """A range, or choices in ascending order.

    Args:
        value: as written.
        accepts: whether a number is allowed.
        allowed: which ones are, for errors.
        log: whether a range with this lower end is on a log scale if it does not say.

    Raises:
        ValueError: numbers are missing or not allowed, or the range is empty.
    """
    found = as_domain(dict(value) if isinstance(value, Range) else value)
    if isinstance(found, Mapping):
        low, high = found.get("low"), found.get("high")
        if not (accepts(low) and accepts(high)):
            raise ValueError(f"{value!r} is not allowed; a range is {{low: .., high: ..}}, {allowed}")
        return range_of(found, log=log(low))
    numbers = found if isinstance(found, list) else [found]
    fitting = [each for each in numbers if accepts(each)]
    if not numbers or len(fitting) < len(numbers):
        raise ValueError(f"{value!r} is not allowed; use a number, a list, or {{low, high}}, {allowed}")
    return sorted({plain(each) for each in fitting})


def as_whole_numbers(value: object) -> object:
    """Choices of whole numbers; a range has its ends and the powers of two between, on a linear scale all."""
    value = as_domain(value)
    if isinstance(value, Mapping):
        return _expanded(value)
    return [value] if is_number(value) else value


def _expanded(given: Mapping[str, object]) -> list[int]:
    ends = [given.get("low"), given.get("high")]
    if not all(is_number(end) and float(end).is_integer() and end >= 1 for end in ends):
        raise ValueError(f"{dict(given)!r} is not allowed; a range is {{low: 4, high: 64}}, of whole numbers from 1")
    found = range_of(given, log=True)
    low, high = int(found.low), int(found.high)
    if not found.log and high - low >= MOST_WHOLE_NUMBERS:
        raise ValueError(f"the range ({low}, {high}) holds more than {MOST_WHOLE_NUMBERS} numbers; use log: true")
    return whole_numbers(low, high, found.log)


WholeNumbers = Annotated[
    list[Annotated[int, Field(ge=1)]],
    BeforeValidator(as_whole_numbers),
    Field(min_length=1),
    AfterValidator(lambda values: sorted(set(values))),
]
