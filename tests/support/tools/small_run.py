"""What the stand-ins for tools train: a tiny model with ``transformers.Trainer`` and PEFT, by a tool's own settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

VOCABULARY, LENGTH, ROWS, EVAL_ROWS = 32, 8, 64, 16


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Sequences that count upwards, which is quickly learned."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(VOCABULARY, (count, 1), generator=generator)
    tokens = (starts + torch.arange(LENGTH)) % VOCABULARY
    return [{"input_ids": each, "labels": each} for each in tokens]


def train(
    callbacks: Sequence[TrainerCallback], *, lora: dict[str, Any], resume: str | None, output: str, **arguments: Any
) -> None:
    """Train as both tools do: seed, model, adapter, Trainer, ``train``, and the model once more at the end.

    Args:
        callbacks: of the tool's extension.
        lora: of ``LoraConfig``.
        resume: checkpoint.
        output: folder.
        arguments: of ``TrainingArguments``.
    """
    torch.manual_seed(0)  # the base is that of all trials
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=16, **shape))
    base = Path(output).parent / "base"
    if not base.exists():
        model.save_pretrained(base)  # for tests that look whether the adapter fits it
    arguments = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "eval_strategy": "no", **arguments}
    prepared = TrainingArguments(output, **arguments)
    set_seed(prepared.seed)
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj", "down_proj", "lm_head"], **lora))
    trainer = Trainer(
        model=model,
        args=prepared,
        train_dataset=rows(ROWS, 1),
        eval_dataset=rows(EVAL_ROWS, 2),
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()
