"""What goes wrong with a command that trains."""

from __future__ import annotations

from autolora.errors import AutoloraError


class CommandError(AutoloraError, RuntimeError):
    """A command that trains failed, or its settings are wrong."""


class NoTrialError(AutoloraError, RuntimeError):
    """This process trains no trial."""
