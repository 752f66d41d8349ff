"""The record of a search in an Optuna storage, and the run directory around it.

Names are imported on first use, since most of them need Optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autolora.study.directory import NoStudyError, begun_study, read_study, read_terms
    from autolora.study.lock import StudyInUseError
    from autolora.study.recorder import StudyRecorder
    from autolora.study.storage import StudyError
    from autolora.study.study import Study

_HOME = {
    "NoStudyError": "autolora.study.directory",
    "Study": "autolora.study.study",
    "StudyError": "autolora.study.storage",
    "StudyInUseError": "autolora.study.lock",
    "StudyRecorder": "autolora.study.recorder",
    "begun_study": "autolora.study.directory",
    "read_study": "autolora.study.directory",
    "read_terms": "autolora.study.directory",
}

__all__ = [
    "NoStudyError",
    "Study",
    "StudyError",
    "StudyInUseError",
    "StudyRecorder",
    "begun_study",
    "read_study",
    "read_terms",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'autolora.study' has no attribute {name!r}")
