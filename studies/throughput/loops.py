"""Loops that train the same adapter on the same rows, and what each takes.

Every loop is given the workbench of one study, takes some optimizer steps of LoRA at r = 8 on all linear layers, with
AdamW, clipping at 1 and a cosine schedule, and is measured from the begin of its first step to the end of its last, by
the clock of its device (:func:`clock_of`). Libraries that not every interpreter has are imported by the loop that needs
them.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from autolora import head
from autolora.bases import Base
from autolora.losses import IGNORED
from autolora.search import Job
from autolora.search.rungs import steps_until
from autolora.space import Config
from autolora.trainers.builtin import segment
from autolora.trainers.builtin.passes import IN_MAIN_MEMORY
from autolora.trainers.builtin.stepping import Stepper
from autolora.trainers.builtin.workbench import Workbench
from autolora.trainers.trainer import Progress

RATE, RANK = 1e-4, 8


@dataclass
class Measured:
    """Of one loop.

    Attributes:
        seconds: by the clock of the device, see :func:`clock_of`.
        tokens: real ones that were trained on, padding left out.
        padded: tokens of all forward passes, padding included.
        passes: forward passes.
        inside: seconds of the processor within the calls that any loop must make: forward, backward, clipping and the
            optimizer.
        peak: most bytes of a GPU that were taken while time was; 0 on a CPU.
        losses: one a step.
    """

    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0
    passes: int = 0
    inside: float = 0.0
    peak: int = 0
    losses: list[float] = field(default_factory=list)


Loop = Callable[[Workbench, int, int], Measured]
Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Seconds that loops are timed by: of the processor, over all its cores, so that ratios hold on a busy machine. Of
    a GPU those that pass, read once it has done all that it was told to.
    """
    return time.process_time if device.type == "cpu" else lambda: wall(device)


def wall(device: torch.device) -> float:
    """Seconds that pass, read once the device has done all that it was told to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


class _Stopwatch:
    """Measures from a loop's first step to its last."""

    def __init__(self, measured: Measured, bench: Workbench, clock: Clock | None = None) -> None:
        self._measured, self._device = measured, bench.base.device
        self._read = clock or clock_of(self._device)
        self._began: float | None = None

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._began is None:
            if self._device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self._device)
            self._began = self._read()

    def stop(self) -> None:
        assert self._began is not None
        self._measured.seconds = self._read() - self._began
        if self._device.type == "cuda":
            self._measured.peak = torch.cuda.max_memory_allocated(self._device)


class _Enough(Exception):
    """Ends a segment behind the step that was timed last: nothing is saved or evaluated."""


def autolora(
    bench: Workbench, batch_size: int, steps: int, variant: str = "lora", clock: Clock | None = None
) -> Measured:
    """Our own loop, through the segment that a study runs."""
    measured = Measured()
    stopwatch = _Stopwatch(measured, bench, clock)
    stop = min(1.0, (steps - 0.5) * batch_size / bench.examples)  # within the last step
    job = Job(0, variant, Config(RATE, batch_size, RANK, RANK), 0, 0.0, stop, 0)
    last = steps_until(stop, bench.examples, batch_size)

    def end(progress: Progress) -> None:
        measured.losses.append(progress.loss)
        if progress.step == last:
            stopwatch.stop()
            raise _Enough

    def count(batch: Mapping[str, torch.Tensor]) -> None:
        measured.padded += batch["input_ids"].numel()
        measured.passes += 1

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(bench, "checkpoints", Path(folder)),
        _timed(Stepper, "gradients", measured, stopwatch.start, inside=False),
        _timed(head, "summed_loss", measured, count=count),
        _timed(bench.accelerator, "backward", measured),
        _timed(torch.nn.utils, "clip_grad_norm_", measured),
        _timed(torch.optim.AdamW, "step", measured),
        suppress(_Enough),
    ):
        outcome = segment.run(bench, job, end)
        raise RuntimeError(f"the segment ended before its last step was timed ({outcome.kind}): {outcome.reason}")
    rows = bench.batches.rows(0, 0, len(measured.losses) * batch_size)
    measured.tokens = int(bench.data.train.lengths[rows].sum())
    return measured


