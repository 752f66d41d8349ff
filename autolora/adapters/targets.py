"""Which layers carry an adapter: every linear layer of the model but its output head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from autolora.adapters.errors import VariantError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LinearLayer:
    """One layer to adapt.

    Attributes:
        out_features, in_features: m and n of the weight W (m, n).
        transposed: the module stores W as (n, m), as GPT-2's ``Conv1D`` does.
    """

    out_features: int
    in_features: int
    transposed: bool

    @property
    def largest_rank(self) -> int:
        return min(self.out_features, self.in_features)


class Shaped(Protocol):
    """What has the shape (m, n) of a linear layer's weight."""

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...


def linear_layers(model: nn.Module) -> dict[str, LinearLayer]:
    """The linear layers but the output head by module name, in the model's order: PEFT's "all-linear", spelled out.

    Raises:
        VariantError: there are none, or the model carries an adapter already.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            raise VariantError(f"{describe(model)} carries an adapter already (at {name!r}): detach it first")
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            found[name] = LinearLayer(module.out_features, module.in_features, transposed=False)
        elif isinstance(module, Conv1D):
            in_features, out_features = module.weight.shape
            found[name] = LinearLayer(out_features, in_features, transposed=True)
    if not found:
        raise VariantError(f"{describe(model)} has no linear layer besides its output head: nothing to adapt")
    return found


def by_type(layers: Mapping[str, Shaped]) -> dict[str, list[str]]:
    """Names of the layers that differ by their number in the model alone and are of one shape, by the first's name."""
    kinds: dict[tuple[str, int, int], list[str]] = {}
    for name, layer in layers.items():
        kind = re.sub(r"\.\d+(?=\.)", "", name)
        kinds.setdefault((kind, layer.out_features, layer.in_features), []).append(name)
    return {names[0]: names for names in kinds.values()}


def check_rank(model: nn.Module, layers: Mapping[str, LinearLayer], rank: int) -> None:
    """Raise ``VariantError`` where the rank does not fit every layer, naming the smallest layer."""
    name, smallest = min(layers.items(), key=lambda item: item[1].largest_rank)
    if not 1 <= rank <= smallest.largest_rank:
        raise VariantError(
            f"rank {rank} does not fit layer {name!r} of {describe(model)} "
            f"({smallest.out_features} x {smallest.in_features}): use 1 to {smallest.largest_rank}"
        )


def describe(model: nn.Module) -> str:
    path = getattr(model, "name_or_path", "")
    return f"{type(model).__name__} ({path})" if path else type(model).__name__
