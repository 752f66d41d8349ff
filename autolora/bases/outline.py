"""A model by its configuration: width, shape and layers, without its weights."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.bases import kinds, quantized
from autolora.bases.errors import ModelError
from autolora.bases.merged import adapter_config, base_of
from autolora.bases.pretrained import hidden_size
from autolora.bases.source import LOADING, Source
from autolora.study.directory import SPEC_FILE, STUDY_FILE, read_recorded

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Outline:
    """What a configuration tells of a model.

    Attributes:
        name: the directory or hub id, or the class of a configuration that was read from nowhere.
        config: of the model; of an adapter, that of its base.
        model: on the device "meta", whose parameters have shapes and no values; None if it cannot be built.
        notes: lines for people, one of them why there is no model.
        bits: of linear layers, where bitsandbytes has packed the checkpoint.
    """

    name: str
    config: PretrainedConfig
    model: PreTrainedModel | None = None
    notes: tuple[str, ...] = ()
    bits: int | None = None

    @property
    def hidden_size(self) -> int | None:
        """Width of the language model; None if the configuration names none."""
        return hidden_size(self.config)

    @property
    def layers(self) -> int | None:
        """Blocks of the language model; None if the configuration names no number."""
        number: int | None = getattr(self.config.get_text_config(), "num_hidden_layers", None)
        return number

    @property
    def positions(self) -> int | None:
        """Tokens that the language model can read; None if the configuration names no number."""
        number: int | None = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return number


def outline(model: object) -> Outline:
    """What the configuration of a model tells.

    Args:
        model: a directory, which needs no weights, ``builtin:quickstart``, a hub id, a ``PretrainedConfig``, or a
            model that has one. Of an adapter, its base is read.

    Raises:
        ModelError: the configuration cannot be read, or the directory is a run directory.
    """
    if not isinstance(model, (str, os.PathLike)):
        config = _config_of(model)
        return _built(config.name_or_path or type(config).__name__, config)
    source = Source.at(os.fspath(model), None, trust_remote_code=False)
    _refuse_run_directory(source)
    adapter = adapter_config(source)
    if adapter is None:
        return _built(source.name, source.configuration())
    base = base_of(source, adapter)
    setting = ", ".join(f"{key} = {adapter[key]}" for key in ("r", "lora_alpha") if key in adapter)
    note = f"{source.name} is an adapter{f' ({setting})' if setting else ''}; this is about its base."
    return _built(base.name, base.configuration(), (note,))


def _config_of(model: object) -> PretrainedConfig:
    from transformers import PretrainedConfig

    config = getattr(model, "config", model)
    if not isinstance(config, PretrainedConfig):
        raise ModelError(
            f"model: {type(model).__name__} is none: give a directory with config.json, a hub id or a "
            "transformers.PretrainedConfig"
        )
    return config


def _refuse_run_directory(source: Source) -> None:
    folder = source.folder
    if folder is None or not (folder / SPEC_FILE).is_file() or not (folder / STUDY_FILE).is_file():
        return
    tuned = read_recorded(folder / SPEC_FILE).get("model")
    named = "give the model that its trainer loads" if tuned is None else f"give the model, which was {tuned}"
    raise ModelError(
        f"model: {source.where} is a run directory, and `autolora best {folder}` shows what was tuned there: {named}"
    )


def _built(name: str, config: PretrainedConfig, notes: tuple[str, ...] = ()) -> Outline:
    """The outline with the model on the device "meta", if its architecture can be built there."""
    import torch
    import transformers

    method, bits = quantized.method_of(config), quantized.packed_bits(config)
    if method is not None and bits is None:
        notes = (*notes, f"The checkpoint is quantized ({method}); memory is that of unpacked weights.")
    try:
        kinds.check(config, name)
        blank = copy.deepcopy(config)  # from_config writes into it
        blank._attn_implementation = None  # the best of torch itself: others may ask for packages that are not here
        with LOADING, torch.device("meta"):
            model = getattr(transformers, kinds.auto_class(config)).from_config(blank)
    except MemoryError:
        raise
    except Exception as error:  # architectures raise what they please
        said = str(error).removeprefix("model: ").strip().partition("\n")[0]
        why = said if isinstance(error, ModelError) else f"{type(error).__name__}: {said:.200}"
        return Outline(name, config, None, (*notes, f"Memory is not known: {why.rstrip('.')}."))
    return Outline(name, config, model, notes, bits)
