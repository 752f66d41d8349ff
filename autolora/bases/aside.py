"""A model without its parameters for a while: the same object, whose memory others can use."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from autolora.adapters.layer import base_buffers
from autolora.adapters.packed import bits_of, unpacked
from autolora.adapters.store import digest_of

if TYPE_CHECKING:
    from torch import nn

STATES = ("state", "quant_state")
"""Where layers of bitsandbytes keep scales beside the parameter, and those in 8 bits the weight itself."""


def digest(model: nn.Module) -> str:
    """A digest of all that a model was loaded with: parameters, what packed ones stand for, persistent buffers."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(f"{name} {digest_of(parameter)}".encode())
    for module in model.modules():
        if bits_of(module):
            found.update(digest_of(unpacked(module)).encode())  # with all scales, which lie beside the parameter
    for buffer in base_buffers(model):
        found.update(digest_of(buffer).encode())
    return found.hexdigest()


def empty(model: nn.Module) -> None:
    """Put parameters of the same shape, dtype and ties that take no memory in place of a model's own."""
    import torch

    bare: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        if bits_of(module) == 8:  # these hold their weight twice, see fill
            module.state = type(module.state)()
        for name, own in module._parameters.items():
            if own is None:
                continue
            if own not in bare:
                shape = torch.zeros((), dtype=own.dtype).expand(own.shape)
                bare[own] = torch.nn.Parameter(shape, requires_grad=False)
            module._parameters[name] = bare[own]


def fill(model: nn.Module, other: nn.Module) -> None:
    """Give a model that was emptied the parameters of another with the same layers; they share them afterwards."""
    own = dict(model.named_modules(remove_duplicate=False))
    for path, module in other.named_modules(remove_duplicate=False):
        own[path]._parameters.update(module._parameters)
        if bits_of(module):
            own[path].__dict__.update({name: vars(module)[name] for name in STATES if name in vars(module)})
    model.requires_grad_(False)
