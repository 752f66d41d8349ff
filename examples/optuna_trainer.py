"""autolora's sampler and divergence rule in plain Optuna, around transformers' Trainer with peft.

    python examples/optuna_trainer.py [TRIALS]

Or by Trainer.hyperparameter_search, which sets training arguments alone (transformers#29391), so that rank and alpha
are suggested where the model is made: Trainer(model_init=model_init, ...).hyperparameter_search(
    hp_space, n_trials=8, backend="optuna", sampler=LoraSampler(hidden_size=96, examples=EXAMPLES))
"""

import json
import sys
from pathlib import Path

import optuna
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from autolora.integrations.optuna import LoraSampler
from autolora.integrations.transformers import DivergenceCallback
from autolora.quickstart import resolve

EXAMPLES, FIXED = 240, {"num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
tokenizer = AutoTokenizer.from_pretrained(resolve("builtin:quickstart"))
divergence = DivergenceCallback()  # reads the logs, so they should come often


def rows(name, count):
    for row in map(json.loads, Path(resolve(f"builtin:quickstart/{name}.jsonl")).read_text().splitlines()[:count]):
        prompt = tokenizer(row["prompt"] + "\n")["input_ids"]
        completion = tokenizer(row["completion"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        yield {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


def model_init(trial=None):
    divergence.trial = trial  # which is pruned where the training diverges
    model = AutoModelForCausalLM.from_pretrained(resolve("builtin:quickstart"))
    rank = trial.suggest_categorical("r", [4, 16]) if trial else 4  # hyperparameter_search looks at a model first
    alpha = trial.suggest_int("lora_alpha", 4, 128, log=True) if trial else 4
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"))


def hp_space(trial):
    batch_size = trial.suggest_categorical("per_device_train_batch_size", [8, 16])
    rate = trial.suggest_float("learning_rate", 1e-5, 1.0, log=True)  # last, as it depends on all others
    return {"per_device_train_batch_size": batch_size, "learning_rate": rate}


def objective(trial):
    data = {"train_dataset": list(rows("train", EXAMPLES)), "eval_dataset": list(rows("test", 100))}
    model, arguments = model_init(trial), TrainingArguments("runs/optuna_trainer", **hp_space(trial), **FIXED)
    trainer = Trainer(model, arguments, DataCollatorForSeq2Seq(tokenizer), **data, callbacks=[divergence])
    trainer.train()
    return trainer.evaluate()["eval_loss"]


if __name__ == "__main__":
    study = optuna.create_study(sampler=LoraSampler(hidden_size=96, examples=EXAMPLES))
    study.optimize(objective, n_trials=int(sys.argv[1]) if sys.argv[1:] else 10)
    print(study.best_value, study.best_params)
