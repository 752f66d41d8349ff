"""The one error of the data layer."""

from __future__ import annotations

from autolora.errors import AutoloraError


class DataError(AutoloraError, ValueError):
    """The data cannot be used; the message names the file, row (1-based), column and value, and what to do."""


def show(value: object) -> str:
    """``value`` for an error message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
