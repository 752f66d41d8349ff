"""What functions load, kept in this process between trials and handed out clean."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from autolora.bases.snapshot import Snapshot
from autolora.trainers.trial import Load, Trial

if TYPE_CHECKING:
    from torch import nn


class Resident:
    """Keeps what :meth:`autolora.trainers.trial.Trial.base` returns.

    Attributes:
        taken: how often something was asked for since the last :meth:`lent`.
        notes: lines on what had to be loaded again, and why.
    """

    def __init__(self) -> None:
        self._kept: dict[object, tuple[Any, list[Snapshot]]] = {}
        self._out: list[object] = []
        self.taken = 0
        self.notes: list[str] = []

    def take(self, load: Load) -> Any:
        """What a function loads: kept from an earlier call, or loaded now.

        Functions are told apart by their code and what they capture. One that captures what cannot be compared is
        called every time.
        """
        self.taken += 1
        key = _key(load)
        if key is None:
            return load()
        if key not in self._kept:
            loaded = load()
            self._kept[key] = loaded, [Snapshot(model) for model in _models(loaded)]
        self._out.append(key)
        return _handed_out(self._kept[key][0])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Context after which everything that was taken is as it was loaded; what has changed is loaded again."""
        self.taken = 0
        try:
            yield
        finally:
            for key in dict.fromkeys(self._out):
                loaded, snapshots = self._kept[key]
                restored = [snapshot.restore() for snapshot in snapshots]
                if not all(restored):
                    del self._kept[key]
                    self._note(loaded)
            self._out.clear()

    def _note(self, loaded: Any) -> None:
        names = " and ".join(type(model).__name__ for model in _models(loaded))
        line = f"training changes the weights of {names} itself, so it is loaded again for the next trial"
        if line not in self.notes:
            self.notes.append(line)

    def models(self) -> list[nn.Module]:
        """Those that are kept."""
        return [model for loaded, _ in self._kept.values() for model in _models(loaded)]

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


def _key(load: Load) -> object | None:
    """What tells a function from others; None if it cannot be told."""
    key = _identity(load)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _identity(load: Any) -> object:
    if isinstance(load, MethodType):
        return load.__func__ if load.__func__ is Trial._load else (load.__func__, id(load.__self__))
    if isinstance(load, partial):
        return _identity(load.func), load.args, tuple(sorted(load.keywords.items()))
    code = getattr(load, "__code__", None)
    if code is None:
        return load
    captured = tuple(cell.cell_contents for cell in load.__closure__ or ())
    return load.__module__, code, load.__defaults__, captured
