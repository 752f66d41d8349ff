"""Loops that train the same adapter on the same rows, and what each takes of the processor.

Every loop is given the workbench of one study, takes some optimizer steps of LoRA at r = 8 on all linear layers, with
AdamW, clipping at 1 and a cosine schedule, and is measured from the begin of its first step to the end of its last.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments, get_scheduler
from transformers.trainer_pt_utils import LengthGroupedSampler

from autolora import head
from autolora.losses import IGNORED
from autolora.search import Job
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.trainer import Progress

RATE, RANK = 1e-4, 8


@dataclass
class Measured:
    """Of one loop.

    Attributes:
        seconds: of the processor, over all its cores.
        tokens: real ones that were trained on, padding left out.
        padded: tokens of all forward passes, padding included.
        inside: seconds within the calls that any loop must make: forward, backward, clipping and the optimizer.
        losses: one a step.
    """

    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0
    inside: float = 0.0
    losses: list[float] = field(default_factory=list)


Loop = Callable[[Workbench, int, int], Measured]


def autolora(bench: Workbench, batch_size: int, steps: int) -> Measured:
    """Our own loop, through the segment that a study runs."""
    measured, marks = Measured(), [0.0]
    stop = min(1.0, (steps - 0.5) * batch_size / bench.examples)  # within the last step
    job = Job(0, "lora", Config(RATE, batch_size, RANK, RANK), 0, 0.0, stop, 0)

    def begin() -> None:
        marks[0] = marks[0] or time.process_time()

    def end(progress: Progress) -> None:
        measured.seconds = time.process_time() - marks[0]
        measured.losses.append(progress.loss)

    def count(batch: Mapping[str, torch.Tensor]) -> None:
        measured.padded += batch["input_ids"].numel()

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(bench, "checkpoints", Path(folder)),
        _timed(Stepper, "gradients", measured, begin, inside=False),
        _timed(head, "summed_loss", measured, count=count),
        _timed(bench.accelerator, "backward", measured),
        _timed(torch.nn.utils, "clip_grad_norm_", measured),
        _timed(torch.optim.AdamW, "step", measured),
    ):
        segment.run(bench, job, end)
    rows = bench.batches.rows(0, 0, len(measured.losses) * batch_size)
    measured.tokens = int(bench.data.train.lengths[rows].sum())
    return measured


def bare(bench: Workbench, batch_size: int, steps: int) -> Measured:
    """The shortest loop that is right: a padded batch, the model's own loss, backward, clip, step."""
    measured = Measured()
    with _adapted(bench) as model:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
        schedule = get_scheduler("cosine", optimizer, 0, steps)
        began = time.process_time()
        for step in range(steps):
            rows = bench.batches.rows(0, step * batch_size, (step + 1) * batch_size)
            batch = bench.batches.batch(rows)
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            measured.losses.append(loss.item())
            _count(measured, batch)
        measured.seconds = time.process_time() - began
    return measured


def transformers_trainer(bench: Workbench, batch_size: int, steps: int, grouped: bool = False) -> Measured:
    """``transformers.Trainer`` with its collator for padded rows, with or without length grouping."""
    measured = Measured()
    with _adapted(bench) as model, tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(**_arguments(folder, batch_size, steps), remove_unused_columns=False)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(bench, _rows(bench, batch_size, steps, grouped)),
            data_collator=_counting(DataCollatorForSeq2Seq(bench.base.tokenizer, label_pad_token_id=IGNORED), measured),
            callbacks=[_Clock(measured)],
        )
        trainer.train()
    return measured


def grouped_trainer(bench: Workbench, batch_size: int, steps: int) -> Measured:
    """``transformers.Trainer`` with length grouping."""
    return transformers_trainer(bench, batch_size, steps, grouped=True)


def trl_trainer(bench: Workbench, batch_size: int, steps: int, grouped: bool = False) -> Measured:
    """TRL's ``SFTTrainer`` on the same tokens, its loss on the completions alone."""
    from trl import SFTConfig, SFTTrainer

    measured = Measured()
    with _adapted(bench) as model, tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(**_arguments(folder, batch_size, steps), max_length=None, completion_only_loss=True)
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(bench, _rows(bench, batch_size, steps, grouped), masks=True),
            processing_class=bench.base.tokenizer,
            callbacks=[_Clock(measured)],
        )
        trainer.data_collator = _counting(trainer.data_collator, measured)
        trainer.train()
    return measured


def grouped_trl_trainer(bench: Workbench, batch_size: int, steps: int) -> Measured:
    """TRL's ``SFTTrainer`` with length grouping."""
    return trl_trainer(bench, batch_size, steps, grouped=True)


