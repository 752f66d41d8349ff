"""What a reference ``"package.module:attribute"`` of the user's names."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any


class ReferenceFault(Exception):
    """Why a reference names nothing. Whose it is, and what to do, is for the caller to say."""


class Malformed(ReferenceFault):
    """It lacks the module or the attribute."""


class NoModule(ReferenceFault):
    """The module is not there, or one that it imports."""


class Broken(ReferenceFault):
    """The module cannot be imported; the cause is what it raised."""


class NoAttribute(ReferenceFault):
    """The module has no such attribute."""


def folders_of(references: Iterable[str]) -> list[str]:
    """Where the modules of references lie, outside of the installed packages: what :func:`importable_from` is given.

    Args:
        references: those whose module is not found are left out.

    Returns:
        Absolute paths, sorted.
    """
    installed = {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    found = set()
    for reference in references:
        spec = PathFinder.find_spec(reference.partition(":")[0].partition(".")[0], [os.getcwd(), *sys.path])
        if spec is not None:
            folders = spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else [])
            found |= {str(Path(each).absolute().parent) for each in folders}
    return sorted(folder for folder in found if os.path.realpath(folder) not in installed)


def importable_from(folders: Iterable[str]) -> None:
    """Look for modules in these folders, too, behind all others: they hide nothing."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def named(reference: str) -> Any:
    """The attribute of the module, which is imported with the working directory on the path.

    Raises:
        ReferenceFault: one of its kinds.
    """
    module, _, attribute = reference.partition(":")
    if not (module and attribute):
        raise Malformed("write package.module:attribute")
    _look_in(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NoModule(f"{error} (looked in {os.getcwd()} and the installed packages)") from error
    except (Exception, SystemExit) as error:  # a script that ends itself must not end the caller
        raise Broken(f"importing {module} failed ({error!r})") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise NoAttribute(f"{module} has no {attribute!r}")
        found = getattr(found, part)
    return found
