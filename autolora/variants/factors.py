"""Factorisations of base weights, computed once per base model and shared by every trial on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from autolora.variants.attachment import attachment
from autolora.variants.subtraction import weight_matrix

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

    Factorise = Callable[[Tensor, int], tuple[Tensor, ...]]

KEPT_RANK = 256
"""Components kept of each weight: any rank up to it is served from one factorisation, at an eighth of the weight's
elements for square layers of 4096. A larger rank is kept as asked for."""


@dataclass(frozen=True)
class _Kept:
    version: int  # of the weight, which an in-place update (another checkpoint loaded into the model) advances
    rank: int
    factors: tuple[Tensor, ...]


_cache: WeakKeyDictionary[nn.Module, dict[tuple[Factorise, str], _Kept]] = WeakKeyDictionary()


def weight_factors(model: PeftModel, rank: int, factorise: Factorise) -> dict[str, tuple[Tensor, ...]]:
    """Factors of every adapted layer's weight, by layer name, float32 on the CPU.

    Args:
        model: freshly attached, its base weights not yet subtracted from.
        rank: components that are needed.
        factorise: a module-level function (it is the cache's key) from W (m, n) in float32 and a number of components
            k to a tuple of tensors.

    Returns:
        What ``factorise`` returned for some k of at least ``rank``: the caller cuts.
    """
    kept = _cache.setdefault(model.get_base_model(), {})
    found = {}
    for name, layer in attachment(model).layers.items():
        version = layer.get_base_layer().weight._version
        entry = kept.get((factorise, name))
        if entry is None or entry.version != version or entry.rank < rank:
            weight = weight_matrix(layer)
            components = min(max(rank, KEPT_RANK), *weight.shape)
            # Copies: a view would keep the whole factorisation alive.
            factors = tuple(part.to("cpu", copy=True).contiguous() for part in factorise(weight, components))
            entry = kept[factorise, name] = _Kept(version, components, factors)
        found[name] = entry.factors
    return found
