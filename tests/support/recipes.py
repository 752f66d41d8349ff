"""What the tests of recipes share: the settings of a study, and its files read again."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import yaml

from autolora import variants
from autolora.recipes import write

NAMES = variants.names()
TUNED = {"learning_rate": 3.0e-4, "batch_size": 24, "rank": 8, "alpha": 39.2}
EXAMPLES, STEPS, WARMUP = 1000, 42, 5
TRAINING = {
    "examples": EXAMPLES,
    "max_length": 96,
    "schedule": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "dropout": 0.05,
    "max_grad_norm": 0.5,
    "micro_batch": 9,
}
MICRO, ACCUMULATION = 8, 3  # of a batch of 24, at most 9 at a time
QUESTIONS = [{"question": "How many?", "answer": "Seven."}, {"question": "And now?", "answer": "Eight."}]
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


def axolotl(folder: Path, variant: str = "lora") -> dict[str, Any]:
    [path] = write(folder, variant, "axolotl", folder.parent / "out")
    return yaml.safe_load(path.read_text())


def llamafactory(folder: Path, variant: str = "lora") -> tuple[dict[str, Any], dict[str, Any]]:
    settings, datasets = write(folder, variant, "llamafactory", folder.parent / "out")
    return yaml.safe_load(settings.read_text()), json.loads(datasets.read_text())


def trl(folder: Path, variant: str = "lora") -> str:
    [path] = write(folder, variant, "trl", folder.parent / "out")
    source = path.read_text()
    compile(source, str(path), "exec")
    return source


def call(source: str, function: str) -> dict[str, Any]:
    """The constant keyword arguments of the one call of ``function`` in a script."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    ]
    assert len(calls) == 1
    found = {}
    for keyword in calls[0].keywords:
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            found[keyword.arg] = ast.unparse(keyword.value)
    return found


def text_of(source: str, row: dict[str, Any]) -> dict[str, Any]:
    """What the script makes of a row."""
    kept = []
    for node in ast.parse(source).body:
        constant = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
        if constant or isinstance(node, ast.FunctionDef):
            kept.append(node)
    names: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), "script", "exec"), names)
    return names["example"](row)
