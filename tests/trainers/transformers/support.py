"""A trainer of a function in a folder, and segments for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from autolora import spec as specs
from autolora.search import Job
from autolora.space import Config
from autolora.trainers import Progress, Trainer, checkpoint, open_trainer
from autolora.trainers.trainer import Interrupted, OnStep
from autolora.trainers.transformers.segment import adapter_of
from tests.support.makers import SPEC

CONFIG = Config(learning_rate=5e-3, batch_size=8, rank=4, alpha=8.0)


def opened(function: str, folder: Path, **settings: Any) -> Trainer:
    """A trainer of one of the functions of ``tests.support.makers``; settings may be dotted with ``__``."""
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    return open_trainer(specs.load({**SPEC, "trainer": f"tests.support.makers:{function}"}, **overrides), folder)


def piece(trial: int, rung: int = 1, variant: str = "lora", config: Config = CONFIG) -> Job:
    return Job(trial, variant, config, seed=0, start=0.0, stop=(1 / 3, 1.0)[rung], rung=rung)


def interrupting(step: int) -> OnStep:
    """Stops a segment after this step."""

    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise Interrupted

    return stop


def trained(folder: Path, trial: int) -> dict[str, Tensor]:
    """What the newest checkpoint of a trial has of the model."""
    found = checkpoint.newest_files(folder / "trials" / str(trial))
    assert found is not None
    return adapter_of(found[1])


def manifest(folder: Path, trial: int) -> checkpoint.Manifest:
    found = checkpoint.read_manifest(folder / "trials" / str(trial))
    assert found is not None
    return found
