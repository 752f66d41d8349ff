"""What is believed about good hyperparameters before the first trial.

Imported on first use, so that importing the package is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autolora.priors.prior import Prior
    from autolora.priors.sharpness import Curvature, curvature

_HOME = {
    "Prior": "autolora.priors.prior",
    "Curvature": "autolora.priors.sharpness",
    "curvature": "autolora.priors.sharpness",
}

__all__ = ["Curvature", "Prior", "curvature"]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'autolora.priors' has no attribute {name!r}")
