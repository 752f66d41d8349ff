"""What a reference ``"package.module:attribute"`` of the user's names."""

from __future__ import annotations

import importlib
import os
import sys
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


def named(reference: str) -> Any:
    """The attribute of the module, which is imported with the working directory on the path.

    Raises:
        ReferenceFault: one of its kinds.
    """
    module, _, attribute = reference.partition(":")
    if not (module and attribute):
        raise Malformed("write package.module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
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
