"""Values by name, sorted: numbers, texts, truth values and lists of names in one value of a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autolora.space.domain import plain

Scalar = bool | int | float | str
Choice = Scalar | tuple[str, ...]
"""One value of a field; a tuple of names is what a list of them is held as."""


class Named(tuple[tuple[str, Choice], ...]):
    """Pairs of name and value, sorted by name. Equal to a plain tuple of the same pairs, and ordered also where values
    are of different types: by name, then by type, then by value.
    """

    __slots__ = ()

    @classmethod
    def of(cls, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Named:
        """Of a mapping or of pairs, with lists as tuples and whole numbers as int."""
        return cls(sorted(((name, held(value)) for name, value in dict(values).items()), key=lambda pair: pair[0]))

    def as_dict(self) -> dict[str, Scalar | list[str]]:
        """As plain data."""
        return {name: unheld(value) for name, value in self}

    def _key(self) -> list[tuple[str, str, Any]]:
        return [(name, _kind(value), value) for name, value in self]

    def __lt__(self, other: Any) -> bool:
        return self._key() < Named(other)._key()

    def __le__(self, other: Any) -> bool:
        return self._key() <= Named(other)._key()

    def __gt__(self, other: Any) -> bool:
        return self._key() > Named(other)._key()

    def __ge__(self, other: Any) -> bool:
        return self._key() >= Named(other)._key()


def held(value: Any) -> Choice:
    """One form for each value, whether it was written as 16 or 16.0, in a list or in a tuple."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return plain(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def unheld(value: Choice) -> Scalar | list[str]:
    """The inverse of :func:`held`, as plain data."""
    return list(value) if isinstance(value, tuple) else value


def _kind(value: Choice) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    return type(value).__name__
