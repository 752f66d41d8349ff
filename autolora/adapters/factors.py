"""Factorizations of base weights and of what data says of them, computed once per base model, shared by its trials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from autolora.adapters.errors import VariantError
from autolora.adapters.layer import base_parameters, stored_weight
from autolora.adapters.statistics import (
    FisherFactors,
    fisher_factors,
    input_moments,
    layer_gradients,
    memory_groups,
    shape_of,
)
from autolora.adapters.subtraction import weight_matrix
from autolora.losses import target_count

if TYPE_CHECKING:
    from torch import Tensor, nn

    Factors = tuple[Tensor, ...]
    Layers = Mapping[str, nn.Module]
    Batch = Mapping[str, Tensor]

Data = TypeVar("Data")
"""What a sample says of one layer."""

KEPT_RANK = 256
"""Components kept of each matrix: any rank up to it is served from one factorization, at an eighth of the matrix's
elements for square layers of 4096. A larger rank is kept as asked for."""

STATISTICS_BYTES = 1 << 30
"""Most memory for statistics of layers at once; layers beyond it take another pass over the sample."""

DENSE = 2048
"""Largest matrix whose eigenvectors are all computed where few are needed; of a larger one LOBPCG finds those."""
ITERATIONS = 10
"""Of LOBPCG at most, as LoRA-DA's authors take; it needs three times as many rows as eigenvectors."""


@dataclass(frozen=True)
class _Kept:
    version: int  # of what it is computed from, which an in-place update (another checkpoint loaded) advances
    rank: float  # that it serves; any where it holds all components
    factors: Factors


_cache: WeakKeyDictionary[nn.Module, dict[Hashable, _Kept]] = WeakKeyDictionary()


def weight_factors(
    base: nn.Module, layers: Layers, rank: int, factorize: Callable[[Tensor, int], Factors]
) -> dict[str, Factors]:
    """Factors of the weights of some layers, by name, float32 on the CPU.

    Args:
        base: the model, without adapters or freshly attached to, its weights not yet subtracted from.
        layers: linear layers of it, by name.
        rank: components that are needed.
        factorize: a function (it is the cache's key) from W (m, n) in float32 and a number of components k to a tuple
            of tensors.

    Returns:
        What ``factorize`` returned for some k of at least ``rank``: the caller cuts.
    """
    kept = _cache.setdefault(base, {})
    found = {}
    for name, layer in layers.items():
        key, version = (factorize, name), _version(stored_weight(layer))
        if not _serves(kept.get(key), version, rank):
            weight = weight_matrix(layer)
            _check_finite(name, weight)
            kept[key] = _factorized(version, rank, weight.shape, partial(factorize, weight))
        found[name] = kept[key].factors
    return found


def gradient_factors(base: nn.Module, layers: Layers, batches: Sequence[Batch], rank: int) -> dict[str, Factors]:
    """The gradient G = dL/dW (m, n) over a sample, U S V^T, and mean |W o G|; else as :func:`weight_factors`."""
    floats = {name: m * n for name, (m, n) in _shapes(layers).items()}
    return _sample_factors(base, layers, batches, rank, collect=layer_gradients, factorize=_weighed_svd, floats=floats)


def input_factors(
    base: nn.Module,
    layers: Layers,
    batches: Sequence[Batch],
    rank: int,
    factorize: Callable[[Tensor, Tensor, int], Factors],
    collect: Callable[..., dict[str, Tensor]] = input_moments,
) -> dict[str, Factors]:
    """Factors from the inputs' second moment C (n, n) over a sample, and W; else as :func:`weight_factors`."""
    floats = {name: n * n for name, (_, n) in _shapes(layers).items()}
    return _sample_factors(base, layers, batches, rank, collect=collect, factorize=factorize, floats=floats)


