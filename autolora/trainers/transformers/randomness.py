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
    began = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if began else []
    try:
        with torch.random.fork_rng(devices):
            seed_all(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        if torch.cuda.is_initialized() and not began:  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(torch.initial_seed())  # as if CUDA had been initialized outside


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
