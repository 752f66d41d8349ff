"""Functions that make trainers, as users write them; specifications name them as ``tests.support.makers:NAME``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import IterableDataset, Sampler
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    get_constant_schedule_with_warmup,
)

from autolora.trainers.trial import Trial
from tests.support.tiny_models import CONFIGS, VOCABULARY, build_model

ROWS, EPOCHS = 36, 2
SPEC: dict[str, Any] = {
    "variants": ["lora"],
    "space": {"learning_rate": [1e-4, 3e-2], "batch_size": [4, 8], "rank": [2, 4]},
    "training": {"device": "cpu", "dropout": 0.1},
    "rungs": [1 / 3, 1.0],
    "budget": 3,
}
"""A study of a second or two; ``trainer`` is missing."""


def rows(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Sequences of 8 to 15 tokens, each of which follows from the one before."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        first, length = (int(torch.randint(3, 8, (), generator=generator)) for _ in range(2))
        ids = torch.tensor([3 + (first + 7 * step) % (VOCABULARY - 3) for step in range(5 + length)])
        found.append({"input_ids": ids, "labels": ids})
    return found


def padded(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    fill = {"input_ids": 0, "labels": -100}
    return {
        name: nn.utils.rnn.pad_sequence([row[name] for row in batch], batch_first=True, padding_value=value)
        for name, value in fill.items()
    }


def load() -> nn.Module:
    return build_model("llama")


OF_TRAINER = (
    *("callbacks", "train_dataset", "eval_dataset", "compute_metrics"),
    *("optimizers", "optimizer_cls_and_kwargs"),
)


def made(trial: Trial, model: nn.Module, kind: type[Trainer] | None = None, **options: Any) -> Trainer:
    """A trainer of a causal language model; options are those of TrainingArguments, or of Trainer."""
    own = {name: options.pop(name) for name in OF_TRAINER if name in options}
    return (kind or Trainer)(
        model=model,
        args=TrainingArguments(**{**trial.arguments(), "num_train_epochs": EPOCHS, **options}),
        data_collator=padded,
        **{"train_dataset": rows(ROWS, 1), "eval_dataset": rows(12, 2), **own},
    )


def attached(trial: Trial) -> Trainer:
    """Any variant, on the resident base."""
    return made(trial, trial.attach(trial.base(load), batches=[padded(rows(4, seed)) for seed in (3, 4)]))


def plain(trial: Trial) -> Trainer:
    """What plain PEFT has, on the resident base."""
    return made(trial, get_peft_model(trial.base(load), trial.peft_config()))


def with_usual_betas(trial: Trial) -> Trainer:
    """Whatever the trial says."""
    return made(trial, get_peft_model(trial.base(load), trial.peft_config()), adam_beta2=0.999)


def with_other_layers(trial: Trial) -> Trainer:
    """Whatever the trial says."""
    config = trial.peft_config()
    config.target_modules = {"o_proj"}
    return made(trial, get_peft_model(trial.base(load), config))


def reloading(trial: Trial) -> Trainer:
    """A model of its own for every trial."""
    return made(trial, get_peft_model(load(), trial.peft_config()))


def added(trial: Trial) -> Trainer:
    """The adapter by transformers' own ``add_adapter``."""
    model = trial.base(load)
    model.add_adapter(trial.peft_config())
    return made(trial, model)


def accumulating(trial: Trial) -> Trainer:
    """Batches in passes of two rows, sampled by length, whose order comes from the process's own generator."""
    arguments = {**trial.arguments(micro_batch=2), "train_sampling_strategy": "group_by_length"}
    return made(trial, trial.attach(trial.base(load)), **arguments)


def dropping(trial: Trial) -> Trainer:
    """Without the last batch of an epoch."""
    return made(trial, get_peft_model(trial.base(load), trial.peft_config()), dataloader_drop_last=True)


class Drawing(Sampler):
    """Owns generators of every kind, each seeded once, and draws from all of them."""

    def __init__(self, count: int) -> None:
        self.count, self.own = count, torch.Generator().manual_seed(0)
        self.further = [np.random.default_rng(0), np.random.RandomState(0), random.Random(0)]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.count, generator=self.own).numpy()
        for generator in self.further:
            generator.shuffle(order)
        return iter(order.tolist())


class Within(Sampler):
    """Asks another sampler."""

    def __init__(self, *samplers: Sampler) -> None:
        self.samplers = samplers

    def __len__(self) -> int:
        return len(self.samplers[0])

    def __iter__(self) -> Iterator[int]:
        return iter(self.samplers[0])


class SamplingTrainer(Trainer):
    def _get_train_sampler(self, *args: Any) -> Sampler:
        return Within(Drawing(len(self.train_dataset)))


def sampling(trial: Trial) -> Trainer:
    """With a sampler that owns its generators."""
    return made(trial, trial.attach(trial.base(load)), kind=SamplingTrainer)


class Renaming(Trainer):
    """Logs its loss under another name."""

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        super().log({"train_loss" if name == "loss" else name: each for name, each in logs.items()}, *args, **options)


def renaming(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), kind=Renaming)


