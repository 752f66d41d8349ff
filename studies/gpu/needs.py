"""Which packages the check cannot do without, and which only some rows need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys

REQUIRED = {"torch": "2.11", "transformers": "5.17", "peft": "0.20", "accelerate": "1.10", "pydantic": "2.7"}
"""Packages and the oldest versions that will do; peft itself imports accelerate."""
OPTIONAL = {
    "optuna": "the record of a study",
    "datasets": "rows as datasets.Dataset",
    "bitsandbytes": "4-bit bases",
}
"""Packages without which rows are skipped, and what those are about."""


def installed(package: str) -> bool:
    """Whether this interpreter finds a package; it is not imported."""
    return importlib.util.find_spec(package) is not None


def version(package: str) -> str:
    """Of an installed package; "missing" if it is not there."""
    if not installed(package):
        return "missing"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a folder on the path, without what installers write
        return "unknown"


def unmet() -> list[str]:
    """What is missing or too old of what the check cannot do without, a line each."""
    lines = []
    for package, least in REQUIRED.items():
        found = version(package)
        if found == "missing":
            lines.append(f"{package} >= {least} is missing")
        elif found != "unknown" and _numbers(found) < _numbers(least):
            lines.append(f"{package} is {found}; at least {least} is needed")
    return lines


def check() -> None:
    """End the program if it cannot run under this interpreter."""
    lines = unmet()
    if lines:
        raise SystemExit(
            f"studies.gpu cannot run under {sys.executable}: {'; '.join(lines)}. Use another interpreter, or put the "
            "packages into a folder (pip install --target FOLDER PACKAGE) and that folder on PYTHONPATH."
        )


def missing(package: str) -> str | None:
    """Why a row that needs a package is skipped; None if it is there."""
    return None if installed(package) else f"{package} is not installed ({OPTIONAL[package]})"


def _numbers(text: str) -> tuple[int, ...]:
    """Of a version, the first two."""
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
