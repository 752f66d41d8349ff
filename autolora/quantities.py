"""Times and sizes as people write them: "1h30m", "20GB"."""

from __future__ import annotations

import math
import re

UNITS_OF_TIME = {
    1.0: ("s", "sec", "secs", "second", "seconds"),
    60.0: ("m", "min", "mins", "minute", "minutes"),
    3600.0: ("h", "hr", "hrs", "hour", "hours"),
    86400.0: ("d", "day", "days"),
}
UNITS_OF_SIZE = {
    1: ("b", "byte", "bytes"),
    **{1000**power: (f"{letter}b",) for power, letter in enumerate("kmgt", start=1)},
    **{1024**power: (f"{letter}ib",) for power, letter in enumerate("kmgt", start=1)},
}
_PART = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]+)\s*")
_SECONDS = {name: factor for factor, names in UNITS_OF_TIME.items() for name in names}
_BYTES = {name: factor for factor, names in UNITS_OF_SIZE.items() for name in names}


def seconds(given: object) -> float:
    """Seconds of a time: a number of them, or text with units such as "4h", "90 min" or "1h30m".

    Raises:
        ValueError: it is something else, or not above 0.
    """
    example = "write seconds as a number, or a time such as 90m, 4h or 1h30m"
    if isinstance(given, str) and not _is_number(given):
        found = sum(number * _factor(unit, _SECONDS, given, example) for number, unit in _parts(given, example))
    else:
        found = _number(given, example)
    return _positive(found, given, example)


def size_in_bytes(given: object) -> int:
    """Bytes of a size: a number of them, or text with a unit, as "20GB" (10^9) or "20GiB" (2^30).

    Raises:
        ValueError: it is something else, or not above 0.
    """
    example = "write bytes as a number, or a size such as 20GB, 16GiB or 500MB"
    if isinstance(given, str) and not _is_number(given):
        parts = _parts(given, example)
        if len(parts) > 1:
            raise ValueError(f"{given!r} is not allowed; {example}")
        [(number, unit)] = parts
        found = number * _factor(unit, _BYTES, given, example)
    else:
        found = _number(given, example)
    return max(1, round(_positive(found, given, example)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parts(text: str, example: str) -> list[tuple[float, str]]:
    found, end = [], 0
    for part in _PART.finditer(text):
        if part.start() != end:
            break
        found.append((float(part[1]), part[2]))
        end = part.end()
    if not found or end != len(text):
        raise ValueError(f"{text!r} is not allowed; {example}")
    return found


def _factor(unit: str, known: dict[str, float] | dict[str, int], given: str, example: str) -> float:
    if unit.lower() not in known:
        raise ValueError(f"{given!r} has the unit {unit!r}, which is unknown; {example}")
    return float(known[unit.lower()])


def _number(given: object, example: str) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        raise ValueError(f"{given!r} is not allowed; {example}")
    return float(given)


def _positive(found: float, given: object, example: str) -> float:
    if not (math.isfinite(found) and found > 0):
        raise ValueError(f"{given!r} is not allowed; it must be above 0: {example}")
    return found
