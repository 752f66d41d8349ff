"""How a file becomes a table, a file a kind. Every module of this folder registers its own on import."""

from __future__ import annotations

import importlib
import pkgutil

from autolora.tasks.data.readers.reader import Reader, reader_of, register, suffixes

__all__ = ["Reader", "reader_of", "register", "suffixes"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
