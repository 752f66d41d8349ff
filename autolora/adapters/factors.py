"""Factorizations of base weights and of what data says of them, computed once per base model, shared by its trials."""

from __future__ import annotations

import hashlib
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
from autolora.adapters.svd import EXACT_WIDTH, leading_svd
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
elements for square layers of 4096. For a larger rank it doubles until it serves."""
FEW_RANK = 64
"""The same where components are searched for one after the other and each takes time, see :func:`leading_svd`."""

STATISTICS_BYTES = 1 << 30
"""Most memory for statistics of layers at once; layers beyond it take another pass over the sample."""

DENSE = 2048
"""Largest matrix whose eigenvectors are all computed where few are needed; of a larger one LOBPCG finds those."""
ITERATIONS = 10
"""Of LOBPCG at most, as LoRA-DA's authors take; it needs three times as many rows as eigenvectors."""


@dataclass(frozen=True)
class _Kept:
    version: int  # of what it is computed from, which an in-place update (another checkpoint loaded) advances
    factors: Factors


_cache: WeakKeyDictionary[nn.Module, dict[Hashable, _Kept]] = WeakKeyDictionary()


def forget(base: nn.Module) -> None:
    """Free what is kept of a base model."""
    _cache.pop(base, None)


def weight_factors(
    base: nn.Module, layers: Layers, rank: int, factorize: Callable[[Tensor, int], Factors], few: bool = False
) -> dict[str, Factors]:
    """Factors of the weights of some layers, by name, float32 on the CPU.

    Args:
        base: the model, without adapters or freshly attached to, its weights not yet subtracted from.
        layers: linear layers of it, by name.
        rank: components that are needed.
        factorize: a function (it is the cache's key) from W (m, n) in float32 and a number of components k to a tuple
            of tensors.
        few: it takes longer for more components where the layer is large, as :func:`leading_svd` does.

    Returns:
        What ``factorize`` returned for some k of at least ``rank``, which depends on the rank alone and on no earlier
        call: the caller cuts.
    """
    kept = _cache.setdefault(base, {})
    found = {}
    for name, layer in layers.items():
        components, version = _components(rank, shape_of(layer), few), _version(stored_weight(layer))
        key = factorize, name, components
        if not _serves(kept.get(key), version):
            weight = weight_matrix(layer)
            _check_finite(name, weight)
            kept[key] = _factorized(version, factorize(weight, components))
        found[name] = kept[key].factors
    return found


def gradient_factors(base: nn.Module, layers: Layers, batches: Sequence[Batch], rank: int) -> dict[str, Factors]:
    """The gradient G = dL/dW (m, n) over a sample, U S V^T, and mean |W o G|; else as :func:`weight_factors`."""
    floats = {name: m * n for name, (m, n) in _shapes(layers).items()}
    found = partial(_sample_factors, collect=layer_gradients, factorize=_weighed_svd, floats=floats, few=True)
    return found(base, layers, batches, rank)


def input_factors(
    base: nn.Module,
    layers: Layers,
    batches: Sequence[Batch],
    rank: int,
    factorize: Callable[[Tensor, Tensor, int], Factors],
    collect: Callable[..., dict[str, Tensor]] = input_moments,
    few: bool = False,
) -> dict[str, Factors]:
    """Factors from the inputs' second moment C (n, n) over a sample, and W; else as :func:`weight_factors`."""
    floats = {name: n * n for name, (_, n) in _shapes(layers).items()}
    return _sample_factors(base, layers, batches, rank, collect=collect, factorize=factorize, floats=floats, few=few)


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
    few: bool = False,
) -> dict[str, Factors]:
    """Collect what is missing, few layers at a time: ``floats`` is what collecting takes of memory, by layer."""
    kept = _cache.setdefault(base, {})
    version = sum(map(_version, base_parameters(base)))
    if not sum(map(target_count, batches)):
        raise VariantError("the batches have no target token: all their labels are masked")
    sample = _digest(batches)
    components = {name: _components(rank, shape, few) for name, shape in _shapes(layers).items()}
    keys = {name: (collect, factorize, sample, name, components[name]) for name in layers}
    missing = [name for name in layers if not _serves(kept.get(keys[name]), version)]
    for group in memory_groups({name: 4 * floats[name] for name in missing}, STATISTICS_BYTES):
        collected = collect(base, {name: layers[name] for name in group}, batches)
        for name in group:
            data, weight = collected.pop(name), weight_matrix(layers[name])
            _check_finite(name, weight, *(vars(data).values() if isinstance(data, FisherFactors) else (data,)))
            kept[keys[name]] = _factorized(version, factorize(data, weight, components[name]))
    return {name: kept[key].factors for name, key in keys.items()}


def _check_finite(name: str, *values: object) -> None:
    import torch

    if not all(value.isfinite().all() for value in values if isinstance(value, torch.Tensor)):
        raise VariantError(f"layer {name!r}: its weight, or what the sample shows of it, is not finite")


def _components(rank: int, shape: tuple[int, int], few: bool) -> int:
    """How many to compute: of the rank and the layer alone, for what an earlier trial asked for must change no bit."""
    components = FEW_RANK if few and min(shape) > EXACT_WIDTH else KEPT_RANK
    while components < rank:
        components *= 2
    return min(components, *shape)


def _serves(entry: _Kept | None, version: int) -> bool:
    return entry is not None and entry.version == version


def _factorized(version: int, parts: Factors) -> _Kept:
    # Copies: a view would keep the whole factorization alive.
    return _Kept(version, tuple(part.to("cpu", copy=True).contiguous() for part in parts))


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
