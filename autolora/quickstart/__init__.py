"""A small pretrained model and a generated task, shipped so that the main job runs offline in minutes.

``builtin:quickstart`` names the model directory; ``builtin:quickstart/train.jsonl`` and ``.../test.jsonl`` the task.
"""

from __future__ import annotations

from pathlib import Path

PREFIX = "builtin:quickstart"
FOLDER = Path(__file__).parent


def resolve(name: str) -> str:
    """The path that a ``builtin:`` name stands for; any other name is returned as it is."""
    if name == PREFIX:
        return str(FOLDER / "model")
    if name.startswith(PREFIX + "/"):
        return str(FOLDER / name.removeprefix(PREFIX + "/"))
    return name
