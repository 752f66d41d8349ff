"""All cases: importing the modules that register them."""

from __future__ import annotations

from studies.attack import damage, inputs, kills, litter, locks, names, notebook, streams
from studies.attack.case import CASES

__all__ = ["CASES", "damage", "inputs", "kills", "litter", "locks", "names", "notebook", "streams"]
