"""Loading a base: in float32, bfloat16 or float16, with linear layers in 4 or 8 bits if asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from autolora.adapters.statistics import evaluating
from autolora.bases import attention, kinds, packed, quantized
from autolora.bases import device as devices
from autolora.bases.base import Base, fingerprint
from autolora.bases.blank import blank_model
from autolora.bases.causality import check_causal
from autolora.bases.completeness import check_finite, check_present
from autolora.bases.device import (
    cards_for,
    dispatched,
    dtype_name,
    find_device,
    find_dtype,
    own_dtype,
    placement,
)
from autolora.bases.errors import ModelError
from autolora.bases.memory import Weights, collected, exceeded, out_of_memory
from autolora.bases.pretrained import Loaded, load_config, load_tokenizer, load_weights
from autolora.bases.reading import reading_of
from autolora.bases.turns import turn
from autolora.errors import first_line
from autolora.spec import Spec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DTYPES = ("float32", "bfloat16", "float16")
NO_BFLOAT16 = "in float16, as this GPU has no bfloat16 (training.dtype); the loss is scaled"
FEWER_CARDS = "this process sees {there} of the {asked:g} GPUs that workers spread the model over (resources.gpu)"


def load(spec: Spec) -> Base:
    """Load the model and tokenizer of a specification onto its device, or spread it over ``resources.gpu`` of them.

    A model object is used as it is, in its own precision; it is moved unless its parts were dispatched to devices.

    Raises:
        ModelError: not found, damaged, incomplete, of NaN, quantized by an unsupported method, not a causal language
            model, without the implementation of attention that is asked for, or an object in another dtype, in other
            bits or on another device than the specification's; it cannot be spread over the GPUs asked for; the hub
            cannot be reached; or memory runs out.
    """
    device = find_device(spec.training.device)
    dtype = find_dtype(spec.training.dtype, device)
    cards = cards_for(spec)
    try:
        return _load(spec, device, dtype, cards)
    except (RuntimeError, MemoryError, OSError) as error:
        if not out_of_memory(error):
            raise
        dtype = dtype if isinstance(spec.model, str) else own_dtype(spec.model)
        answer = exceeded("loading the model", device, _weights(spec, dtype), error)
    collected()
    raise answer


def _load(spec: Spec, device: torch.device, dtype: torch.dtype, cards: int) -> Base:
    asked = spec.base.attn_implementation
    if isinstance(spec.model, str):
        loaded, digest = _loaded(spec, device, dtype, cards)
        again = partial(_again, spec, device, dtype, getattr(loaded.model, "hf_device_map", None))
        if cards > 1 and not dispatched(loaded.model):
            raise ModelError(_unspread(loaded, cards))
    else:
        loaded, digest, again = Loaded(_checked(spec.model, spec), packed.note(spec.model)), None, None
        attention.check_object(asked, loaded.model)
        _put(loaded.model, device)
    model = loaded.model
    if dispatched(model) or packed.bits_held(model):  # inputs go to where the embeddings are
        device = _own_device(model, spec.training.device)
    check_finite(model)
    packed.settle(model)
    model.requires_grad_(False)
    base = Base(
        model=model,
        tokenizer=load_tokenizer(spec),
        device=device,
        dtype=own_dtype(model),
        notes=loaded.notes,
        merged=loaded.merged,
        revision=spec.revision,
        digest=digest,
        again=again,
    )
    if base.bits:
        _check_runs(base)
    attention.check_works(asked, base)
    check_causal(base)
    return replace(base, reading=reading_of(base))


def _loaded(spec: Spec, device: torch.device, dtype: torch.dtype, cards: int) -> tuple[Loaded, str | None]:
    """The model from its files, on its device; and its fingerprint, where rounding to float16 changes that.

    A study that began in float32 or bfloat16 is continued on a GPU without bfloat16, so the fingerprint is that of
    weights that were not in float16. They are loaded and dropped before: rounding a model that was loaded would also
    round what its class keeps in float32.
    """
    import torch

    digest, placed = None, placement(device, cards)
    with turn():
        if dtype == torch.float16:
            wide = load_weights(spec, torch.bfloat16, placed)
            digest = fingerprint(wide.model, wide.merged)
            del wide
            collected()
        loaded = load_weights(spec, dtype, placed)
        _put(loaded.model, device)
    notes = [NO_BFLOAT16] if dtype == torch.float16 and spec.training.dtype == "auto" else []
    if cards < (spec.resources.gpu or 0) > 1:
        notes.append(FEWER_CARDS.format(there=devices.visible_cards(), asked=spec.resources.gpu))
    return replace(loaded, notes=(*notes, *loaded.notes)), digest


def _again(
    spec: Spec, device: torch.device, dtype: torch.dtype, places: Mapping[str, object] | None
) -> PreTrainedModel:
    """A model from its files once more, where it was before.

    Args:
        spec, device, dtype: as it was loaded.
        places: its ``hf_device_map``; None if it has none.
    """
    placed = placement(device, 1) if places is None else {"device_map": dict(places)}
    with turn():
        model = load_weights(spec, dtype, placed).model
        _put(model, device)
    return model


def _put(model: PreTrainedModel, device: torch.device) -> None:
    """Move a model that is whole to a device, unless its parts were dispatched to several or are packed.

    Raises:
        ModelError: a weight of it holds no data.
    """
    check_present(model)
    if not dispatched(model) and not packed.bits_held(model):  # where they were, .to would undo it
        model.to(device)  # the device alone: a cast of the whole would round what is float32 on purpose


def _unspread(loaded: Loaded, cards: int) -> str:
    """That a model is on one of the cards over which it was to be spread, and what to do."""
    if loaded.merged is not None:
        why = "an adapter is merged into it, which is done on one device. Save the merged model and give that as model"
    else:
        why = f"{type(loaded.model).__name__} is too small to be divided. Use a larger model"
    return (
        f"model: resources.gpu asks for {cards} GPUs, and the model is on one of them: {why}, or set resources.gpu to 1"
    )


def _weights(spec: Spec, dtype: torch.dtype) -> Weights:
    """What the weights of a specification's model take, as far as its configuration can be read and built."""
    if not isinstance(spec.model, str):
        return Weights.of(spec.model, dtype, packed.bits_held(spec.model))
    bits = packed.bits_asked(spec.base)
    try:
        return Weights.of(blank_model(load_config(spec)), dtype, bits)
    except Exception:  # this is for a message about something else
        return Weights(dtype_name(dtype), bits)


