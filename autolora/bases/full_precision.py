"""A base in float32 or bfloat16."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from autolora.bases import kinds, quantized
from autolora.bases.base import Base
from autolora.bases.causality import check_causal
from autolora.bases.completeness import check_finite, check_present
from autolora.bases.device import dispatched, dtype_name, find_device, find_dtype, own_dtype
from autolora.bases.errors import ModelError
from autolora.bases.pretrained import Loaded, load_tokenizer, load_weights
from autolora.bases.reading import reading_of
from autolora.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = ("float32", "bfloat16")


def load(spec: Spec) -> Base:
    """Load the model and tokenizer of a specification onto its device.

    A model object is used as it is, in its own precision; it is moved unless its parts were dispatched to devices.

    Raises:
        ModelError: not found, damaged, incomplete, of NaN, quantized, not a causal language model, or an object in
            another dtype than the specification's; or the hub cannot be reached.
    """
    device = find_device(spec.training.device)
    if isinstance(spec.model, str):
        loaded = load_weights(spec, find_dtype(spec.training.dtype, device))
    else:
        loaded = Loaded(_checked(spec.model, spec.training.dtype))
    model = loaded.model
    check_present(model)
    if dispatched(model):  # .to would undo it; inputs go to where the embeddings are
        device = model.get_input_embeddings().weight.device
    else:
        model = model.to(device)  # the device alone: a cast of the whole would round what is float32 on purpose
    check_finite(model)
    model.requires_grad_(False)
    base = Base(
        model=model,
        tokenizer=load_tokenizer(spec),
        device=device,
        dtype=own_dtype(model),
        notes=loaded.notes,
        merged=loaded.merged,
        revision=spec.revision,
    )
    check_causal(base)
    return replace(base, reading=reading_of(base))


def _checked(model: PreTrainedModel, asked: str) -> PreTrainedModel:
    """A model object that can be tuned as it is."""
    from transformers import PreTrainedModel as Expected

    if not isinstance(model, Expected):
        raise ModelError(
            f"model: {type(model).__name__} is not a transformers.PreTrainedModel: give a causal language model as "
            "AutoModelForCausalLM loads it, without an adapter"
        )
    kinds.check_object(model)
    quantized.check_unquantized(model)
    own = dtype_name(own_dtype(model))
    if own not in DTYPES:
        raise ModelError(
            f"model: the {type(model).__name__} given is in {own}, in which autolora does not train (float16 needs its "
            f"loss scaled): load it with dtype={' or '.join(f'torch.{name}' for name in DTYPES)}"
        )
    if asked not in ("auto", own):
        raise ModelError(
            f"training.dtype is {asked!r}, but the {type(model).__name__} given is in {own}, and a model object is "
            f"used as it is: load it with dtype=torch.{asked}, or leave training.dtype out"
        )
    return model
