"""The state of an attached adapter: what a checkpoint and an export in autolora's own format hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment
from autolora.adapters.errors import VariantError
from autolora.adapters.start import Allotment

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

ALLOTTED = "allotted"


def adapter_state(model: PeftModel) -> dict[str, Tensor]:
    """The adapter as a flat dictionary of CPU tensors, for ``torch.save`` and ``torch.load(weights_only=True)``.

    It holds every adapter tensor and, for subtracting variants, the anchors A0 and B0; where ranks and alphas differ
    between layers, these too. An initialization that is run again elsewhere need not give the same.
    """
    import torch

    record = attachment(model)
    state = {key: tensor.detach().to("cpu", copy=True) for key, tensor in _state_tensors(model).items()}
    if getattr(model.peft_config[record.adapter_name], "rank_pattern", None):
        for name, layer in record.layers.items():
            own = [float(layer.rank), float(layer.alpha)]
            state[f"{name}.{ALLOTTED}"] = torch.tensor(own, dtype=torch.float64)
    return state


def allotment(state: Mapping[str, Tensor]) -> dict[str, Allotment] | None:
    """What :func:`adapter_state` says of each layer's rank and alpha; None if all are alike."""
    found = {}
    for key, tensor in state.items():
        name, _, kind = key.rpartition(".")
        if kind == ALLOTTED:
            rank, alpha = tensor.tolist()
            found[name] = Allotment(int(rank), alpha)
    return found or None


def load_adapter_state(model: PeftModel, state: Mapping[str, Tensor]) -> None:
    """Restore :func:`adapter_state` into a freshly attached model, its subtracted base weights included.

    Raises:
        VariantError: the state belongs to another variant, rank or model.
    """
    import torch

    own = _state_tensors(model)
    state = {key: tensor for key, tensor in state.items() if not key.endswith(f".{ALLOTTED}")}
    if own.keys() != state.keys():
        key = min(own.keys() ^ state.keys())
        where = "misses" if key in own else "has, and the model lacks,"
        raise VariantError(f"the state is of another rank, variant or model: it {where} {key!r}")
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            sizes = f"{tuple(state[key].shape)}, the model's is {tuple(tensor.shape)}"
            raise VariantError(f"the state is of another rank or model: {key!r} is {sizes}")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
    record = attachment(model)
    for name, kept in record.subtracted.items():
        kept.put(record.layers[name])


def _state_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The live tensors behind the state; one that several layers share, as RaSA's pools, under its first name."""
    record = attachment(model)
    suffix = f".{record.adapter_name}"
    # RandLoRA's bases, which all layers share, are buffers of PEFT's model.
    tensors: dict[str, Tensor] = {key: t for key, t in model.base_model.named_buffers() if key.endswith(suffix)}
    seen: set[int] = set()
    for name, layer in record.layers.items():
        own = {f"{name}.{key}": p for key, p in layer.parameters.items() if id(p) not in seen}
        tensors.update(own)
        seen.update(map(id, own.values()))
    for name, kept in record.subtracted.items():
        tensors[f"{name}.anchor_A"] = kept.a0
        tensors[f"{name}.anchor_B"] = kept.b0
    return tensors
