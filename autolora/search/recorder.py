"""Where a search records its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from autolora.search.trials import Direction, Event


class Recorder(Protocol):
    """Keeps the events of one search, so that the search can continue from them."""

    def begin(self, direction: Direction, terms: Mapping[str, object]) -> Sequence[Event]:
        """Begin or continue the record; called once, before any other method.

        Args:
            direction: "minimize" or "maximize".
            terms: what makes the search the same search, as JSON-able data.

        Returns:
            The past events, in order.

        Raises:
            ValueError: the record belongs to a search on other terms.
        """

    def write(self, event: Event) -> None:
        """Record an event. When this returns, the event is kept."""

    def close(self) -> None:
        """End the record; another process may then continue it."""


class InMemory:
    """Keeps nothing: the search's own table holds all events, and ends with it."""

    def begin(self, direction: Direction, terms: Mapping[str, object]) -> Sequence[Event]:
        return ()

    def write(self, event: Event) -> None: ...

    def close(self) -> None: ...
