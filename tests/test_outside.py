"""The tuned configuration holds outside: transformers.Trainer with plain peft reaches the same validation loss."""

from __future__ import annotations

from statistics import stdev

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from autolora.metrics.eval_loss import eval_loss
from autolora.quickstart import resolve
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.evaluation import SplitEvaluation
from autolora.trainers.builtin.workbench import Workbench
from tests.support.specs import small_spec

CONFIG = Config(learning_rate=5e-3, batch_size=8, rank=4, alpha=8.0)
SEEDS = (0, 1, 2)


class Rows(torch.utils.data.Dataset):
    def __init__(self, split, count: int) -> None:
        self.split, self.count = split, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> int:
        return row


def trainer_loss(bench: Workbench, seed: int, folder) -> float:
    """Train by transformers.Trainer with the settings that the study would export."""
    spec = bench.training
    base = AutoModelForCausalLM.from_pretrained(resolve("builtin:quickstart"), dtype=torch.float32)
    torch.manual_seed(seed)
    model = get_peft_model(
        base, LoraConfig(r=CONFIG.rank, lora_alpha=CONFIG.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=CONFIG.batch_size,
        learning_rate=CONFIG.learning_rate,
        lr_scheduler_type=spec.schedule,
        warmup_steps=spec.warmup_ratio,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        num_train_epochs=1,
        seed=seed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    train = Rows(bench.data.train, bench.examples)
    Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        data_collator=lambda rows: bench.data.train.batch(rows, bench.base.pad_token_id),
    ).train()
    view = SplitEvaluation(model.eval(), bench.base, bench.data.eval, max_new_tokens=1, batch_size=32)
    with torch.no_grad():
        return eval_loss(view).value


@pytest.mark.slow
def test_transformers_trainer_with_the_exported_settings_ends_within_seed_noise(tmp_path):
    spec = small_spec(**{"training.examples": 240, "data.eval_size": 100})
    bench = Workbench.open(spec, tmp_path)
    ours = [segment.run(bench, Job(seed, "lora", CONFIG, seed, start=0.0, stop=1.0, rung=2)).value for seed in SEEDS]
    theirs = [trainer_loss(bench, seed, tmp_path / "trainer") for seed in SEEDS]
    noise = max(stdev(ours), stdev(theirs), 0.02)
    assert abs(sum(ours) - sum(theirs)) / len(SEEDS) < 3 * noise, (ours, theirs)
