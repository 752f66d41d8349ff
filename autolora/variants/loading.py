"""Reading an exported adapter back, whatever its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.variants.attachment import load_adapter_state, remove
from autolora.variants.base import Variant, VariantError
from autolora.variants.export import CONFIG, OWN_CONFIG, OWN_FORMAT, WEIGHTS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_adapter(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Put an exported adapter on its base, for use: in evaluation mode, nothing trainable.

    Most adapters load with ``PeftModel.from_pretrained`` alone. Those that are no matrix added to the weights, such as
    a mixture of experts, have a format of their own, which this function reads, too.

    Args:
        model: the unmodified base, without adapters; its layers are wrapped in place, and ``unload()`` of what is
            returned takes the adapter off again, or :func:`autolora.variants.detach` where the format is its own.
        folder: as ``export`` wrote it, ``best/<variant>`` of a run directory.

    Returns:
        A ``PeftModel``.

    Raises:
        VariantError: the folder holds no whole adapter, or one of another model.
    """
    from autolora.variants.targets import linear_layers

    path = Path(folder)
    linear_layers(model)  # one that carries an adapter already is refused
    own = (path / OWN_CONFIG).exists()
    if not (own or (path / CONFIG).exists()):
        raise VariantError(f"{path} holds no adapter: neither {CONFIG} nor {OWN_CONFIG} is there")
    if not (path / WEIGHTS).exists():
        raise VariantError(f"{path} holds no {WEIGHTS}: export the adapter again")
    adapted = _load_own(model, path) if own else _load_peft_s(model, path)
    return adapted.requires_grad_(False).eval()


def _load_peft_s(model: PreTrainedModel, path: Path) -> PeftModel:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return PeftModel.from_pretrained(model, path)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise VariantError(f"{path} is damaged or of another model: {error}") from error


def _load_own(model: PreTrainedModel, path: Path) -> PeftModel:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    variant, rank, alpha = _settings(path / OWN_CONFIG)
    try:
        state = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise VariantError(f"{path / WEIGHTS} cannot be read ({error}): export the adapter again") from error
    adapted = variant.attach(model, rank, alpha)
    try:
        load_adapter_state(adapted, state)
    except BaseException:
        remove(adapted)
        raise
    return adapted


def _settings(file: Path) -> tuple[Variant, int, float]:
    """The variant with its options, rank and alpha."""
    from autolora.variants import get

    try:
        settings = json.loads(file.read_text())
        found, name, options = settings["format"], settings["variant"], dict(settings["options"])
        rank, alpha = int(settings["rank"]), float(settings["alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise VariantError(f"{file} is damaged ({error!r}): export the adapter again") from error
    if found != OWN_FORMAT:
        raise VariantError(f"{file} is of format {found}, this version reads {OWN_FORMAT}: update autolora")
    return get(name).configured(**options), rank, alpha
