"""The process's own generators, which trainers draw from, seeded for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which Python, NumPy and torch draw from this seed; afterwards they go on as if it had not been."""
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices):
            seed_all(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
