"""Parameter groups, as torch's optimizers hold them."""

from __future__ import annotations

from typing import Any

Group = dict[str, Any]
"""Parameters, by "params", and settings of the optimizer by their names, such as "lr"."""