class Streamed(IterableDataset):
    """Rows without a number; all of them again, as often as asked."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(self.passes):
            yield from rows(ROWS, 1)


def streaming(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), train_dataset=Streamed(3), max_steps=20)


def streaming_once(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), train_dataset=Streamed(1), max_steps=20)


def opinionated(trial: Trial) -> Trainer:
    """With everything on that does not go with a search."""
    return made(
        trial,
        get_peft_model(trial.base(load), trial.peft_config()),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        logging_steps=7,
        disable_tqdm=False,
        callbacks=[EarlyStoppingCallback(1)],
    )


def given(trial: Trial) -> Trainer:
    """The model of the specification, with its tokenizer."""
    model, words = trial.base()
    trainer = made(trial, trial.attach(model))
    trainer.processing_class = words
    return trainer


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = Tokenizer(WordLevel({"[pad]": 0, "[s]": 1, "[/s]": 2, **{str(n): n for n in range(3, VOCABULARY)}}, "[s]"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[pad]")


def load_classifier() -> tuple[nn.Module, PreTrainedTokenizerFast]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = CONFIGS["llama"]()
        config.num_labels = 2
        return LlamaForSequenceClassification(config).eval(), tokenizer()


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def labelled(count: int, seed: int) -> list[dict[str, Any]]:
    return [
        {"input_ids": row["input_ids"].tolist(), "labels": int(row["input_ids"][0]) % 2} for row in rows(count, seed)
    ]


def classifier(trial: Trial) -> Trainer:
    """A sequence classifier, whose head is trained, too."""
    model, words = trial.base(load_classifier)
    return Trainer(
        model=get_peft_model(model, trial.peft_config(task_type="SEQ_CLS")),
        args=TrainingArguments(**trial.arguments(), num_train_epochs=EPOCHS),
        data_collator=DataCollatorWithPadding(words),
        processing_class=words,
        train_dataset=labelled(ROWS, 1),
        eval_dataset=labelled(24, 2),
        compute_metrics=accuracy,
    )


# --- What is refused


def returns_nothing(trial: Trial) -> None:
    """Forgets to return."""


def other_rate(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), learning_rate=1e-3)


def other_batch(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), per_device_train_batch_size=3)


def other_rank(trial: Trial) -> Trainer:
    config = LoraConfig(r=3, lora_alpha=trial.config.alpha, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return made(trial, get_peft_model(trial.base(load), config))


def without_adapter(trial: Trial) -> Trainer:
    return made(trial, trial.base(load))


class Silent(Trainer):
    def evaluate(self, *_: Any, **__: Any) -> None:
        """Forgets to return."""


def evaluates_to_nothing(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), kind=Silent)


def counts_steps(trial: Trial) -> Trainer:
    """Needs to know the length of a run."""
    return made(trial, trial.attach(trial.base(load)), warmup_steps=int(0.1 * trial.steps))


def without_evaluation(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), eval_dataset=None)


def with_model_init(trial: Trial) -> Trainer:
    return Trainer(model_init=load, args=TrainingArguments(**trial.arguments()), train_dataset=rows(8, 1))


def plain_for_every_variant(trial: Trial) -> Trainer:
    config = LoraConfig(r=trial.config.rank, lora_alpha=trial.config.alpha, target_modules=["q_proj"])
    return made(trial, get_peft_model(trial.base(load), config))


def _adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=rate)


def own_optimizer(trial: Trial) -> Trainer:
    """At the trial's rate, warming up."""
    model = trial.attach(trial.base(load))
    optimizer = _adamw(model, trial.config["learning_rate"])
    return made(trial, model, optimizers=(optimizer, get_constant_schedule_with_warmup(optimizer, 2)))


def own_optimizer_class(trial: Trial) -> Trainer:
    options = (torch.optim.SGD, {"lr": trial.config["learning_rate"]})
    return made(trial, trial.attach(trial.base(load)), optimizer_cls_and_kwargs=options)


def variant_optimizer(trial: Trial) -> Trainer:
    model = trial.attach(trial.base(load))
    return made(trial, model, optimizers=(trial.optimizer(model), None))


def other_optimizer(trial: Trial) -> Trainer:
    model = trial.attach(trial.base(load))
    return made(trial, model, optimizers=(_adamw(model, 1e-9), None))


def other_optimizer_class(trial: Trial) -> Trainer:
    return made(trial, trial.attach(trial.base(load)), optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.5}))


def _other_variant(kind: type[LoraConfig] = LoraConfig, **options: Any) -> Callable[[Trial], Trainer]:
    def make(trial: Trial) -> Trainer:
        own = {"r": trial.config.rank, "lora_alpha": trial.config.alpha, "task_type": "CAUSAL_LM", **options}
        return made(trial, get_peft_model(trial.base(load), kind(target_modules=["q_proj"], **own)))

    return make


with_dora = _other_variant(use_dora=True)
with_rslora = _other_variant(use_rslora=True)
with_pissa = _other_variant(init_lora_weights="pissa")
with_ranks = _other_variant(rank_pattern={"q_proj": 1})
with_alphas = _other_variant(alpha_pattern={"q_proj": 1})
with_bias = _other_variant(lora_bias=True, bias="none")
with_adalora = _other_variant(AdaLoraConfig, total_step=10)


def attaches_to_classifier(trial: Trial) -> Trainer:
    model, _ = trial.base(load_classifier)
    return made(trial, trial.attach(model))


def failing(trial: Trial) -> Trainer:
    """A mistake in the user's own code."""
    raise ZeroDivisionError
