"""A YAML file of the user's with some values replaced; all else, comments and order included, stays as written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from autolora.documents import parse_yaml

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""A number that YAML 1.1, and so PyYAML, reads as text, and people write: 2e-4."""
_BLOCKS = ("|", ">")
LEFT_OUT = "# Comments of the file are left out: its values could not be replaced where they stand.\n"


@dataclass(frozen=True)
class Change:
    """One key of a file.

    Attributes:
        key: at the top of the file.
        value: plain data; unused if it is removed.
        removed: whether the key goes.
    """

    key: str
    value: Any = None
    removed: bool = False


def edited(text: str, changes: Sequence[Change], title: str) -> str:
    """The file with some of its keys changed.

    Args:
        text: a YAML mapping; keys that it lacks are written at its end.
        changes: at most one a key.
        title: comment above the keys that are new.

    Returns:
        A text that holds what was asked for. Where that cannot be had by replacing values in place, as with anchors
        or in JSON, it is written from its content, without the comments,
        and says so.
    """
    expected = _content(text, changes)
    found = _in_place(text, changes, title)
    if found is not None and _same(found, expected):
        return found
    return (LEFT_OUT if "#" in text else "") + _dumped(expected)


def as_number(value: Any) -> Any:
    """A number for text such as ``"2e-4"``, which YAML takes for text and people mean as a number; else the value.

    Text that no float can hold, as the revision ``1234e567``, is no number.
    """
    if isinstance(value, str) and _EXPONENT.fullmatch(value) and math.isfinite(number := float(value)):
        return number
    return value


def _content(text: str, changes: Sequence[Change]) -> dict[str, Any]:
    content = dict(parse_yaml(text, "the file") or {})
    for change in changes:
        if change.removed:
            content.pop(change.key, None)
        else:
            content[change.key] = change.value
    return content


def _same(text: str, expected: Mapping[str, Any]) -> bool:
    try:
        return bool(parse_yaml(text, "the file") == expected)
    except ValueError:  # an alias whose anchor was replaced
        return False


def _in_place(text: str, changes: Sequence[Change], title: str) -> str | None:
    """The text with values replaced where they stand; None if it is no mapping in block style."""
    root = yaml.compose(text, yaml.SafeLoader)
    if root is None:
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    elif isinstance(root, yaml.MappingNode) and not root.flow_style:
        found = {key.value: (key, value) for key, value in root.value}
    else:
        return None
    new = {change.key: change.value for change in changes if change.key not in found and not change.removed}
    for change in sorted(changes, key=lambda each: _place(found, each.key), reverse=True):
        if change.key in found:
            text = _replaced(text, change, *found[change.key])
    if not new:
        return text
    return f"{text.rstrip()}\n\n# {title}\n{_dumped(new)}".lstrip()


def _place(found: Mapping[str, tuple[yaml.Node, yaml.Node]], key: str) -> int:
    return int(found[key][0].start_mark.index) if key in found else -1


def _replaced(text: str, change: Change, key: yaml.Node, value: yaml.Node) -> str:
    start, end = value.start_mark.index, value.end_mark.index
    if _spans_lines(value):
        # whole lines, but for comments between it and the next key
        line_end = text.find("\n", max(start, _end(value) - 1))
        kept = "" if line_end < 0 else text[line_end + 1 :]
        written = "" if change.removed else _dumped({change.key: change.value})
        return text[: key.start_mark.index] + written + kept
    if change.removed:
        line_end = text.find("\n", end)
        return text[: key.start_mark.index] + ("" if line_end < 0 else text[line_end + 1 :])
    space = " " if start == end else ""
    return text[:start] + space + _inline(change.value) + text[end:]


def _spans_lines(value: yaml.Node) -> bool:
    if isinstance(value, yaml.CollectionNode):
        return not value.flow_style
    return isinstance(value, yaml.ScalarNode) and value.style in _BLOCKS


def _end(node: yaml.Node) -> int:
    """Where what a node holds ends; the mark of one in block style is where the next key begins."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _inline(value: Any) -> str:
    """On one line, as a value in a mapping."""
    dumped = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf"))
    return dumped.strip()[1:-1]


def _dumped(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
