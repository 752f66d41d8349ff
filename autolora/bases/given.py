"""A model object of the user's, which is theirs again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from autolora.bases.packed import REPACKS

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def as_given(model: object) -> Iterator[None]:
    """Context after which a model object is as it was: its layers, training modes, ``requires_grad``, devices.

    Its numbers and dtypes are not changed in the first place, see :func:`autolora.bases.load`.

    Args:
        model: as in :class:`autolora.spec.Spec`; what is not a ``torch.nn.Module`` is left alone.
    """
    if isinstance(model, str):
        yield
        return
    from torch.nn import Module

    if not isinstance(model, Module):
        yield
        return
    modules = [(module, dict(module._modules), module.training) for module in model.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    devices = {name: tensor.device for name, tensor in _tensors(model)}
    repacking = [(module, getattr(module, REPACKS)) for module in model.modules() if hasattr(module, REPACKS)]
    try:
        yield
    finally:
        for module, children, training in modules:
            module._modules = children  # an adapter whose attaching was cut short may be in between
            module.training = training
        for name, tensor in _tensors(model):
            if tensor.device != devices[name]:
                tensor.data = tensor.data.to(devices[name])
        for module, own_way in repacking:
            setattr(module, REPACKS, own_way)
        for parameter, own in trainable:
            parameter.requires_grad_(own)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())
