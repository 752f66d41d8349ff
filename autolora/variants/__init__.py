"""The registry of LoRA variants. Every module of this folder that defines one registers it on import."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from autolora.variants.base import Variant, VariantError, register, registry

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["Variant", "VariantError", "detach", "get", "names", "register"]


def get(name: str) -> Variant:
    """The registered variant of that name; raises ``VariantError`` listing what there is."""
    variants = registry()
    if name not in variants:
        close = difflib.get_close_matches(name, variants, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise VariantError(f"unknown variant {name!r}: {hint}registered are {', '.join(names())}")
    return variants[name]


def names() -> list[str]:
    """All registered names, plain LoRA first, the others in alphabetical order."""
    return sorted(registry(), key=lambda name: (name != "lora", name))


def detach(model: PeftModel) -> PreTrainedModel:
    """Take the adapter off again and return the base, bit-identical to what it was before ``attach``."""
    from autolora.variants.attachment import remove

    return remove(model)


# Torch-free by contract, so importing every file of the folder is cheap and adding a variant touches nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
