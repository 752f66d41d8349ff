"""A Llama of random weights and the shape of real ones, with a tokenizer trained on the task's texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Shape:
    """Of a Llama; heads have 64 dimensions, and half as many keys as queries."""

    hidden: int = 512
    layers: int = 8
    intermediate: int = 1376
    vocabulary: int = 8192


def make(folder: Path, texts: Path, shape: Shape) -> Path:
    """Write model and tokenizer to a folder, unless they are there.

    Args:
        texts: JSON lines whose string values the tokenizer is trained on.
    """
    if (folder / "config.json").exists():
        return folder
    tokenizer = _tokenizer(texts, shape.vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(2, shape.hidden // 64),
        num_key_value_heads=max(1, shape.hidden // 128),
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _tokenizer(texts: Path, vocabulary: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    values = (value for line in texts.open() for value in json.loads(line).values() if isinstance(value, str))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(values, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
