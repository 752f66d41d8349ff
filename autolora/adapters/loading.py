"""Reading an exported adapter back, whatever its format."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.adapters.attachment import remove, whole_or_untouched
from autolora.adapters.errors import VariantError
from autolora.adapters.export import CONFIG, OWN_CONFIG, OWN_FORMAT, WEIGHTS, bits_of_base
from autolora.adapters.packed import bits_held, weights_kept
from autolora.adapters.spec import AdapterSpec
from autolora.adapters.start import DEFAULT_NAME
from autolora.adapters.state import load_adapter_state
from autolora.adapters.targets import every_linear_layer
from autolora.files import Document, expanded

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from autolora.adapters.declaration import Declaration

    Resolve = Callable[[str, Document], Declaration]


def load_exported(model: PreTrainedModel, folder: str | Path, resolve: Resolve) -> PeftModel:
    """Put an exported adapter on its base, for use: in evaluation mode, nothing trainable.

    Args:
        model: the unmodified base, without adapters, in as many bits as the adapter was trained on; its layers are
            wrapped in place. It stays as it is if the adapter cannot be loaded.
        folder: as ``export`` wrote it.
        resolve: gives the variant that a folder in autolora's own format names, with its options set.

    Returns:
        A ``PeftModel``.

    Raises:
        VariantError: the folder holds no whole adapter, or one of another model; or what ``resolve`` raises.
    """
    path = expanded(folder)
    every_linear_layer(model)  # one that carries an adapter already is refused
    own = (path / OWN_CONFIG).exists()
    if not (own or (path / CONFIG).exists()):
        raise VariantError(f"{path} holds no adapter: neither {CONFIG} nor {OWN_CONFIG} is there")
    if not (path / WEIGHTS).exists():
        raise VariantError(f"{path} holds no {WEIGHTS}: export the adapter again")
    _warn_of_other_bits(model, path)
    adapted = _load_own(model, path, resolve) if own else _load_peft_s(model, path)
    return adapted.requires_grad_(False).eval()


def _warn_of_other_bits(model: PreTrainedModel, path: Path) -> None:
    trained = bits_of_base(path)
    held = bits_held(model)
    if trained not in (None, held):
        own = f"is in {held} bits" if held else "is not quantized"
        warnings.warn(
            f"the adapter in {path} was trained on a base in {trained} bits, and this one {own}: outputs differ from "
            "those in training. Load the base in as many bits",
            stacklevel=4,
        )


def _load_peft_s(model: PreTrainedModel, path: Path) -> PeftModel:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with whole_or_untouched(model), weights_kept(model):
            return PeftModel.from_pretrained(model, path)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise VariantError(f"{path} is damaged or of another model: {error}") from error


def _load_own(model: PreTrainedModel, path: Path, resolve: Resolve) -> PeftModel:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    recorded = _Recorded.read(path / OWN_CONFIG)
    variant = resolve(recorded.variant, recorded.options)
    try:
        state = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise VariantError(f"{path / WEIGHTS} cannot be read ({error}): export the adapter again") from error
    there = every_linear_layer(model)
    layers = there if recorded.target_modules is None else recorded.target_modules  # earlier versions knew one choice
    if not set(layers) <= set(there):
        absent = next(name for name in layers if name not in there)
        raise VariantError(
            f"the adapter in {path} is of another rank, variant or model: it adapts {absent!r}, which is not there"
        )
    adapted = variant.attach(
        model,
        rank=recorded.rank,
        alpha=recorded.alpha,
        adapter_name=recorded.adapter_name,
        adapter=AdapterSpec(target_modules=tuple(layers)),
    )
    try:
        load_adapter_state(adapted, state)
    except BaseException:
        remove(adapted)
        raise
    return adapted


@dataclass(frozen=True)
class _Recorded:
    """What autolora's own format says of an adapter beside its weights."""

    variant: str
    options: Document
    rank: int
    alpha: float
    adapter_name: str
    target_modules: list[str] | None

    @classmethod
    def read(cls, file: Path) -> _Recorded:
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
            found = settings["format"]
            recorded = cls(
                variant=settings["variant"],
                options=dict(settings["options"]),
                rank=int(settings["rank"]),
                alpha=float(settings["alpha"]),
                adapter_name=str(settings.get("adapter_name", DEFAULT_NAME)),  # earlier versions knew one name
                target_modules=settings.get("target_modules"),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VariantError(f"{file} is damaged ({error!r}): export the adapter again") from error
        if found != OWN_FORMAT:
            raise VariantError(f"{file} is of format {found}, this version reads {OWN_FORMAT}: update autolora")
        return recorded
