"""What a case is, how it ends, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from studies.attack.world import World

SAME, CONCLUDED, STAND_IN, TOLD, READ = "same result", "concluded", "stand-in", "plain message", "read"
"""Ends as an undisturbed study; ends early, as `finish` does; ends with what replaces a lost result, and says so; is
refused with a message that names the place; is shown."""
SKIPPED = "skipped"


class Wrong(Exception):
    """The case did not end as it must. The message says what was seen."""


class Skip(Exception):
    """The case cannot be run here. The message says why."""


@dataclass(frozen=True)
class Case:
    """One way to disturb a study.

    Attributes:
        name: ``kind/what/where/when``, unique.
        run: disturbs the world that it is given, runs commands there, and returns how that ended, one of the constants
            above; raises :class:`Wrong` or :class:`Skip`.
    """

    name: str
    run: Callable[[World], str]

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]


CASES: dict[str, Case] = {}


def register(name: str, run: Callable[[World], str]) -> None:
    """Add a case.

    Raises:
        ValueError: the name is taken.
    """
    if name in CASES:
        raise ValueError(f"two cases are named {name}")
    CASES[name] = Case(name, run)
