"""Sentence embeddings with sentence-transformers: a text is near its answer. In this folder:

pip install sentence-transformers
autolora tune embeddings.yaml
"""

import json

import datasets
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.models import Pooling, Transformer

from autolora.quickstart import resolve

MODEL = resolve("builtin:quickstart")


def load():
    words = Transformer(MODEL, max_seq_length=64)
    words.tokenizer.pad_token = words.tokenizer.pad_token or words.tokenizer.eos_token
    return SentenceTransformer(modules=[words, Pooling(96)], device="cpu")


def rows(split, count):
    with open(resolve(f"builtin:quickstart/{split}.jsonl"), encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines][:count]
    return datasets.Dataset.from_dict(
        {"anchor": [row["prompt"] for row in found], "positive": [row["completion"] for row in found]}
    )


def make_trainer(trial):
    model = trial.base(load)
    model.add_adapter(trial.peft_config(task_type="FEATURE_EXTRACTION"))
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**trial.arguments(), num_train_epochs=1),
        train_dataset=rows("train", 320),
        eval_dataset=rows("test", 96),
        loss=MultipleNegativesRankingLoss(model),
    )