def curvature_factors(
    base: nn.Module,
    layers: Layers,
    batches: Sequence[Batch],
    rank: int,
    factorize: Callable[[FisherFactors, Tensor, int], Factors],
) -> dict[str, Factors]:
    """Factors from K-FAC's :class:`~autolora.adapters.statistics.FisherFactors` over a sample, and W; else as
    :func:`weight_factors`."""
    floats = {name: n * n + m * n for name, (m, n) in _shapes(layers).items()}
    return _sample_factors(base, layers, batches, rank, collect=fisher_factors, factorize=factorize, floats=floats)


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


def extreme_eigenvectors(matrix: Tensor, components: int, largest: bool) -> tuple[Tensor, Tensor]:
    """Eigenvalues (k,) and eigenvectors (n, k) of a symmetric matrix from one end of its spectrum, outermost first."""
    import torch

    size = len(matrix)
    if size > DENSE and size >= 3 * components:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(size, components, generator=generator, dtype=matrix.dtype).to(matrix.device)
        return torch.lobpcg(matrix, X=start, niter=ITERATIONS, largest=largest)
    values, vectors = torch.linalg.eigh(matrix)
    if largest:
        values, vectors = values.flip(0), vectors.flip(1)
    return values[:components], vectors[:, :components]


def precise(matrix: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none."""
    return (matrix.cpu() if matrix.device.type == "mps" else matrix).double()


def _weighed_svd(gradient: Tensor, weight: Tensor, components: int) -> Factors:
    return (*leading_svd(gradient, components), (weight * gradient).abs().mean())


def _sample_factors(
    base: nn.Module,
    layers: Layers,
    batches: Sequence[Batch],
    rank: int,
    collect: Callable[..., dict[str, Data]],
    factorize: Callable[[Data, Tensor, int], Factors],
    floats: Mapping[str, int],
) -> dict[str, Factors]:
    """Collect what is missing, few layers at a time: ``floats`` is what collecting takes of memory, by layer."""
    kept = _cache.setdefault(base, {})
    version = sum(map(_version, base_parameters(base)))
    if not sum(map(target_count, batches)):
        raise VariantError("the batches have no target token: all their labels are masked")
    sample = _digest(batches)
    keys = {name: (collect, factorize, sample, name) for name in layers}
    missing = [name for name in layers if not _serves(kept.get(keys[name]), version, rank)]
    for group in memory_groups({name: 4 * floats[name] for name in missing}, STATISTICS_BYTES):
        collected = collect(base, {name: layers[name] for name in group}, batches)
        for name in group:
            data, weight = collected.pop(name), weight_matrix(layers[name])
            _check_finite(name, weight, *(vars(data).values() if isinstance(data, FisherFactors) else (data,)))
            kept[keys[name]] = _factorized(version, rank, weight.shape, partial(factorize, data, weight))
    return {name: kept[key].factors for name, key in keys.items()}


def _check_finite(name: str, *values: object) -> None:
    import torch

    if not all(value.isfinite().all() for value in values if isinstance(value, torch.Tensor)):
        raise VariantError(f"layer {name!r}: its weight, or what the sample shows of it, is not finite")


def _serves(entry: _Kept | None, version: int, rank: int) -> bool:
    return entry is not None and entry.version == version and entry.rank >= rank


def _factorized(version: int, rank: int, shape: Sequence[int], factorize: Callable[[int], Factors]) -> _Kept:
    components = min(max(rank, KEPT_RANK), *shape)
    # Copies: a view would keep the whole factorization alive.
    factors = tuple(part.to("cpu", copy=True).contiguous() for part in factorize(components))
    return _Kept(version, math.inf if components == min(shape) else components, factors)


def _version(parameter: Tensor) -> int:
    return int(parameter._version)


def _shapes(layers: Layers) -> dict[str, tuple[int, int]]:
    return {name: shape_of(layer) for name, layer in layers.items()}


def _digest(batches: Sequence[Batch]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        for key in sorted(batch):
            digest.update(f"{key} {tuple(batch[key].shape)}".encode() + batch[key].cpu().numpy().tobytes())
    return digest.hexdigest()
