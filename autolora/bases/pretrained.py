"""What a specification's model is loaded from: a directory, the hub, or an object in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.export import CONFIG as ADAPTER
from autolora.bases import attention, folders, kinds, quantized
from autolora.bases.completeness import check_complete
from autolora.bases.errors import ModelError
from autolora.bases.merged import Merged, adapter_in, merge
from autolora.bases.source import Source
from autolora.spec import Spec

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded.

    Attributes:
        model: on the CPU.
        notes: lines for people about how it was loaded.
        merged: the adapter that was merged into it; None if there was none.
    """

    model: PreTrainedModel
    notes: tuple[str, ...] = ()
    merged: Merged | None = None


def load_weights(spec: Spec, dtype: torch.dtype) -> Loaded:
    """The model that the specification names, on the CPU, in a dtype but for what its class keeps in float32.

    If the source is an adapter, it is merged into its base.

    Raises:
        ModelError: it is not there, is damaged, incomplete or quantized, is not a causal language model, or cannot
            compute attention as asked.
    """
    source, asked = Source.of(spec), spec.base.attn_implementation
    adapter = adapter_in(source)
    if adapter is None:
        return _load_whole(source, dtype, asked)
    base = _load_whole(adapter.base, dtype, asked)
    merged = merge(base.model, adapter)
    note = f"{adapter.base.name} with the {adapter.method} of {source.name} merged in; tuning starts there"
    return Loaded(base.model, (note, *base.notes), merged)


def load_tokenizer(spec: Spec) -> PreTrainedTokenizerBase:
    """The tokenizer of the specification's model; light enough for planning without the model's weights.

    That of an adapter is beside it, or else its base's.
    """
    source = Source.of(spec)
    adapter = adapter_in(source) if isinstance(spec.model, str) else None
    if adapter is not None and not any(source.file(name) for name in folders.TOKENIZER_FILES):
        source = adapter.base
    if source.folder is not None and not folders.holds_tokenizer(source.folder):
        raise source.failure("AutoTokenizer", OSError("it holds no tokenizer"))
    tokenizer: PreTrainedTokenizerBase = source.read("AutoTokenizer")
    return tokenizer


def load_config(spec: Spec) -> PretrainedConfig:
    """The model's configuration, without its weights; of an adapter, that of its base."""
    if not isinstance(spec.model, str):
        config: PretrainedConfig = spec.model.config
        return config
    source = Source.of(spec)
    adapter = adapter_in(source)
    config = (source if adapter is None else adapter.base).read("AutoConfig")
    return config


def hidden_size(config: PretrainedConfig) -> int | None:
    """Width of the language model; None if the configuration names none."""
    width: int | None = getattr(config.get_text_config(), "hidden_size", None)
    return width


def _load_whole(source: Source, dtype: torch.dtype, asked: str | None) -> Loaded:
    """A model that is not an adapter, with all of its weights, and with this implementation of attention."""
    folder = source.folder
    if folder is not None and folders.holds_weights(folder) and (folder / ADAPTER).is_file():
        raise ModelError(
            f"model: {source.where} holds a model and an adapter ({ADAPTER}): give one of them, in a "
            "directory of its own"
        )
    config = source.read("AutoConfig")
    kinds.check(config, source.where)
    notes = quantized.prepare(config, source.where)
    attention.check_available(asked, config)
    model, loaded = source.read(
        kinds.auto_class(config),
        config=config,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **({} if asked is None else {"attn_implementation": asked}),
    )
    quantized.check_unquantized(model)
    return Loaded(model, (*notes, *check_complete(model, loaded, source.where)))
