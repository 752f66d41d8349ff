"""The placeholders of a command line."""

from __future__ import annotations

import os
import shlex
import string
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from autolora.errors import closest
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.process import TRIAL
from autolora.trainers.command.quoting import Scanner
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
        raise CommandError(f"{key}: {text!r}: {error}; write {{{{ and }}}} for braces of its own") from None
    found = []
    for _, name, form, conversion in parsed:
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            shown = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise CommandError(
                f"{key}: {{{shown}}} is not a placeholder: it encloses a name alone, as in {{learning_rate}}; write "
                "{{ and }} for braces of its own"
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


def filled(key: str, text: str, found: Mapping[str, Any]) -> str:
    """The text, a path, with each placeholder replaced by its value as it is.

    Raises:
        CommandError: there is no such value.
    """
    check(key, text, found)
    return "".join(literal + ("" if name is None else written(found[name])) for literal, name in _pieces(text))


def command_line(key: str, text: str, found: Mapping[str, Any]) -> str:
    """The text, a line for the shell, with each placeholder replaced by its value, quoted.

    Inside quotes of the text, what is quoted for a shell would be read in another way, or by another shell, as in
    ``sh -c '...'``. So only values that need no quotes, as numbers, are filled in there.

    Raises:
        CommandError: there is no such value, or it needs quotes and stands inside some.
    """
    check(key, text, found)
    parts, scanner = [], Scanner()
    for literal, name in _pieces(text):
        parts.append(literal)
        scanner.text(literal)
        if name is None:
            continue
        value = written(found[name])
        quoted = for_shell(value)
        if quoted != value and scanner.place is not None:
            remedy = "remove the quotes" if scanner.place == "inside quotes" else "write it outside"
            raise CommandError(
                f"{key}: {{{name}}} is {scanner.place}; autolora quotes it itself: {remedy}. Its value {value!r} has "
                f"characters that a shell takes for others; a script can read it from the file that {TRIAL} names, too"
            )
        parts.append(quoted)
        scanner.word()
    return "".join(parts)


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """Each placeholder with the text before it; the last has none."""
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(text)]


def written(value: Any) -> str:
    """A value as an argument: whole numbers without a decimal point, so that they do as those, too; true and false in
    small letters, names with commas between."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def for_shell(text: str) -> str:
    """An argument quoted for the shell that runs command lines here."""
    return shlex.quote(text) if os.name == "posix" else subprocess.list2cmdline([text])
