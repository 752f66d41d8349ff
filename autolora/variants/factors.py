"""Factorisations of base weights and of their gradients, computed once per base model and shared by its trials."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from autolora.variants.attachment import attachment
from autolora.variants.statistics import layer_gradients, memory_groups
from autolora.variants.subtraction import weight_matrix

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

    Factorise = Callable[[Tensor, int], tuple[Tensor, ...]]
    Batch = Mapping[str, Tensor]

KEPT_RANK = 256
"""Components kept of each matrix: any rank up to it is served from one factorisation, at an eighth of the matrix's
elements for square layers of 4096. A larger rank is kept as asked for."""

GRADIENT_BYTES = 1 << 30
"""Most memory for full gradients at once; layers beyond it take another pass over the sample."""


@dataclass(frozen=True)
class _Kept:
    version: int  # of what it is computed from, which an in-place update (another checkpoint loaded) advances
    rank: int
    factors: tuple[Tensor, ...]


_cache: WeakKeyDictionary[nn.Module, dict[Hashable, _Kept]] = WeakKeyDictionary()


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
        key, version = (factorise, name), layer.get_base_layer().weight._version
        if not _serves(kept.get(key), version, rank):
            kept[key] = _factorised(weight_matrix(layer), version, rank, factorise)
        found[name] = kept[key].factors
    return found


def gradient_factors(
    model: PeftModel, batches: Sequence[Batch], rank: int, factorise: Factorise
) -> dict[str, tuple[Tensor, ...]]:
    """Factors of the gradient G = dL/dW (m, n) of every adapted layer over a sample; else as :func:`weight_factors`."""
    base = model.get_base_model()
    kept = _cache.setdefault(base, {})
    version = sum(parameter._version for parameter in base.parameters() if not parameter.requires_grad)
    layers = attachment(model).layers
    sample = _digest(batches)
    keys = {name: (factorise, sample, name) for name in layers}
    missing = [name for name in layers if not _serves(kept.get(keys[name]), version, rank)]
    sizes = {name: 4 * layers[name].in_features * layers[name].out_features for name in missing}
    for group in memory_groups(sizes, GRADIENT_BYTES):
        gradients = layer_gradients(model, {name: layers[name].get_base_layer() for name in group}, batches)
        for name in group:
            kept[keys[name]] = _factorised(gradients.pop(name), version, rank, factorise)
    return {name: kept[key].factors for name, key in keys.items()}


def leading_svd(matrix: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), singular values (k,) and V^T (k, n) of the k largest."""
    import torch

    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :components], values[:components], vh[:components]


def trailing_svd(matrix: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), singular values (k,) and V^T (k, n) of the k smallest, the smallest last; of the exact SVD."""
    import torch

    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, -components:], values[-components:], vh[-components:]


def _serves(entry: _Kept | None, version: int, rank: int) -> bool:
    return entry is not None and entry.version == version and entry.rank >= rank


def _factorised(matrix: Tensor, version: int, rank: int, factorise: Factorise) -> _Kept:
    components = min(max(rank, KEPT_RANK), *matrix.shape)
    # Copies: a view would keep the whole factorisation alive.
    factors = tuple(part.to("cpu", copy=True).contiguous() for part in factorise(matrix, components))
    return _Kept(version, components, factors)


def _digest(batches: Sequence[Batch]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        for key in sorted(batch):
            digest.update(f"{key} {tuple(batch[key].shape)}".encode() + batch[key].cpu().numpy().tobytes())
    return digest.hexdigest()
