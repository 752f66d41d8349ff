"""One SFT task for every trainer: the shipped model and rows, a linear schedule without warm-up, no clipping."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autolora import spec as specs

ROOT = Path(__file__).parents[2]
LOOP = ROOT / "examples" / "plain_pytorch.py"
EVALUATED = 128
"""Rows of the test file that steer the search, as in the example's loop."""
DATA = {"train": "builtin:quickstart/train.jsonl", "eval": "builtin:quickstart/test.jsonl", "eval_size": EVALUATED}
TRL = {
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
    "lora_dropout": 0.0,
    "max_length": 256,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
}
TRAINING = {"schedule": "linear", "warmup_ratio": 0.0, "max_grad_norm": 0.0, "max_length": 256}
"""Of the builtin trainer; the others have it in settings of their own."""
TRAINERS = ("builtin", "trl", "command")


def specification(trainer: str, folder: Path, examples: int, **settings: Any) -> specs.Spec:
    """The task for one trainer.

    Args:
        trainer: one of TRAINERS.
        folder: for TRL's configuration file.
        examples: of a full run.
        settings: further keys of the specification.
    """
    spec: dict[str, Any] = {
        "model": "builtin:quickstart",
        "variants": ["lora"],
        "space": {"learning_rate": "auto", "batch_size": [8, 16], "rank": [4, 8, 16], "alpha": "law"},
        "training": {"device": "cpu"},
    }
    return specs.load({**spec, **_own(trainer, folder, examples), **settings}, **_training(trainer, examples))


def _own(trainer: str, folder: Path, examples: int) -> Mapping[str, Any]:
    if trainer == "builtin":
        return {"data": DATA}
    if trainer == "command":
        return {"trainer": {"command": f"{sys.executable} {LOOP}", "examples": examples, "cwd": str(ROOT)}}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "trl.yaml"
    file.write_text(yaml.safe_dump(TRL))
    return {"data": DATA, "trainer": {"trl": "sft", "config": str(file)}, "baseline": None}


def _training(trainer: str, examples: int) -> Mapping[str, Any]:
    own = TRAINING if trainer == "builtin" else {}
    told = {} if trainer == "command" else {"examples": examples}
    return {f"training.{key}": value for key, value in {**own, **told}.items()}
