"""Two sets of terms compared, in the user's words."""

from __future__ import annotations

from collections.abc import Container, Mapping


def differences(old: Mapping[str, object], new: Mapping[str, object], ignored: Container[str] = ()) -> list[str]:
    """Readable differences, one per key: ``"training.examples: 72 -> 144"``.

    Args:
        old, new: plain data; keys of nested mappings are joined with dots.
        ignored: dotted keys that may differ.
    """
    before, after = _flatten(old), _flatten(new)
    return [
        f"{key}: {before.get(key, '(not set)')} -> {after.get(key, '(not set)')}"
        for key in sorted(before.keys() | after.keys())
        if key not in ignored and before.get(key) != after.get(key)
    ]


def _flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