def _check_runs(base: Base) -> None:
    """Take a forward pass of a packed model, as bitsandbytes packs some models that it cannot run.

    Raises:
        ModelError: it fails, or would in training.
    """
    import torch

    name, where = type(base.model).__name__, f"{base.bits} bits on {base.device}"
    if base.bits == 8 and base.device.type == "cpu" and base.dtype == torch.float16:
        raise ModelError(
            f"model: with layers in {where}, {packed.METHOD} overwrites inputs in float16, so that gradients fail: set "
            "training.dtype to float32 or bfloat16"
        )
    rows = torch.full((1, 4), base.pad_token_id, device=base.device)
    try:
        with evaluating(base.model), torch.no_grad(), base.autocast():
            base.model(input_ids=rows, use_cache=False)
    except Exception as error:  # of the model's own code, on layers that it did not expect
        if out_of_memory(error):
            raise
        raise ModelError(
            f"model: {name} fails with layers in {where} ({first_line(error) or type(error).__name__}). "
            f"{packed.METHOD} does not support all models: give it unquantized, without base.load_in_{base.bits}bit"
        ) from error


def _own_device(model: PreTrainedModel, asked: str) -> torch.device:
    """The device of a model that is used where it is.

    Raises:
        ModelError: the specification names another one.
    """
    device: torch.device = model.get_input_embeddings().weight.device
    if asked != "auto" and not any(_is_on(parameter, find_device(asked)) for parameter in model.parameters()):
        raise ModelError(
            f"training.device is {asked!r}, but the {type(model).__name__} is on {device} and is used where it is: "
            "load it there, or leave training.device out"
        )
    return device


def _is_on(parameter: torch.Tensor, device: torch.device) -> bool:
    """Whether a device holds a parameter; "cuda" names any of its kind."""
    own = parameter.device
    return own.type == device.type and device.index in (None, own.index)


def _checked(model: PreTrainedModel, spec: Spec) -> PreTrainedModel:
    """A model object that can be tuned as it is."""
    from transformers import PreTrainedModel as Expected

    asked = spec.training.dtype

    if not isinstance(model, Expected):
        raise ModelError(
            f"model: {type(model).__name__} is not a transformers.PreTrainedModel: give a causal language model as "
            "AutoModelForCausalLM loads it, without an adapter"
        )
    kinds.check_object(model)
    quantized.check_supported(model)
    packed.check_asked(spec.base, packed.bits_held(model), f"the {type(model).__name__} given")
    packed.check_kept(model)
    own = dtype_name(own_dtype(model))
    if own not in DTYPES:
        raise ModelError(
            f"model: the {type(model).__name__} given is in {own}, in which autolora does not train: load it with "
            f"dtype={' or '.join(f'torch.{name}' for name in DTYPES)}"
        )
    if asked not in ("auto", own):
        raise ModelError(
            f"training.dtype is {asked!r}, but the {type(model).__name__} given is in {own}, and a model object is "
            f"used as it is: load it with dtype=torch.{asked}, or leave training.dtype out"
        )
    return model
