"""What importing a part of the package loads, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "import sys, {module}; print(*(name for name in {unwanted} if name in sys.modules))"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("autolora", ("torch", "optuna", "numpy", "pydantic", "ray", "peft", "transformers", "datasets")),
        ("autolora.space", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.spec", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.adapters.loading", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.variants", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.priors", ("torch", "optuna", "numpy", "ray", "peft", "transformers", "datasets")),
        ("autolora.laws", ("torch", "optuna", "numpy", "ray", "peft", "transformers", "datasets")),
        ("autolora.priors.prior", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.priors.advice", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.priors.evidence", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.priors.sharpness", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.search", ("torch", "ray", "peft", "transformers", "datasets")),
        ("autolora.study", ("torch", "ray", "peft", "transformers", "datasets")),
        ("autolora.analysis.verdict", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.metrics", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.advising", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.api", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.execution", ("torch", "optuna", "numpy", "pydantic", "ray", "peft", "transformers", "datasets")),
        ("autolora.driver", ("torch", "ray", "peft", "transformers", "datasets")),
        ("autolora.trainers.command.current", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
        ("autolora.trainers.command.trainer", ("torch", "ray", "peft", "transformers", "datasets")),
        ("autolora.cli", ("torch", "optuna", "ray", "peft", "transformers", "datasets")),
    ],
)
def test_importing_loads_nothing_heavy(module, unwanted):
    program = PROGRAM.format(module=module, unwanted=unwanted)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_search_runs_without_torch():
    program = """
import sys
import autolora
names = ["lora", "dora", "lora_ga", "adalora", "goat"]
search = autolora.Search(variants=names, space=autolora.Space(hidden_size=64), budget=4)
while (job := search.ask()) is not None:
    search.tell(job, job.config.learning_rate)
assert len(search.best()) == len(names)
print(*(name for name in ("torch", "ray", "peft", "transformers", "datasets") if name in sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_all_public_names_are_listed_and_found():
    import autolora

    assert set(autolora.__all__) <= set(dir(autolora))
    assert all(getattr(autolora, name) is not None for name in autolora.__all__)
