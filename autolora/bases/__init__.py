"""How the frozen model is held, a file a way. In full precision so far."""

from autolora.bases.base import Base
from autolora.bases.errors import ModelError
from autolora.bases.full_precision import load

__all__ = ["Base", "ModelError", "load"]
