"""A sequence classifier with transformers.Trainer: was anything lost? In this folder: autolora tune classifier.yaml

The base is loaded once a process, since make_trainer takes it from trial.base().
"""

import json

import datasets
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from autolora.quickstart import resolve

MODEL = resolve("builtin:quickstart")


def load():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2), tokenizer


def rows(split, tokenizer, count):
    with open(resolve(f"builtin:quickstart/{split}.jsonl"), encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines][:count]
    return datasets.Dataset.from_list(
        [{**tokenizer(row["prompt"]), "label": int(" -" in row["completion"])} for row in found]
    )


def accuracy(predicted):
    return {"accuracy": float((predicted.predictions.argmax(axis=-1) == predicted.label_ids).mean())}


def make_trainer(trial):
    model, tokenizer = trial.base(load)
    return Trainer(
        model=get_peft_model(model, trial.peft_config(task_type="SEQ_CLS")),
        args=TrainingArguments(**trial.arguments(), num_train_epochs=1, lr_scheduler_type="cosine"),
        train_dataset=rows("train", tokenizer, 320),
        eval_dataset=rows("test", tokenizer, 100),
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
