"""The divergence rule as a callback of transformers' Trainer."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import GridSampler
from optuna.trial import TrialState
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from autolora.integrations.optuna import LoraSampler
from autolora.integrations.transformers import DivergenceCallback
from autolora.quickstart import resolve

STEPS = 12
WILD = 1.0
"""A learning rate far beyond the cliff."""
TOKENIZER = AutoTokenizer.from_pretrained(resolve("builtin:quickstart"))


def rows() -> list[dict[str, Any]]:
    lines = Path(resolve("builtin:quickstart/train.jsonl")).read_text().splitlines()[: 8 * STEPS]
    tokens = [TOKENIZER(json.loads(line)["prompt"])["input_ids"] for line in lines]
    return [{"input_ids": row, "labels": row} for row in tokens]


def adapted() -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(resolve("builtin:quickstart"))
    return get_peft_model(base, LoraConfig(r=4, lora_alpha=4, target_modules="all-linear"))


def trainer(folder: Any, callback: DivergenceCallback, learning_rate: float = 1e-3, **model: Any) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        logging_steps=1,
        per_device_train_batch_size=8,
        max_steps=STEPS,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    data = {"train_dataset": rows(), "eval_dataset": rows()[:8], "data_collator": DataCollatorForSeq2Seq(TOKENIZER)}
    return Trainer(**(model or {"model": adapted()}), args=arguments, callbacks=[callback], **data)


def test_a_training_that_blows_up_is_stopped_within_steps_and_the_log_says_why(tmp_path, caplog):
    callback = DivergenceCallback()
    running = trainer(tmp_path, callback, WILD)
    with caplog.at_level(logging.WARNING, logger="autolora"):
        running.train()
    assert callback.diverged
    assert running.state.global_step < STEPS
    assert callback.reason in caplog.text


def test_a_healthy_training_is_left_alone(tmp_path):
    callback = DivergenceCallback()
    running = trainer(tmp_path, callback, 1e-3)
    running.train()
    assert not callback.diverged
    assert callback.reason is None
    assert running.state.global_step == STEPS
    callback.raise_if_diverged()


def test_a_callback_begins_anew_with_every_training(tmp_path):
    callback = DivergenceCallback()
    trainer(tmp_path, callback, WILD).train()
    with pytest.raises(optuna.TrialPruned, match="the training loss rose"):
        callback.raise_if_diverged()
    trainer(tmp_path, callback, 1e-3).train()
    assert not callback.diverged


def test_the_trial_of_a_diverged_training_is_pruned_and_marked(tmp_path):
    def objective(trial: optuna.Trial) -> float:
        trainer(tmp_path, DivergenceCallback(trial), trial.suggest_float("learning_rate", 1e-3, WILD, log=True)).train()
        return 1.0

    study = optuna.create_study(sampler=LoraSampler())
    study.enqueue_trial({"learning_rate": WILD})
    study.enqueue_trial({"learning_rate": 1e-3})
    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert [trial.constraints for trial in study.trials] == [{"diverged": 1.0}, {}]


def test_hyperparameter_search_goes_on_after_a_trial_that_diverged(tmp_path):
    callback, trials = DivergenceCallback(), []

    def hp_space(trial: optuna.Trial) -> dict[str, float]:
        callback.trial = trial
        trials.append(trial)
        return {"learning_rate": trial.suggest_categorical("rate", [WILD, 1e-3])}

    searching = trainer(tmp_path, callback, model_init=adapted)
    sampler = GridSampler({"rate": [WILD, 1e-3]}, seed=0)
    best = searching.hyperparameter_search(hp_space, n_trials=2, backend="optuna", sampler=sampler)
    assert best.hyperparameters == {"rate": 1e-3}
    states = {trial.params["rate"]: trial.state for trial in trials[0].study.trials}
    assert states == {WILD: TrialState.PRUNED, 1e-3: TrialState.COMPLETE}


class Log:
    """Feeds a callback what a Trainer would log."""

    def __init__(self, folder: Any, past: Sequence[dict[str, float]] = ()) -> None:
        self.callback, self.control = DivergenceCallback(), TrainerControl()
        self.arguments = TrainingArguments(str(folder), use_cpu=True, per_device_train_batch_size=32)
        self.state = TrainerState(log_history=list(past), logging_steps=1)
        self.callback.on_train_begin(self.arguments, self.state, self.control)

    def stopped_after(self, *logs: dict[str, float]) -> int | None:
        for count, line in enumerate(logs, start=1):
            self.callback.on_log(self.arguments, self.state, self.control, logs=line)
            if self.control.should_training_stop:
                return count
        return None


def losses(*values: float) -> list[dict[str, float]]:
    return [{"loss": value, "grad_norm": 1.0} for value in values]


def test_a_resumed_training_remembers_its_past(tmp_path):
    assert Log(tmp_path, losses(2.0, 2.0)).stopped_after(*losses(9.0, 9.0)) == 1
    assert Log(tmp_path).stopped_after(*losses(9.0, 9.0)) is None


def test_the_reason_names_the_trainer_s_step(tmp_path):
    log = Log(tmp_path)
    log.state.global_step = 70
    assert log.stopped_after(*losses(2.0, 9.0)) == 2
    assert "by step 70," in log.callback.reason


def test_a_gradient_norm_that_is_not_finite_stops(tmp_path):
    assert Log(tmp_path).stopped_after({"loss": 2.0, "grad_norm": math.nan}) == 1


def test_steps_that_the_fp16_loss_scaler_skips_are_no_divergence(tmp_path):
    log = Log(tmp_path)
    log.arguments.fp16 = True
    assert log.stopped_after({"loss": 2.0, "grad_norm": math.inf}, *losses(2.0, 2.0)) is None


def test_logs_without_a_gradient_norm_are_watched_by_their_loss(tmp_path):
    assert Log(tmp_path).stopped_after(*({"loss": value} for value in (2.0, 9.0))) == 2


def test_logs_of_other_things_are_passed_over(tmp_path):
    assert Log(tmp_path).stopped_after({"eval_loss": 2.0}, {"train_loss": math.nan}, {"epoch": 1.0}) is None


def test_an_evaluation_loss_that_is_not_finite_stops(tmp_path):
    log = Log(tmp_path)
    log.callback.on_evaluate(log.arguments, log.state, log.control, metrics={"eval_loss": 2.0, "epoch": 1.0})
    assert not log.control.should_training_stop
    log.callback.on_evaluate(log.arguments, log.state, log.control, metrics={"eval_loss": math.nan})
    assert log.control.should_training_stop
    assert log.callback.reason == "eval_loss became nan"
