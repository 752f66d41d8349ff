"""Training tokens a second of the optimizer steps, padding left out."""

from __future__ import annotations

from autolora.metrics.measures.measure import Measure, register

register(Measure("tokens_per_second", "maximize", lambda facts: facts.rate(facts.timed_tokens)))
