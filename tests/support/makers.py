"""Functions that make trainers, as users write them; specifications name them as ``tests.support.makers:NAME``."""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

from autolora.trainers.trial import Trial
from tests.support.tiny_models import VOCABULARY, build_model

ROWS, LENGTH = 36, 12


def rows(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Sequences in which each token follows from the one before, with noise."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        first = int(torch.randint(3, VOCABULARY, (), generator=generator))
        ids = torch.tensor([3 + (first + 7 * step) % (VOCABULARY - 3) for step in range(LENGTH)])
        found.append({"input_ids": ids, "labels": ids})
    return found


def arguments(trial: Trial, **options: Any) -> TrainingArguments:
    return TrainingArguments(**{**trial.arguments(), "max_grad_norm": 1.0, "num_train_epochs": 2, **options})


def load() -> torch.nn.Module:
    return build_model("llama")


def _trainer(trial: Trial, model: torch.nn.Module, **options: Any) -> Trainer:
    return Trainer(
        model=model,
        args=arguments(trial, **options),
        train_dataset=rows(ROWS, 1),
        eval_dataset=rows(12, 2),
    )


def attached(trial: Trial) -> Trainer:
    """Any variant, on the resident base."""
    return _trainer(trial, trial.attach(trial.base(load)))


def plain(trial: Trial) -> Trainer:
    """What plain PEFT has, on the resident base."""
    return _trainer(trial, get_peft_model(trial.base(load), trial.peft_config()))


def own(trial: Trial) -> Trainer:
    """A model of its own for every trial."""
    return _trainer(trial, get_peft_model(load(), trial.peft_config()))
