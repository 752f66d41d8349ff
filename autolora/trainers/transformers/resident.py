"""What functions load, kept in this process between trials and handed out clean."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from autolora.bases.snapshot import Snapshot
from autolora.trainers.transformers.randomness import seeded
from autolora.trainers.trial import Load, Trial

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a function has loaded; the function, so that what it captures lives as long; and how its models were."""

    load: Load
    loaded: Any
    snapshots: list[Snapshot]


class Resident:
    """Keeps what :meth:`autolora.trainers.trial.Trial.base` returns, from one trial to the next.

    Args:
        seed: that functions load with, so that what they draw, such as a new head, does not depend on the trial that
            loads first, and what a trial draws later does not depend on whether it has loaded.

    Attributes:
        taken: how often something was asked for since the last :meth:`lent`.
        notes: lines on what had to be loaded again, and why.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._kept: dict[object, _Kept] = {}
        self._out: dict[object, None] = {}
        self.taken = 0
        self.notes: list[str] = []

    def take(self, load: Load) -> Any:
        """What a function loads: kept from the trial before, or loaded now.

        Functions are told apart by their code and by what they capture.
        """
        self.taken += 1
        key = _identity(load)
        if key not in self._kept:
            self._give_up_former(load)
            with seeded(self._seed):
                loaded = load()
            self._kept[key] = _Kept(load, loaded, [Snapshot(model) for model in _models(loaded)])
        self._out[key] = None
        return _handed_out(self._kept[key].loaded)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Context after which everything that was taken is as it was loaded.

        What has changed is loaded again, and what was not taken is kept no longer.
        """
        self.taken = 0
        self._out.clear()
        try:
            yield
        finally:
            if self._out:
                self._kept = {key: kept for key, kept in self._kept.items() if key in self._out}
            for key, kept in list(self._kept.items()):
                restored = [snapshot.restore() for snapshot in kept.snapshots]
                if not all(restored):
                    del self._kept[key]
                    names = " and ".join(type(model).__name__ for model in _models(kept.loaded))
                    self._note(f"training changes the weights of {names} itself, so it is loaded for every trial")

    def _give_up_former(self, load: Load) -> None:
        """Make room where the same code has loaded something else for the trial before."""
        code = getattr(load, "__code__", None)
        former = [
            key
            for key, kept in self._kept.items()
            if key not in self._out and getattr(kept.load, "__code__", load) is code
        ]
        for key in former:
            del self._kept[key]
        if code is not None and former:
            self._note(
                f"trial.base is given another {load.__qualname__} for every trial, since it captures "
                f"{', '.join(code.co_freevars) or 'its defaults'}, so it loads every time: give it a function that "
                "captures nothing of the trial"
            )

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            warnings.warn(line, stacklevel=2)

    def models(self) -> list[nn.Module]:
        """Those that are kept."""
        return [model for kept in self._kept.values() for model in _models(kept.loaded)]

    def drop(self) -> None:
        """Keep nothing any more."""
        self._kept.clear()


def _models(loaded: Any) -> list[nn.Module]:
    from torch.nn import Module

    return [each for each in _parts(loaded) if isinstance(each, Module)]


def _parts(loaded: Any) -> list[Any]:
    if isinstance(loaded, Mapping):
        return list(loaded.values())
    return list(loaded) if isinstance(loaded, (tuple, list)) else [loaded]


def _handed_out(loaded: Any) -> Any:
    """The very models, and copies of tokenizers and processors, to which a training may add tokens."""
    if isinstance(loaded, Mapping):
        return {name: _own(value) for name, value in loaded.items()}
    if isinstance(loaded, tuple):
        parts = [_own(value) for value in loaded]
        return type(loaded)(*parts) if hasattr(loaded, "_fields") else tuple(parts)
    return [_own(value) for value in loaded] if isinstance(loaded, list) else _own(loaded)


def _own(value: Any) -> Any:
    from torch.nn import Module

    return copy.deepcopy(value) if hasattr(value, "save_pretrained") and not isinstance(value, Module) else value


def _identity(load: Any) -> object:
    """What tells a function from others: its code, and what it captures, by value where that can be compared."""
    if isinstance(load, MethodType):
        return load.__func__ if load.__func__ is Trial._load else (load.__func__, id(load.__self__))
    if isinstance(load, partial):
        values = [*load.args, *(value for _, value in sorted(load.keywords.items()))]
        return (_identity(load.func), *sorted(load.keywords), *map(_comparable, values))
    code = getattr(load, "__code__", None)
    if code is None:
        return _comparable(load)
    captured = [cell.cell_contents for cell in load.__closure__ or ()]
    return (load.__module__, code, *map(_comparable, [*captured, *(load.__defaults__ or ())]))


def _comparable(value: Any) -> object:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
