"""The error of everything that attaches, trains, exports or loads an adapter."""

from __future__ import annotations

from autolora.errors import AutoloraError


class VariantError(AutoloraError, ValueError):
    """A variant cannot be used as asked; the message names the model, layer or setting and what would be right."""
