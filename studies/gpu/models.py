"""Models of random weights and real shapes, and workbenches on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from autolora import bases, quickstart
from autolora import spec as specs
from autolora.adapters.targets import survey
from autolora.bases import Base
from autolora.bases.packed import settle
from autolora.losses import IGNORED
from autolora.spec import Spec
from autolora.trainers.builtin.workbench import Workbench, prepare_data

EXAMPLES = 1024
"""Training examples of a run that is timed: more than any of them takes."""
ROWS, HELD_OUT = 32, 2
"""Rows to train on and to evaluate on, where only time is measured."""


@dataclass(frozen=True)
class Shape:
    """Of a Llama or a Qwen2.5.

    Attributes:
        name: of the model whose shape it is.
        kind: "llama" or "qwen2".
        hidden, layers, intermediate, heads, key_heads, vocabulary: of its configuration.
        tied: the head and the embeddings are one parameter.
    """

    name: str
    kind: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    def config(self, layers: int | None = None) -> PretrainedConfig:
        """The configuration, with other layers if a number is given."""
        kinds: dict[str, Any] = {"llama": LlamaConfig, "qwen2": Qwen2Config}
        return kinds[self.kind](
            hidden_size=self.hidden,
            num_hidden_layers=layers or self.layers,
            intermediate_size=self.intermediate,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            vocab_size=self.vocabulary,
            tie_word_embeddings=self.tied,
            max_position_embeddings=4096,
        )


SHAPES = {
    "0.5B": Shape("Qwen2.5-0.5B", "qwen2", 896, 24, 4864, 14, 2, 151_936, tied=True),
    "1B": Shape("Llama-3.2-1B", "llama", 2048, 16, 8192, 32, 8, 128_256, tied=True),
    "8B": Shape("Llama-3.1-8B", "llama", 4096, 32, 14_336, 32, 8, 128_256, tied=False),
    "tiny": Shape("a tiny Qwen2", "qwen2", 64, 2, 128, 4, 2, 1024, tied=True),
    "tiny Llama": Shape("a tiny Llama", "llama", 128, 4, 256, 4, 2, 1024, tied=False),
}


@dataclass(frozen=True)
class Place:
    """Where the check runs.

    Attributes:
        device: of all models.
        dtype: of bases, where none is named.
        folder: scratch.
    """

    device: torch.device
    dtype: torch.dtype
    folder: Path

    @property
    def half(self) -> torch.dtype:
        """The dtype of 16 bits that the device has."""
        return torch.bfloat16 if self.dtype == torch.float32 else self.dtype

    def model(
        self, shape: str, layers: int | None = None, dtype: torch.dtype | None = None, packed: bool = False
    ) -> PreTrainedModel:
        """A model of random weights, the same at every call, made on the device.

        Args:
            shape: a key of ``SHAPES``.
            layers: how many; None: all.
            dtype: of its weights; None: that of the place.
            packed: hold its linear layers in 4 bits, as ``base.load_in_4bit`` does; needs bitsandbytes.
        """
        config = SHAPES[shape].config(layers)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)
            with torch.device(self.device):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype or self.dtype)
        model.name_or_path = self.tokenizer.name_or_path
        if packed:
            _pack(model)
        return model

    def bench(self, model: PreTrainedModel, data: dict[str, Any], **training: Any) -> Workbench:
        """A workbench on a model object.

        Args:
            model: from :meth:`model`.
            data: the section of a specification, see :meth:`timed` and :meth:`learned`.
            training: keys of the section of a specification.
        """
        return self.opened(specs.load({"model": model, "data": data, **self.settings(training)}))

    def opened(self, spec: Spec) -> Workbench:
        """A workbench in a folder of its own."""
        base: Base = bases.load(spec)
        folder = self.folder / f"run-{len(list(self.folder.glob('run-*')))}"
        folder.mkdir()
        return Workbench.of(spec, folder, base, prepare_data(spec, base.tokenizer, folder / "data", base.limits))

    def settings(self, training: dict[str, Any]) -> dict[str, Any]:
        """What all specifications share: two rungs, and no checkpoint in between."""
        shared = {"device": str(self.device), "warmup_ratio": 0.0, "checkpoint_seconds": 1e6}
        return {"training": {**shared, **training}, "rungs": [0.5, 1.0], "seed": 0}

    def timed(self, shape: str, length: int) -> dict[str, Any]:
        """Rows of random tokens and one length, of which the second half is learned: nothing is padded."""
        known = min(SHAPES[shape].vocabulary, len(self.tokenizer))
        drawn = np.random.default_rng(0).integers(known, size=(ROWS + HELD_OUT, length)).tolist()
        rows = [{"input_ids": ids, "labels": [IGNORED] * (length // 2) + ids[length // 2 :]} for ids in drawn]
        path = self.folder / f"{shape}-{length}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"train": str(path), "eval_size": HELD_OUT}

    def learned(self) -> dict[str, Any]:
        """The shipped task, of which something can be learned in a few steps."""
        task = quickstart.PREFIX
        return {"train": f"{task}/train.jsonl", "eval": f"{task}/test.jsonl", "eval_size": 16}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The shipped tokenizer, whose tokens all models have; in a folder of its own, where models say theirs is."""
        folder = self.folder / "tokenizer"
        AutoTokenizer.from_pretrained(quickstart.resolve(quickstart.PREFIX)).save_pretrained(folder)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        return tokenizer


def _pack(model: PreTrainedModel) -> None:
    """Put what ``from_pretrained`` makes of linear layers in 4 bits in their place, without files in between."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name in survey(model).layers:
        whole = model.get_submodule(name)
        weight, width = whole.weight, (whole.in_features, whole.out_features)
        layer = Linear4bit(*width, bias=whole.bias is not None, compute_dtype=weight.dtype, device="meta")
        packed = Params4bit(weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
        layer.weight, layer.bias = packed.to(weight.device), whole.bias
        model.set_submodule(name, layer)
    model.is_loaded_in_4bit = True  # what PEFT asks for
    settle(model)
