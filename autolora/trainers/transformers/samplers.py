"""The generators that a dataloader's samplers own, seeded for an epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

ROOTS = ("generator", "synchronized_generator", "sampler", "batch_sampler")
"""Attributes of a dataloader that its order comes from."""


def seed_samplers(loader: Any, seed: int) -> None:
    """Seed every generator that a dataloader, its samplers and the samplers within these own.

    Those of torch, NumPy and Python's ``random`` count. Otherwise a sampler that was made once, such as the one of
    GRPO, would begin a later epoch with the order of the first one where the training is resumed in it.

    Args:
        loader: as the trainer iterates over it.
        seed: of the epoch. Each generator gets another one, by the order in which they are found.
    """
    for place, generator in enumerate(_generators(loader)):
        _seed(generator, seed + place)


def _generators(loader: Any) -> Iterator[Any]:
    import torch
    from torch.utils.data import Sampler

    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    followed = (*kinds, Sampler, Mapping, list, tuple)
    waiting = [getattr(loader, name, None) for name in reversed(ROOTS)]
    roots = {id(each) for each in waiting}
    seen = {id(getattr(loader, "dataset", None))}  # its rows may be many, and are no samplers
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, kinds):
            yield each
        else:
            waiting.extend(part for part in reversed(_parts(each, id(each) in roots)) if isinstance(part, followed))


def _parts(held: Any, is_root: bool) -> list[Any]:
    """What a sampler or a container holds."""
    from torch.utils.data import Sampler

    if isinstance(held, Mapping):
        return list(held.values())
    if isinstance(held, (list, tuple)):
        return list(held)
    own = getattr(held, "__dict__", {}) if is_root or isinstance(held, Sampler) else {}
    return [own[name] for name in sorted(own)]


def _seed(generator: torch.Generator | np.random.Generator | np.random.RandomState | random.Random, seed: int) -> None:
    if isinstance(generator, np.random.Generator):
        bits: Any = type(generator.bit_generator)
        generator.bit_generator.state = bits(seed).state
    elif isinstance(generator, (np.random.RandomState, random.Random)):
        generator.seed(seed % 2**32)
    else:
        generator.manual_seed(seed)
