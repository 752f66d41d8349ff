"""The ``trainer`` section of a specification, a file a kind; no torch. What trains is in :mod:`autolora.trainers`."""

from __future__ import annotations

import importlib
import pkgutil

from autolora.trainer_specs.trainer_spec import BUILTIN, KINDS, TrainerSpec, register, trainer_of

# A new kind touches nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["BUILTIN", "KINDS", "TrainerSpec", "register", "trainer_of"]
