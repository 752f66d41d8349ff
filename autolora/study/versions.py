"""Versions of the packages that compute a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("autolora", "torch", "transformers", "peft", "accelerate", "datasets", "optuna", "numpy")


def installed_versions() -> dict[str, str]:
    """Version by name, Python's included."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            found[package] = "not installed"
    return found
