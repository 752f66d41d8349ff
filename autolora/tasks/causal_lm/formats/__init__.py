"""How a row becomes an example, a file a format. Every module of this folder registers its own on import."""

from __future__ import annotations

import importlib
import pkgutil

# A new format touches nothing else.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
