"""Specifications of commands that train in milliseconds."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from autolora import spec as specs
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.command.trainer import CommandTrainer
from tests.support import train_command

SCRIPT = Path(train_command.__file__)
ARGUMENTS = (
    "--lr {learning_rate} --batch {batch_size} --rank {rank} --alpha {alpha} --seed {seed} --folder {folder} "
    "--stop {stop_examples}"
)
TRAINS = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))} {ARGUMENTS}"
"""Trains as :mod:`tests.support.train_command` does."""
SPACE = {"learning_rate": [1e-3, 3e-1], "batch_size": [4, 8], "rank": [2, 4]}
CONFIG = Config(learning_rate=5e-2, batch_size=8, rank=4, alpha=8.0)
RUNGS = (1 / 9, 1 / 3, 1.0)
SCORES = """echo '{{"eval_loss": 2.5}}' >> "$AUTOLORA_REPORT" """
"""Reports a score."""


def command_spec(command: str = TRAINS, examples: int = 72, trainer: dict[str, Any] | None = None, **settings: Any):
    """A specification of a command; ``trainer``: further keys of its section."""
    asked = {"command": command, "examples": examples, **(trainer or {})}
    return specs.load({"trainer": asked, "space": SPACE, "budget": 3}, **settings)


def command_trainer(folder: Path, command: str = TRAINS, **settings: Any) -> CommandTrainer:
    """The trainer of such a specification."""
    return CommandTrainer(command_spec(command, **settings), folder)


def job(trial: int = 0, rung: int = 2, variant: str = "lora", config: Config = CONFIG, seed: int = 0) -> Job:
    """A segment of a trial, from its beginning."""
    return Job(trial, variant, config, seed=seed, start=0.0, stop=RUNGS[rung], rung=rung)
