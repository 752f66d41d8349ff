"""Auto-tuning of LoRA fine-tuning: the tuned configuration and a trained adapter for each variant.

Everything heavy is imported on first use, so that ``import autolora`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autolora import priors, testing, variants
    from autolora.advising import recommend
    from autolora.api import Search, load_adapter
    from autolora.driver import Callback, finish, resume, tune
    from autolora.driver.result import TuneResult
    from autolora.priors import Prior
    from autolora.priors.advice import Advice
    from autolora.search import WAIT
    from autolora.space import Config, Space
    from autolora.spec import Spec, SpecError
    from autolora.trainers.command.current import current_trial

__version__ = "0.1.0"

_HOME = {
    "Advice": "autolora.priors.advice",
    "Callback": "autolora.driver",
    "tune": "autolora.driver",
    "resume": "autolora.driver",
    "finish": "autolora.driver",
    "Search": "autolora.api",
    "WAIT": "autolora.search",
    "Space": "autolora.space",
    "Config": "autolora.space",
    "Spec": "autolora.spec",
    "SpecError": "autolora.spec",
    "TuneResult": "autolora.driver.result",
    "Prior": "autolora.priors",
    "load_adapter": "autolora.api",
    "recommend": "autolora.advising",
    "current_trial": "autolora.trainers.command.current",
}
_MODULES = ("variants", "priors", "testing")

__all__ = [
    "WAIT",
    "Advice",
    "Callback",
    "Config",
    "Prior",
    "Search",
    "Space",
    "Spec",
    "SpecError",
    "TuneResult",
    "current_trial",
    "finish",
    "load_adapter",
    "priors",
    "recommend",
    "resume",
    "testing",
    "tune",
    "variants",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"autolora.{name}")
    raise AttributeError(f"module 'autolora' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
