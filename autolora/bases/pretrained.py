"""What a specification's model is loaded from: a directory, the hub, or an object in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.export import CONFIG as ADAPTER
from autolora.adapters.export import bits_of_base
from autolora.bases import attention, folders, kinds, packed, quantized
from autolora.bases.completeness import check_complete
from autolora.bases.device import dtype_name
from autolora.bases.errors import ModelError
from autolora.bases.merged import Merged, adapter_in, merge
from autolora.bases.source import Source
from autolora.spec import BaseSpec, Spec

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded.

    Attributes:
        model: where it was to be placed; on the CPU, if an adapter was merged into it.
        notes: lines for people about how it was loaded.
        merged: the adapter that was merged into it; None if there was none.
    """

    model: PreTrainedModel
    notes: tuple[str, ...] = ()
    merged: Merged | None = None


def load_weights(spec: Spec, dtype: torch.dtype, placed: Mapping[str, object]) -> Loaded:
    """The model that the specification names, in a dtype but for what its class keeps in float32 and what is packed.

    On the CPU, weights whose file holds them in this dtype are pages of the file, which processes share.

    If the source is an adapter, it is merged into its base, on the CPU: elsewhere it would be rounded otherwise, and be
    another model by its fingerprint.

    Args:
        spec: names it, and says how it is held.
        dtype: of its weights, or of those that are not packed.
        placed: where it goes, see :func:`autolora.bases.device.placement`.

    Raises:
        ModelError: it is not there, is damaged, incomplete, or quantized by a method that autolora cannot train on, is
            not a causal language model, cannot compute attention or be packed as asked, or is an adapter that cannot be
            merged into a packed base.
    """
    source = Source.of(spec)
    adapter = adapter_in(source)
    if adapter is None:
        return _load_whole(source, spec.base, dtype, placed)
    if packed.bits_asked(spec.base):
        raise ModelError(
            f"model: {source.where} holds an adapter, which cannot be merged into a quantized base: merge it into its "
            "base in full precision, save that, and give its folder as model"
        )
    base = _load_whole(adapter.base, spec.base, dtype, {})
    if packed.bits_held(base.model):
        raise ModelError(
            f"model: {source.where} holds an adapter of {adapter.base.name}, which is quantized, so it cannot be "
            "merged: give that base as model, or one that the adapter is merged into"
        )
    merged = merge(base.model, adapter)
    note = f"{adapter.base.name} with the {adapter.method} of {source.name} merged in; tuning starts there"
    trained = bits_of_base(adapter.weights.parent)
    other = f"that adapter was trained on a base in {trained} bits, and is merged into one in {dtype_name(dtype)}"
    return Loaded(base.model, (note, *([other] if trained else []), *base.notes), merged)


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


def _load_whole(source: Source, held: BaseSpec, dtype: torch.dtype, placed: Mapping[str, object]) -> Loaded:
    """A model that is not an adapter, with all of its weights, held and computed as asked."""
    folder, asked = source.folder, held.attn_implementation
    if folder is not None and folders.holds_weights(folder) and (folder / ADAPTER).is_file():
        raise ModelError(
            f"model: {source.where} holds a model and an adapter ({ADAPTER}): give one of them, in a "
            "directory of its own"
        )
    config = source.read("AutoConfig")
    kinds.check(config, source.where)
    notes, bits = quantized.prepare(config, held, source.where)
    attention.check_available(asked, config)
    packing = packed.packing(bits, dtype) if bits and quantized.method_of(config) is None else None
    model, loaded = source.read(
        kinds.auto_class(config),
        config=config,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **({} if asked is None else {"attn_implementation": asked}),
        **({} if packing is None else {"quantization_config": packing}),
        **placed,
    )
    quantized.check_supported(model)
    if bits is not None and packing is None:
        packed.recast(model, dtype)
    return Loaded(model, (*notes, *check_complete(model, loaded, source.where), *packed.note(model)))
