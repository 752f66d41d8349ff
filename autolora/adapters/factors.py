"""Factorizations of base weights and of what data says of them, computed once per base model, shared by its trials."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from autolora.adapters.errors import VariantError
from autolora.adapters.layer import base_buffers, base_parameters, stored_weight
from autolora.adapters.packed import bits_of
from autolora.adapters.statistics import (
    FisherFactors,
    fisher_factors,
    input_moments,
    layer_gradients,
    memory_groups,
    shape_of,
)
from autolora.adapters.store import Store, digest_of, key_of, name_of
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


LOOK_SECONDS, PATIENCE = 0.2, 600.0
"""While other processes compute what is needed: how often it is looked for, and after what time without any of it this
process computes it, too."""


@dataclass(frozen=True)
class _Kept:
    version: int  # of what it is computed from, which an in-place update (another checkpoint loaded) advances
    factors: Factors


@dataclass
class _Cache:
    """What is kept of one base.

    Attributes:
        kept: factors in memory.
        store: on disk; None if there is none.
        digests: of parameters, with the version that they are of, by ``id``; a parameter that is held keeps its own.
    """

    kept: dict[Hashable, _Kept] = field(default_factory=dict)
    store: Store | None = None
    digests: dict[int, tuple[Tensor, int, str]] = field(default_factory=dict)

    def digest(self, parameter: Tensor, layer: nn.Module | None = None) -> str:
        """A digest of a parameter, or of the numbers that it stands for in a layer in few bits."""
        known = self.digests.get(id(parameter))
        if known is None or known[1] != _version(parameter):
            values = weight_matrix(layer) if layer is not None and bits_of(layer) else parameter
            known = self.digests[id(parameter)] = parameter, _version(parameter), digest_of(values)
        return known[2]


@dataclass(frozen=True)
class _Wanted:
    """Factors of one layer: their key in memory, the version of what they are of, and their key on disk.

    The latter is empty where they are not kept there.
    """

    key: Hashable
    version: int
    stored: str


_cache: WeakKeyDictionary[nn.Module, _Cache] = WeakKeyDictionary()


@contextmanager
def kept_in(base: nn.Module, store: Store) -> Iterator[None]:
    """Context in which factorizations of a base model are also looked for, and kept, on disk."""
    cache = _cache.setdefault(base, _Cache())
    before, cache.store = cache.store, store
    try:
        yield
    finally:
        cache.store = before


def forget(base: nn.Module) -> None:
    """Free the memory of what is kept of a base model."""
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
    cache = _cache.setdefault(base, _Cache())
    components = {name: _components(rank, shape, few) for name, shape in _shapes(layers).items()}

    def wanted(name: str) -> _Wanted:
        weight = stored_weight(layers[name])
        key, version = (factorize, name, components[name]), _version(weight)
        if _serves(cache.kept.get(key), version) or not _is_stored(cache, layers[name], factorize):
            return _Wanted(key, version, "")
        facts = name_of(factorize), components[name], shape_of(layers[name]), cache.digest(weight, layers[name])
        return _Wanted(key, version, key_of(weight.device, *facts))

    def compute(names: Sequence[str]) -> Iterator[tuple[str, Factors]]:
        for name in names:
            weight = weight_matrix(layers[name])
            _check_finite(name, weight)
            yield name, factorize(weight, components[name])

    return _completed(cache, {name: wanted(name) for name in layers}, lambda names: [[name] for name in names], compute)


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
    cache = _cache.setdefault(base, _Cache())
    version = sum(map(_version, base_parameters(base)))
    if not sum(map(target_count, batches)):
        raise VariantError("the batches have no target token: all their labels are masked")
    sample = _digest(batches)
    components = {name: _components(rank, shape, few) for name, shape in _shapes(layers).items()}

    @lru_cache(maxsize=1)  # of all layers of this call
    def model_digest() -> str:
        return _model_digest(cache, base)

    def wanted(name: str) -> _Wanted:
        key = collect, factorize, sample, name, components[name]
        if _serves(cache.kept.get(key), version) or not _is_stored(cache, layers[name], collect, factorize):
            return _Wanted(key, version, "")
        facts = name_of(collect), name_of(factorize), sample, name, components[name], model_digest()
        return _Wanted(key, version, key_of(stored_weight(layers[name]).device, *facts))

    def grouped(names: Sequence[str]) -> list[list[str]]:
        return memory_groups({name: 4 * floats[name] for name in names}, STATISTICS_BYTES)

    def compute(names: Sequence[str]) -> Iterator[tuple[str, Factors]]:
        collected = collect(base, {name: layers[name] for name in names}, batches)
        for name in names:
            data, weight = collected.pop(name), weight_matrix(layers[name])
            _check_finite(name, weight, *(vars(data).values() if isinstance(data, FisherFactors) else (data,)))
            yield name, factorize(data, weight, components[name])

    return _completed(cache, {name: wanted(name) for name in layers}, grouped, compute)


def _completed(
    cache: _Cache,
    wanted: Mapping[str, _Wanted],
    grouped: Callable[[Sequence[str]], list[list[str]]],
    compute: Callable[[Sequence[str]], Iterator[tuple[str, Factors]]],
) -> dict[str, Factors]:
    """Factors of all layers: from memory, from disk, or computed.

    Processes that need the same at once share the work: what another one computes is left for later, and read then.

    Args:
        cache: of the base.
        wanted: by layer.
        grouped: groups of layers that are computed together.
        compute: factors of some layers, one after the other.
    """
    pending = deque(grouped([name for name, each in wanted.items() if not _found(cache, each)]))
    until, postponed = time.monotonic() + PATIENCE, 0
    while pending:
        group = pending.popleft()
        with _turn(cache, wanted[group[0]]) as mine:
            missing = [name for name in group if not _found(cache, wanted[name])]
            if not missing or mine or time.monotonic() > until:
                for name, factors in compute(missing) if missing else ():
                    _keep(cache, wanted[name], factors)
                until, postponed = time.monotonic() + PATIENCE, 0
                continue
        pending.append(group)
        postponed += 1
        if postponed >= len(pending):  # others compute all that is left
            time.sleep(LOOK_SECONDS)
            postponed = 0
    return {name: cache.kept[each.key].factors for name, each in wanted.items()}


def _turn(cache: _Cache, wanted: _Wanted) -> AbstractContextManager[bool]:
    return cache.store.turn(wanted.stored) if cache.store is not None and wanted.stored else nullcontext(True)


def _found(cache: _Cache, wanted: _Wanted) -> bool:
    """Whether factors are in memory, or were on disk and are in memory now."""
    if _serves(cache.kept.get(wanted.key), wanted.version):
        return True
    factors = cache.store.load(wanted.stored) if cache.store is not None and wanted.stored else None
    if factors is None:
        return False
    cache.kept[wanted.key] = _Kept(wanted.version, factors)
    return True


def _keep(cache: _Cache, wanted: _Wanted, factors: Factors) -> None:
    # Copies: a view would keep the whole factorization alive.
    copies = tuple(factor.to("cpu", copy=True).contiguous() for factor in factors)
    cache.kept[wanted.key] = _Kept(wanted.version, copies)
    if cache.store is not None and wanted.stored:
        cache.store.save(wanted.stored, copies)


def _is_stored(cache: _Cache, layer: nn.Module, *functions: object) -> bool:
    """Whether factors of a layer are kept on disk: those that are worth a file, by functions that another process can
    tell apart.
    """
    if cache.store is None or None in map(name_of, functions):
        return False
    return math.prod(shape_of(layer)) >= cache.store.least


def _model_digest(cache: _Cache, base: nn.Module) -> str:
    """A digest of all that a base computes with."""
    config = getattr(base, "config", None)
    settings = {} if config is None else config.to_dict()
    attention = getattr(config, "_attn_implementation", None)
    digest = hashlib.sha256(f"{type(base).__qualname__} {attention}".encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    packed = {id(layer.weight): layer for layer in base.modules() if bits_of(layer)}
    for parameter in base_parameters(base):
        digest.update(cache.digest(parameter, packed.get(id(parameter))).encode())
    for buffer in base_buffers(base):
        digest.update(digest_of(buffer).encode())
    return digest.hexdigest()


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
