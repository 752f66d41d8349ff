"""A run that generates completions and was cut anywhere ends as an uncut one, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from autolora import quickstart
from autolora import spec as specs
from autolora.search import Job
from autolora.space import Config
from autolora.trainers import Interrupted
from autolora.trainers.trl.trainer import TrlTrainer
from tests.trainers.transformers.support import interrupting, manifest, trained

pytest.importorskip("trl")

CONFIG = Config(learning_rate=1e-3, batch_size=4, rank=2, alpha=4.0)
ROWS = 20
"""Of which 16 are trained on: 8 optimizer steps an epoch."""


def opened(folder: Path, kind: str, examples: int, **keys: Any) -> TrlTrainer:
    rows = folder / "rows.jsonl"
    lines = Path(quickstart.resolve("builtin:quickstart/train.jsonl")).read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:ROWS]))
    file = folder / "trl.yaml"
    settings = {
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_generations": 2},
        **{"max_completion_length": 6, "reward_funcs": ["tests.support.rewards.letters"], "lora_dropout": 0.05},
        **{"bf16": False, "use_cpu": True, "gradient_checkpointing": False},
    }
    file.write_text(yaml.safe_dump({**settings, **keys}))
    spec = {
        "trainer": {"trl": kind, "config": str(file)},
        "model": "builtin:quickstart",
        "data": {"train": str(rows), "eval_size": 4},
        "metric": {"name": "reward", "direction": "maximize"},
        "variants": ["lora"],
        "space": {"learning_rate": [1e-4, 1e-2], "batch_size": [4], "rank": [2]},
        "training": {"examples": examples, "device": "cpu"},
        "rungs": [0.2, 1.0],
        "budget": 1,
    }
    return TrlTrainer.open(specs.load(spec), folder)


def job(trial: int, rung: int = 1) -> Job:
    return Job(trial, "lora", CONFIG, seed=0, start=0.0, stop=(0.2, 1.0)[rung], rung=rung)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "keys", "cuts"),
    [
        ("grpo", {}, {2: 2, 10: 10}),
        ("rloo", {}, {10: 10}),
        ("grpo", {"steps_per_generation": 8}, {1: 4, 5: 8}),
        ("grpo", {"num_iterations": 3}, {1: 3, 4: 6, 8: 9}),
        ("rloo", {"steps_per_generation": 4, "num_iterations": 2}, {1: 4}),
    ],
)
def test_a_cut_run_ends_as_an_uncut_one(kind, keys, cuts, tmp_path):
    """Interrupted after a step, it goes on to one at which it can be cut; so does a segment."""
    trainer = opened(tmp_path, kind, 48, **keys)
    uncut = trainer.run(job(0))
    for asked, cut in cuts.items():
        with pytest.raises(Interrupted):
            trainer.run(job(1), interrupting(asked))
        assert manifest(tmp_path, 1).step == cut
    outcome = trainer.run(job(1))
    trainer.run(job(2, rung=0))
    trainer.run(job(2))
    ours = trained(tmp_path, 0)
    assert outcome.value == uncut.value
    assert manifest(tmp_path, 0).losses == manifest(tmp_path, 1).losses == manifest(tmp_path, 2).losses
    for trial in (1, 2):
        assert [name for name, each in trained(tmp_path, trial).items() if not torch.equal(each, ours[name])] == []


def test_a_cycle_is_what_is_generated_at_once(tmp_path):
    trainer = opened(tmp_path, "grpo", 48, steps_per_generation=4, num_iterations=3)
    for accumulated, cycle in ((1, 12), (2, 6), (4, 3), (8, 3), (12, 1)):
        args = SimpleNamespace(steps_per_generation=4, num_iterations=3, gradient_accumulation_steps=accumulated)
        assert trainer.cycle(SimpleNamespace(args=args)) == cycle
    assert trainer.cycle(SimpleNamespace(args=SimpleNamespace())) == 1
