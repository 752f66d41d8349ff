"""Lists and objects in cells, as such or as JSON text.

Arrow gives all objects of a column the same keys and fills in None for those that an object lacks. So None in an object
means that the row does not have the key. A null inside JSON text is what the row says, and stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autolora.tasks.data.errors import DataError, show


def nested(value: object, place: str) -> Any:
    """What a cell holds.

    Args:
        value: JSON text, which is parsed, or anything else, from which keys with None are removed at all depths.
        place: file, row and column, for the error.

    Raises:
        DataError: ``value`` is text, but not JSON.
    """
    return parsed(value, place) if isinstance(value, str) else without_missing(value)


def parsed(value: object, place: str) -> Any:
    """A part of what :func:`nested` gave: what it says if it is JSON text, otherwise itself.

    Raises:
        DataError: as there.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise DataError(
            f"{place} is text that is not JSON ({error}): {show(value)}; write a list or an object, or its JSON text"
        ) from None


def without_missing(value: object) -> object:
    """``value`` without the keys whose value is None, at all depths. Items of lists stay."""
    if isinstance(value, Mapping):
        return {key: without_missing(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_missing(item) for item in value]
    return value


def is_blank(value: object) -> bool:
    """Whether a cell holds nothing: None, an empty list or object, or text that is white space or JSON of these."""
    return not value or (isinstance(value, str) and value.strip() in ("", "null", "[]", "{}"))
