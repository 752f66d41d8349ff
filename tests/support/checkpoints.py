"""Models and tokenizers as directories on a disk, whole ones and such as go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

WEIGHTS = "model.safetensors"
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": None,
}


def byte_tokenizer(template: str | None = None, special: Sequence[str] = (), eos: str | None = "</s>") -> Any:
    """One token a byte, then EOS (256), then the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False)
    if eos:
        tokenizer.add_special_tokens({"eos_token": eos})
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def tiny(make: Callable[..., Any] = LlamaConfig, **settings: Any) -> PreTrainedModel:
    """A random causal language model of 257 tokens, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(make(**{**SHAPE, "vocab_size": 257, **settings})).eval()


def saved(folder: Path, model: PreTrainedModel, tokenizer: Any = None) -> Path:
    """The directory of a model and a tokenizer."""
    model.save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


def reconfigured(folder: Path, **settings: Any) -> Path:
    """The directory, whose config.json says otherwise."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


def reweighted(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The directory, whose weights have been changed in place."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder
