"""Versions of the packages that compute a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from autolora import __version__

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "optuna", "numpy", "bitsandbytes")


def installed_versions() -> dict[str, str]:
    """Version by name, Python's included."""
    found = {"python": platform.python_version(), "autolora": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
