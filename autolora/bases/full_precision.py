"""A base in float32 or bfloat16."""

from __future__ import annotations

from autolora.bases.base import Base
from autolora.bases.device import find_device, find_dtype
from autolora.bases.pretrained import load_tokenizer, load_weights
from autolora.spec import Spec


def load(spec: Spec) -> Base:
    """Load the model and tokenizer of a specification onto its device.

    Raises:
        ModelError: not found, the hub cannot be reached, or not a causal language model.
    """
    device = find_device(spec.training.device)
    dtype = find_dtype(spec.training.dtype, device)
    model = load_weights(spec, dtype) if isinstance(spec.model, str) else spec.model
    model = model.to(device=device, dtype=dtype)
    model.requires_grad_(False)
    return Base(model, load_tokenizer(spec), device, dtype)
