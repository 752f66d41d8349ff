"""What trainings cost and were like beside their scores, a file a measure. Every module registers its own on import."""

from __future__ import annotations

import importlib
import pkgutil

from autolora.metrics.measures.measure import Facts, Measure, register, registry

# A new measure touches nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Facts", "Measure", "register", "registry"]
