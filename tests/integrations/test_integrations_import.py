"""What the integrations load, and that nothing loads them, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "import sys, {module}; print(*(name for name in sys.modules if name.startswith({unwanted})))"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("autolora", ("autolora.integrations",)),
        ("autolora.cli", ("autolora.integrations",)),
        ("autolora.driver", ("autolora.integrations",)),
        ("autolora.integrations", ("optuna", "transformers", "torch", "numpy")),
        ("autolora.integrations.optuna", ("torch", "transformers", "peft", "datasets", "ray")),
        ("autolora.integrations.transformers", ("optuna", "ray")),
    ],
)
def test_importing_loads_nothing_that_it_does_not_need(module, unwanted):
    program = PROGRAM.format(module=module, unwanted=unwanted)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
