"""Files in JSON and YAML that somebody may have written by hand or damaged: read whole, and of the shape expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from autolora import files
from autolora.errors import AutoloraError

Shape = TypeVar("Shape")

LONGEST = 80
"""Characters of a value that a message shows."""


class DocumentError(AutoloraError, ValueError):
    """A file is damaged, or holds something else than expected; the message names the file and the place in it."""


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DocumentError: it is not JSON in UTF-8.
        OSError: it cannot be opened.
    """
    text = _text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{files.shown(path)} is not valid JSON: {_reason(error)}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; see :func:`parse_yaml`.

    Raises:
        DocumentError: it is not YAML in UTF-8.
        OSError: it cannot be opened.
    """
    return parse_yaml(_text(path), files.shown(path))


def parse_yaml(text: str, name: str) -> Any:
    """The content of a YAML text, in which every key is text and is given once.

    Args:
        text: one YAML document.
        name: what errors call it.

    Raises:
        DocumentError: it is not YAML, a key is given twice or is not text, or an anchor holds itself.
    """
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
    except _KeyFault as fault:
        raise DocumentError(f"{name}, {fault}") from None
    # Beside YAMLError, PyYAML raises what its conversions of numbers, dates and tagged values raise.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = _reason(error)
        braces = "mapping" in reason and "{" in text  # as in command: {rank} train
        hint = ". A value that holds braces must be in quotes" if braces else ""
        raise DocumentError(f"{name} is not valid YAML: {reason}{hint}") from None
    if _holds_itself(content, ()):
        raise DocumentError(f"{name} has an anchor (&) that is referred to (*) within what it stands for; write it out")
    return content


def _holds_itself(content: object, above: tuple[int, ...]) -> bool:
    """Whether a mapping or list is found again within itself; ``above`` has the identities of those it is within."""
    if not isinstance(content, (dict, list)):
        return False
    within = (*above, id(content))
    inner = content.values() if isinstance(content, dict) else content
    return id(content) in above or any(_holds_itself(each, within) for each in inner)


def shaped(content: object, read: Callable[[Any], Shape], path: Path, remedy: str) -> Shape:
    """A document as what it stands for.

    Args:
        content: of the file, as it was read.
        read: makes it; raises pydantic's ``ValidationError`` for content of another shape.
        path: of the file.
        remedy: what to do about a file of another shape, as a sentence.

    Raises:
        DocumentError: the content is of another shape; names the first place where.
    """
    from pydantic import ValidationError

    try:
        return read(content)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = "is missing" if first["type"] == "missing" else f"is {shortened(first['input'])}: {first['msg']}"
        raise DocumentError(
            f"{files.shown(path)} is damaged or of another version ({at or 'it'} {what}). {remedy}"
        ) from None


def shortened(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _text(path: Path) -> str:
    if path.is_dir():
        raise DocumentError(f"{files.shown(path)} is a directory, not a file")
    content = path.read_bytes()
    if files.is_pointer(content):
        raise DocumentError(files.POINTER.format(files.shown(path)))
    try:
        return files.decoded(content)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{files.shown(path)} is not UTF-8 text ({error}); save it as UTF-8") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        # PyYAML's own message quotes the line, in which a password may stand.
        mark = error.problem_mark
        said = [*([error.context] if error.context else []), error.problem or type(error).__name__]
        return f"{', '.join(said)} (line {mark.line + 1}, column {mark.column + 1})"
    return str(error) or type(error).__name__


def _named(key: object) -> str:
    """A key for a message; of one that is a URL, which may hold a password, nothing."""
    return "(a URL)" if "://" in str(key) else shortened(key)


class _KeyFault(Exception):
    """A key that YAML allows, and that nobody means."""


class _Loader(yaml.SafeLoader):
    """PyYAML's, which takes the last of two values of one key without a word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Merging puts keys of other mappings into a node, and may meet it again: what was written is checked before.
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for written, _ in node.value:
            if written.tag == "tag:yaml.org,2002:merge":
                continue
            line = written.start_mark.line + 1
            key = self.construct_object(written, deep=True)
            if not isinstance(key, str):
                raise _KeyFault(f"line {line}: {_named(key)} is not a key; a key is text, in quotes")
            if key in lines:
                raise _KeyFault(
                    f"line {line}: the key {_named(key)} is there already, in line {lines[key]}; remove one"
                )
            lines[key] = line
