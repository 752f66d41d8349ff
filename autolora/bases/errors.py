"""The one error of bases."""

from __future__ import annotations

from autolora.errors import AutoloraError


class ModelError(AutoloraError, ValueError):
    """The base model cannot be loaded; the message says what was tried and what to do."""
