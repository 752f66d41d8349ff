"""Small things that every room needs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], form: str) -> str:
    """A hint at the known word that is most alike, put into ``form`` at "{}"; empty if none is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return form.format(close[0]) if close else ""
