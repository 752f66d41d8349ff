"""Number of parameters that train."""

from __future__ import annotations

from autolora.metrics.measures.measure import Measure, register

register(Measure("trainable_parameters", "minimize", lambda facts: facts.parameters))
