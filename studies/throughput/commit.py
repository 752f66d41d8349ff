"""The commit that a result is of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def commit(checkout: Path = Path(__file__).parent) -> str:
    """That of a checkout as ``git describe`` has it, "-dirty" where files were changed since; "unknown" outside of a
    clone."""
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