def bare(bench: Workbench, batch_size: int, steps: int, dora: bool = False) -> Measured:
    """The shortest loop that is right: a padded batch, the model's own loss, backward, clip, step."""
    measured = Measured()
    stopwatch = _Stopwatch(measured, bench)
    with _adapted(bench, dora) as model:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
        schedule = get_scheduler("cosine", optimizer, 0, steps)
        losses = []
        stopwatch.start()
        for step in range(steps):
            rows = bench.batches.rows(0, step * batch_size, (step + 1) * batch_size)
            batch = bench.batches.batch(rows)
            _count(measured, batch)
            with bench.base.autocast():
                loss = model(**bench.base.placed(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        measured.losses = [float(loss) for loss in losses]
        stopwatch.stop()
    return measured


def transformers_trainer(
    bench: Workbench, batch_size: int, steps: int, grouped: bool = False, dora: bool = False
) -> Measured:
    """``transformers.Trainer`` with its collator for padded rows, with or without length grouping."""
    measured = Measured()
    with _adapted(bench, dora) as model, tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(**_arguments(bench, folder, batch_size, steps), remove_unused_columns=False)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_examples(bench, _rows(bench, batch_size, steps, grouped)),
            data_collator=_counting(DataCollatorForSeq2Seq(bench.base.tokenizer, label_pad_token_id=IGNORED), measured),
            callbacks=[_Timer(measured, bench)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return measured


def grouped_trainer(bench: Workbench, batch_size: int, steps: int) -> Measured:
    """``transformers.Trainer`` with length grouping."""
    return transformers_trainer(bench, batch_size, steps, grouped=True)


def trl_trainer(bench: Workbench, batch_size: int, steps: int, grouped: bool = False) -> Measured:
    """TRL's ``SFTTrainer`` on the same tokens, its loss on the completions alone."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    measured = Measured()
    with _adapted(bench) as model, tempfile.TemporaryDirectory() as folder:
        own = _arguments(bench, folder, batch_size, steps)
        arguments = SFTConfig(**own, max_length=None, completion_only_loss=True)
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(_examples(bench, _rows(bench, batch_size, steps, grouped), masks=True)),
            processing_class=bench.base.tokenizer,
            callbacks=[_Timer(measured, bench)],
        )
        trainer.remove_callback(PrinterCallback)
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
    stopwatch = _Stopwatch(measured, bench)
    bench.base.model.train()
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
    most = IN_MAIN_MEMORY.tokens if bench.base.device.type == "cpu" else sys.maxsize
    stopwatch.start()
    for batch in batches:
        for part in zip(*(tensor.split(max(1, most // tensor.shape[1])) for tensor in batch.values()), strict=True):
            _pass_of_the_base(bench.base, dict(zip(batch, part, strict=True)))
        measured.tokens += batch["input_ids"].numel()
    stopwatch.stop()
    measured.padded = measured.tokens
    return measured


def _pass_of_the_base(base: Base, batch: Mapping[str, torch.Tensor]) -> None:
    """The frozen base forward, and backward to its inputs."""
    embed = base.model.get_input_embeddings()

    def embedded(ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(ids, embed.weight).requires_grad_()

    with mock.patch.object(embed, "forward", embedded), base.autocast():
        loss = head.summed_loss(base.model, base.placed(batch), apart=base.reading.apart)
    loss.backward()


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
def _adapted(bench: Workbench, dora: bool = False) -> Iterator[PeftModel]:
    """The base with PEFT's own LoRA or DoRA, in training mode; it is itself again afterwards."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", use_dora=dora)
    model = get_peft_model(bench.base.model, config)
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


def _examples(bench: Workbench, rows: Sequence[int], masks: bool = False) -> list[dict[str, list[int]]]:
    """Rows as token ids with labels, or with a mask of what is learned."""
    found = []
    for row in rows:
        batch = bench.data.train.batch([row], 0)
        labels = batch["labels"][0]
        learned = {"completion_mask": (labels != IGNORED).int().tolist()} if masks else {"labels": labels.tolist()}
        found.append({"input_ids": batch["input_ids"][0].tolist(), **learned})
    return found


def _arguments(bench: Workbench, folder: str, batch_size: int, steps: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "use_cpu": bench.base.device.type == "cpu",
        "bf16": bench.base.dtype == torch.bfloat16,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1 if bench.base.device.type == "cpu" else steps,  # on a GPU each makes the host wait
        "train_sampling_strategy": "sequential",
    }


class _Timer(TrainerCallback):
    """Times a trainer from its first step to its last."""

    def __init__(self, measured: Measured, bench: Workbench) -> None:
        self._measured, self._stopwatch = measured, _Stopwatch(measured, bench)

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._stopwatch.start()

    def on_step_end(self, arguments: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        if state.global_step == state.max_steps:
            self._stopwatch.stop()

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
        measured.passes += 1
        return batch

    return collated


def _count(measured: Measured, batch: Mapping[str, torch.Tensor]) -> None:
    measured.tokens += int(batch["attention_mask"].sum())
    measured.padded += batch["input_ids"].numel()
    measured.passes += 1


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
