"""Puts the benchmark's folder on the path, as a study's own scripts have it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "studies" / "search"))
