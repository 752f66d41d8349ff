"""Rewards for trainers that generate."""

from __future__ import annotations

from typing import Any


def letters(completions: list[str], **_: Any) -> list[float]:
    """Another one for every completion."""
    return [sum(map(ord, completion)) % 97 / 97 for completion in completions]
