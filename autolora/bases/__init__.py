"""The frozen model that adapters are trained on, with a file for each way to hold it: so far, full precision."""

from autolora.bases.base import Base
from autolora.bases.errors import ModelError
from autolora.bases.full_precision import load

__all__ = ["Base", "ModelError", "load"]
