"""The root of every error that a user can fix, and the hint for a mistyped word."""

from __future__ import annotations

from collections.abc import Iterable


class AutoloraError(Exception):
    """Says what was wrong, where, and what to do: its message is meant to be read without a traceback."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, for "did you mean ...?"; None if none is similar."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)
