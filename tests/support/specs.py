"""Small specifications on the shipped model and task."""

from __future__ import annotations

from typing import Any

from autolora import spec as specs

SMALL_SPEC: dict[str, Any] = {
    "model": "builtin:quickstart",
    "data": {"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": 24},
    "variants": ["lora"],
    "space": {"learning_rate": [1e-4, 3e-2], "batch_size": [4, 8], "rank": [2, 4]},
    "training": {"examples": 72, "max_length": 64, "device": "cpu"},
    "budget": 3,
}


def small_spec(**overrides: Any) -> specs.Spec:
    """SMALL_SPEC with overrides, whose keys may be dotted."""
    return specs.load({**SMALL_SPEC, "data": dict(SMALL_SPEC["data"])}, **overrides)
