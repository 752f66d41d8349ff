"""Wall time of a trial in seconds, over all its segments, evaluations included."""

from __future__ import annotations

from autolora.metrics.measures.measure import Measure, register

register(Measure("seconds", "minimize", lambda facts: facts.seconds, "s"))
