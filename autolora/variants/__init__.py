"""The LoRA variants, a file each: every module of this folder that declares one registers it on import."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.variants.base import Variant
from autolora.variants.registry import get, names, register, resolve

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["Variant", "VariantError", "detach", "get", "names", "register", "resolve"]


def detach(model: PeftModel) -> PreTrainedModel:
    """Take the adapter off again and return the base, bit-identical to what it was before ``attach``."""
    from autolora.adapters.attachment import remove

    return remove(model)


# Torch-free by contract, so importing every file of the folder is cheap and adding a variant touches nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