def floor(bench: Workbench, batch_size: int, steps: int) -> Measured:
    """What no loop can do without: the frozen base forward, and backward to its inputs, on real tokens alone.

    Each batch has as many tokens as the real one, in rows of one length, so that nothing is padded; without adapter,
    clipping and optimizer.
    """
    measured = Measured()
    model, embed = bench.base.model.train(), bench.base.model.get_input_embeddings()
    split = bench.data.train
    batches = []
    for step in range(steps):
        rows = bench.batches.rows(0, step * batch_size, (step + 1) * batch_size)
        length = max(2, round(float(split.lengths[rows].mean())))
        tokens = torch.from_numpy(np.resize(np.concatenate([split.batch([row], 0)["input_ids"][0] for row in rows]),
                                            batch_size * length)).view(batch_size, length)  # fmt: skip
        targets = round(float(split.target_counts[rows].mean()))
        labels = tokens.clone()
        labels[:, : length - targets] = IGNORED
        batches.append({"input_ids": tokens, "labels": labels})
    began = time.process_time()
    for batch in batches:
        for part in zip(*(tensor.split(max(1, 1024 // tensor.shape[1])) for tensor in batch.values()), strict=True):
            whole = dict(zip(batch, part, strict=True))
            with mock.patch.object(embed, "forward", lambda ids: torch.nn.functional.embedding(ids, embed.weight).requires_grad_()):  # fmt: skip  # noqa: E501
                head.summed_loss(model, whole, apart=True).backward()
        measured.tokens += batch["input_ids"].numel()
    measured.seconds = time.process_time() - began
    measured.padded = measured.tokens
    return measured


LOOPS: Mapping[str, Loop] = {
    "autolora": autolora,
    "floor": floor,
    "bare loop": bare,
    "transformers.Trainer": transformers_trainer,
    "transformers.Trainer, grouped": grouped_trainer,
    "trl.SFTTrainer": trl_trainer,
    "trl.SFTTrainer, grouped": grouped_trl_trainer,
}


@contextmanager
def _adapted(bench: Workbench) -> Iterator[PeftModel]:
    """The base with PEFT's own LoRA, in training mode; it is itself again afterwards."""
    torch.manual_seed(0)
    model = get_peft_model(bench.base.model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    model.train()
    try:
        yield model
    finally:
        model.unload()
        vars(bench.base.model).pop("peft_config", None)


def _rows(bench: Workbench, batch_size: int, steps: int, grouped: bool) -> Sequence[int]:
    """Rows of so many batches, in order: those that our own loop sees first, or a sample of the batches that length
    grouping makes of all rows. Of a few rows it could make no groups, and its first batches have the longest rows.
    """
    if not grouped:
        return list(bench.batches.rows(0, 0, batch_size * steps))
    lengths = bench.data.train.lengths.tolist()
    order = list(LengthGroupedSampler(batch_size, lengths=lengths, generator=torch.Generator().manual_seed(0)))
    whole = np.array(order[: len(order) // batch_size * batch_size]).reshape(-1, batch_size)
    return whole[np.random.default_rng(0).choice(len(whole), steps, replace=len(whole) < steps)].flatten().tolist()


def _dataset(bench: Workbench, rows: Sequence[int], masks: bool = False) -> Dataset:
    split = bench.data.train
    columns: dict[str, list[list[int]]] = {"input_ids": [], "completion_mask" if masks else "labels": []}
    for row in rows:
        batch = split.batch([row], 0)
        columns["input_ids"].append(batch["input_ids"][0].tolist())
        labels = batch["labels"][0]
        if masks:
            columns["completion_mask"].append((labels != IGNORED).int().tolist())
        else:
            columns["labels"].append(labels.tolist())
    return Dataset.from_dict(columns)


def _arguments(folder: str, batch_size: int, steps: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",
    }


class _Clock(TrainerCallback):
    """Times a trainer from its first step to its last."""

    def __init__(self, measured: Measured) -> None:
        self._measured, self._began = measured, 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._began = self._began or time.process_time()

    def on_step_end(self, *_: object, **__: object) -> None:
        self._measured.seconds = time.process_time() - self._began

    def on_log(self, *_: object, logs: Mapping[str, Any] | None = None, **__: object) -> None:
        if logs and "loss" in logs:
            self._measured.losses.append(float(logs["loss"]))


def _counting(collate: Callable[[Sequence[Any]], Any], measured: Measured) -> Callable[[Sequence[Any]], Any]:
    def collated(rows: Sequence[Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = collate(rows)
        measured.tokens += sum(len(row["input_ids"]) for row in rows)
        measured.padded += batch["input_ids"].numel()
        return batch

    return collated


def _count(measured: Measured, batch: Mapping[str, torch.Tensor]) -> None:
    measured.tokens += int(batch["attention_mask"].sum())
    measured.padded += batch["input_ids"].numel()


@contextmanager
def _timed(
    owner: object,
    name: str,
    measured: Measured,
    before: Callable[[], None] | None = None,
    count: Callable[[Mapping[str, torch.Tensor]], None] | None = None,
    inside: bool = True,
) -> Iterator[None]:
    """Add the time of a function to what a loop spends in calls that any loop must make."""
    genuine = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        if count is not None:
            count(args[1])
        began = time.process_time()
        try:
            return genuine(*args, **kwargs)
        finally:
            measured.inside += (time.process_time() - began) * inside

    with mock.patch.object(owner, name, timed):
        yield
