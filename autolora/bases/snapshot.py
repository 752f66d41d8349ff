"""A model as it was at one moment, whatever is done to it afterwards: wrapped layers, hooks, other forward passes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONTAINERS = (dict, list, set)
"""Attributes of a module that are changed in place: its parameters, buffers, modules and hooks."""
WORD = 4
"""Bytes that are summed as one number."""
CHUNK = 1 << 20
"""Words that are summed at once: a base in memory leaves little room."""
STEP = 6364136223846793005
"""Odd factor between chunks."""


@dataclass(frozen=True, eq=False)
class _Held:
    """A tensor as it was: what it says of itself, the memory that it was in, and a sum over its placed bits."""

    tensor: Tensor
    attributes: dict[str, Any]
    alias: Tensor
    trainable: bool
    total: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Held:
        return cls(tensor, dict(vars(tensor)), tensor.detach(), tensor.requires_grad, _total(tensor))

    @property
    def moved(self) -> bool:
        """Whether the tensor has other memory now, as on another device."""
        return self.tensor.data_ptr() != self.alias.data_ptr() or self.tensor.shape != self.alias.shape

    @property
    def unchanged(self) -> bool:
        """Whether it holds the same bits, wherever it is."""
        return self.tensor.dtype == self.alias.dtype and _total(self.tensor) == self.total


class Snapshot:
    """What a model is, to be what it is again. Its weights are not copied: they are looked at.

    Args:
        model: whose layers, hooks, attributes, configuration and ``requires_grad`` are kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [
            (module, type(module), dict(vars(module)), _contents(vars(module))) for module in model.modules()
        ]
        self._configs = [(config, _config_values(config)) for config in _configs(model)]
        self._held = [_Held.of(tensor) for tensor in _tensors(model)]

    def restore(self) -> bool:
        """Make the model what it was.

        A model that was moved to another device stays there.

        Returns:
            Whether its weights are the same bits; if not, nothing brings them back but loading it again.
        """
        for module, kind, attributes, contents in self._modules:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(attributes)
            for name, content in contents.items():
                _refill(attributes[name], content)
        for config, values in self._configs:
            vars(config).clear()
            vars(config).update({name: _copied(value) for name, value in values.items()})
        self._held = [_put_back(held) for held in self._held]
        return all(not held.moved and held.unchanged for held in self._held)


def _put_back(held: _Held) -> _Held:
    tensor = held.tensor
    tensor.grad = None
    vars(tensor).clear()
    vars(tensor).update(held.attributes)
    if held.moved and held.unchanged:
        held = _Held(tensor, held.attributes, tensor.detach(), held.trainable, held.total)
    elif held.moved:
        tensor.data = held.alias
    if tensor.requires_grad != held.trainable:
        tensor.requires_grad_(held.trainable)
    return held


def _total(tensor: Tensor) -> int:
    """A sum over the bits of a tensor, each by its place: exact, and the same on every device."""
    import torch

    if tensor.device.type == "meta":
        return 0
    flat = tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)
    if flat.storage_offset() % WORD:
        flat = flat.clone()
    rest = flat.numel() % WORD
    whole, total = flat[: flat.numel() - rest].view(torch.int32), torch.zeros((), dtype=torch.int64, device=flat.device)
    weights = _weights(flat.device)
    parts = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]
    for words in [*parts, flat[flat.numel() - rest :]]:  # integers of 64 bits wrap around
        total = total * STEP + (words * weights[: len(words)]).sum()
    return int(total)


@cache
def _weights(device: torch.device) -> Tensor:
    """An odd factor of 63 bits for every place in a chunk: by an even one, a bit could go unseen."""
    import torch

    drawn = torch.Generator().manual_seed(0)
    return (torch.randint(2**63 - 1, (CHUNK,), generator=drawn, dtype=torch.int64) | 1).to(device)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _contents(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.copy(value) for name, value in attributes.items() if isinstance(value, CONTAINERS)}


def _refill(container: Any, content: Any) -> None:
    """In place: whoever has added a hook removes it from this very dictionary."""
    container.clear()
    container.extend(content) if isinstance(container, list) else container.update(content)


def _configs(model: nn.Module) -> list[Any]:
    """The configuration objects of a model and its parts, those within others included."""
    from transformers import GenerationConfig, PretrainedConfig

    found: dict[int, Any] = {}
    waiting = [value for module in model.modules() for value in vars(module).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (PretrainedConfig, GenerationConfig)) and id(value) not in found:
            found[id(value)] = value
            waiting.extend(vars(value).values())
    return list(found.values())


def _config_values(config: Any) -> dict[str, Any]:
    return {name: _copied(value) for name, value in vars(config).items()}


def _copied(value: Any) -> Any:
    """A copy of plain values; configurations within others are kept on their own."""
    return copy.deepcopy(value) if isinstance(value, CONTAINERS) else value
