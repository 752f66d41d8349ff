"""The placeholders of a command line."""

from __future__ import annotations

import os
import shlex
import string
import subprocess
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from autolora.errors import closest
from autolora.trainers.command.errors import CommandError
from autolora.trainers.trial import Trial

OWN = (
    *("trial", "variant", "seed", "folder", "start", "stop", "stop_examples", "stop_steps", "steps", "rung"),
    "examples",
)
"""What a trial has beside its searched fields."""


def values(trial: Trial) -> dict[str, Any]:
    """What each placeholder stands for in a trial."""
    own = {name: trial.number if name == "trial" else getattr(trial, name) for name in OWN}
    return {**trial.config, **own}


def names(key: str, text: str) -> list[str]:
    """The placeholders of a text, in their order.

    Args:
        key: of the specification, for errors.
        text: in which ``{{`` and ``}}`` are braces.

    Raises:
        CommandError: a brace has no other, or encloses something else than a name.
    """
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise CommandError(f"{key}: {text!r}: {error}; a brace of its own is written twice") from None
    found = []
    for _, name, form, conversion in parsed:
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            shown = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise CommandError(
                f"{key}: {{{shown}}} is not a placeholder: it encloses a name alone, as in {{learning_rate}}; braces "
                "of its own are written twice"
            )
        found.append(name)
    return found


def check(key: str, text: str, known: Iterable[str]) -> None:
    """Raise ``CommandError`` if a text has placeholders other than these."""
    known = list(known)
    for name in names(key, text):
        if name not in known:
            close = closest(name, known)
            hint = f"did you mean {{{close}}}?" if close else f"known here: {', '.join(f'{{{one}}}' for one in known)}"
            raise CommandError(f"{key}: {{{name}}} is unknown; {hint}")


def filled(key: str, text: str, found: Mapping[str, Any], quoted: Callable[[str], str]) -> str:
    """The text with each placeholder replaced by its value.

    Raises:
        CommandError: there is no such value.
    """
    check(key, text, found)
    parts = []
    for literal, name, _, _ in string.Formatter().parse(text):
        parts.append(literal)
        if name is not None:
            parts.append(quoted(written(found[name])))
    return "".join(parts)


def written(value: Any) -> str:
    """A value as an argument: whole numbers without a decimal point, so that they do as those, too."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def for_shell(text: str) -> str:
    """An argument quoted for the shell that runs command lines here."""
    return shlex.quote(text) if os.name == "posix" else subprocess.list2cmdline([text])


def plainly(text: str) -> str:
    """A text as it is, for a path."""
    return text
