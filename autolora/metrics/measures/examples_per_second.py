"""Training examples a second of the optimizer steps."""

from __future__ import annotations

from autolora.metrics.measures.measure import Measure, register

register(Measure("examples_per_second", "maximize", lambda facts: facts.rate(facts.timed_examples)))
